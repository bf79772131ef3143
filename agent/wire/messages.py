"""Every message on the wire, as msgspec structs in MessagePack; docs/wire-protocol.md explains them.

Digests are 32 raw bytes of SHA-256. Sizes are bytes, times are nanoseconds since the epoch, modes are
the permission bits of `st_mode`. Paths are relative to the tree, with `/`, canonical and never empty.
`Hello`, `HelloAck`, `PairRequest` and `PairAck` are frozen for ever: they negotiate all others.
"""

from typing import Literal

import msgspec

from agent.wire.base import Message
from agent.wire.bulk import BlockDescriptions, BlockRequest, BlockResponseBin, DescribeBlocks
from agent.wire.forecast import Forecast
from agent.wire.handshake import Hello as Hello
from agent.wire.handshake import HelloAck as HelloAck
from agent.wire.handshake import PairAck as PairAck
from agent.wire.handshake import PairRequest as PairRequest
from agent.wire.owners import OWNERS as OWNERS
from agent.wire.owners import IndexOwners as IndexOwners
from agent.wire.renewal import CertificateAnswer, CertificateOffer, RenewCertificate

PROTOCOL_VERSIONS = (4, 3, 2)
"""The versions of the protocol this code speaks, newest first."""

NOTICES_SINCE = 3
"""The version from which on both sides know `Standing` and `DriftReport`."""

RENEWALS_SINCE = 4
"""The version from which on both sides know `RenewCertificate` and what follows it."""

RELEASES_SINCE = 4
"""The version from which on an agent knows tasks with the strategy `release`."""

DIGEST_SIZE = 32

DEFLATE = "deflate"
"""The feature of a transfer whose raw frames may be compressed."""

PROGRESS = "progress"
"""Feature of any task: tell how far it is; see `TaskProgress`."""

PHASES = ("wait", "look", "copy", "place", "command")

RUNS = "runs"
"""The feature of sending no entries that the agent has: see `KnownRuns`."""

NO_TIMES = "no_times"
"""The feature of a tree whose times mean nothing, as that of a checkout: what is the same keeps its time on
the host, and what is written gets the time when it is. Where it is agreed on, all times sent are 0."""

STREAM = "stream"
"""The feature of sending an index, without times, while the tree is hashed: `Task.tree` stands for none then,
and `IndexEnd` tells it. An `IndexFile` without entries says that the next one takes its time."""

ITEMISE = "itemise"
"""Feature of an observing task: say with `Forecast` what a task that is the same but for that would do."""


# --- control connection ------------------------------------------------------------------------


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    sequence: int


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    sequence: int


class RenderedContent(msgspec.Struct, frozen=True, kw_only=True):
    """A file rendered in the primary's memory; its content is secret and travels only here."""

    path: str
    content: bytes
    mode: int = 0o600
    owner: str = ""
    group: str = ""

    def __repr__(self) -> str:
        return f"RenderedContent(path={self.path!r}, content=***)"


class Task(Message, frozen=True, kw_only=True, tag="task"):
    """Primary to agent: bring a target to a tree, or only say what is there.

    With `observe` the agent scans, reports and changes nothing. Otherwise it answers with a
    `TaskReport` at once if everything is as asked, else with `SyncStart`.
    `tree` is the tree digest of the index (`agent.index.tree_digest`).
    """

    id: str
    project: str
    target_path: str
    observe: bool
    strategy: Literal["mirror", "overlay", "release"]
    """`release` (from RELEASES_SINCE on) is a directory of its own for each tree, below the target."""
    tree: bytes
    rendered: tuple[RenderedContent, ...] = ()
    ignore: tuple[str, ...] = ()
    """gitignore lines; what they match is neither compared nor deleted."""
    ignore_permissions: bool = False
    delete_foreign: bool = False
    max_delete: float = 0.5
    allow_empty: bool = False
    on_local_edit: Literal["overwrite", "keep", "backup"] = "overwrite"
    durability: Literal["none", "commit", "paced"] = "commit"
    after: tuple[str, ...] = ()
    trace: str = ""
    """The trace id of what the task follows from, for the log; empty from a primary that tells none."""
    features: tuple[str, ...] = ()
    """What the primary can do beyond the base protocol; see `SyncStart.features`."""
    patience: float = 0.0
    """Seconds by which an answer may come later than usual, because the primary keeps to a bandwidth."""
    keep: int = 3
    """Releases that stay in the target, the current one among them."""
    revision: str = ""
    """What people call the tree of a release; it is remembered and given back."""
    kept_only: bool = False
    """Switch to the release of that tree that is there, as it was left; nothing is sent or rendered."""
    owners: bytes = b""
    """With the feature OWNERS, the digest of owners (`agent.ownership`); empty where they do not count."""

    @property
    def removes_foreign(self) -> bool:
        """Whether what is not in the tree has to go: an overlay leaves it."""
        return self.delete_foreign and self.strategy != "overlay"


class Command(Message, frozen=True, kw_only=True, tag="command"):
    """Primary to agent: run a command that your own configuration allows, in a target that is there.

    Answered with a `TaskReport`, whose `after` holds how the command ended. Running it again is harmless.
    """

    id: str
    project: str
    target_path: str
    command: str
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """Variables for the command besides those it always gets; secrets travel only here."""
    secret: tuple[str, ...] = ()
    """The names of those whose values are hidden in the output."""
    timeout: float = 600.0
    """Seconds; the agent's own limit may be shorter."""
    trace: str = ""

    def __repr__(self) -> str:
        return f"Command(id={self.id!r}, command={self.command!r}, environment=***)"


class Removal(Message, frozen=True, kw_only=True, tag="removal"):
    """Primary to agent: remove what you placed for a project at a target, and nothing else.

    Answered with a `TaskReport`. Where nothing is left, or another project has the target by now, it
    succeeds without touching anything.
    """

    id: str
    project: str
    target_path: str
    trace: str = ""


Work = Task | Command | Removal
"""What a primary asks an agent to do; each has an id, a project and a target, and ends in a report."""

_STRATEGIES_SINCE: dict[str, int] = {"mirror": 2, "overlay": 2, "release": RELEASES_SINCE}


def needed_protocol(work: Work) -> int:
    """The version from which on an agent understands this; it is sent to no older one."""
    return _STRATEGIES_SINCE[work.strategy] if isinstance(work, Task) else PROTOCOL_VERSIONS[-1]


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    task: str
    reason: str = ""


class AfterResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a command that the agent's own configuration allows did."""

    name: str
    exit_code: int
    output: str = ""
    timed_out: bool = False


class KeptVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One release that a target holds, whole: the name of its directory, and what it is."""

    name: str
    tree: bytes
    revision: str = ""
    at: int = 0
    """When it was made, in seconds since the epoch, by the agent's clock."""


class TaskReport(Message, frozen=True, kw_only=True, tag="task_report"):
    """Agent to primary: the task has ended. `observed` is the digest found, before any change."""

    task: str
    state: Literal["SUCCESS", "FAILED"]
    reason: str = ""
    message: str = ""
    observed: bytes = b""
    """Tree digest of what was managed there before; empty where nothing was."""
    rendered_equal: bool = False
    """Whether the rendered files are as asked: as found, or as left by a task that succeeded."""
    owners_equal: bool = True
    """Whether owners and groups are as placed, or asked, as far as this host uses their names."""
    owners_compared: bool = False
    """Whether `owners_equal` says so of the owners that the task names; no older agent knows any."""
    after_done: bool = False
    """Whether the commands of `after` have succeeded since the last change; found or left likewise."""
    established: bytes = b""
    """Tree digest of what is there now; empty on failure."""
    files_written: int = 0
    files_deleted: int = 0
    foreign: int = 0
    """Entries in the target that trueup did not place and left alone."""
    bytes_received: int = 0
    bytes_reused: int = 0
    local_edits: int = 0
    """Those that were met; where edits are kept, those that stand in what the target holds now."""
    warnings: tuple[str, ...] = ()
    after: tuple[AfterResult, ...] = ()
    current: str = ""
    """The name of the release that is switched to; empty where there is none."""
    kept: tuple[KeptVersion, ...] = ()
    """The releases there, those least recently switched to first."""
    blocks_requested: int = 0
    blocks_reused: int = 0
    files_known: int = 0
    """Files whose content was known without reading them."""
    files_read: int = 0
    """Files that were read to find out."""
    seconds: float = 0.0
    """From the task's turn to its end, by a monotonic clock. An older agent tells none of these."""


class TaskProgress(Message, frozen=True, kw_only=True, tag="task_progress"):
    """Agent to primary: the task gets on, said once a minute. Where the task offers the feature `progress`,
    it is also said how far that is, whenever it has changed, at most once a second.

    Totals are 0 where they are not known. `beats` grows with any work, also such as nobody counts.
    """

    task: str
    phase: str = ""
    """What it is at: one of `PHASES`; empty from an agent that does not tell."""
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    beats: int = 0


# --- notices, of no task -------------------------------------------------------------------------


LEADING = "leading"
UNSURE = "unsure"
"""It cannot renew its lease, and does not know whether another one leads by now: stay, and look for that."""
LEAVING = "leaving"
"""It goes away, now and in good order: come again soon, first of all to the others."""


class Standing(Message, frozen=True, kw_only=True, tag="standing"):
    """Primary to agent: how far to rely on me, LEADING, UNSURE or LEAVING. Others are ignored."""

    state: str
    epoch: int = 0
    message: str = ""
    """Why, for people."""


class DriftReport(Message, frozen=True, kw_only=True, tag="drift_report"):
    """Agent to primary: what was placed at a target and what is there are two things; nobody asked.

    `count` entries differ; none: no longer. `digest` stands for exactly this difference, so that the same
    is told once.
    """

    project: str
    target_path: str
    digest: bytes
    count: int


Notice = Standing | DriftReport | RenewCertificate | CertificateOffer | CertificateAnswer
"""What belongs to the session and to no task."""


# --- bulk connection ---------------------------------------------------------------------------


Bits = bytes


class KnownRuns(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has of an index: the digests of its runs back to back; see `agent.runs`."""

    length: int
    """Entries of a run, on average."""
    modes: bool = True
    """Whether the digests cover permissions."""
    digests: bytes


class SyncStart(Message, frozen=True, kw_only=True, tag="sync_start"):
    """Agent to primary: the target differs; send the index of this task.

    `features` are those of the task's that this transfer makes use of. An older peer names none, and gets
    nothing that it does not know.
    """

    task: str
    features: tuple[str, ...] = ()
    known: KnownRuns | None = None
    """With the feature RUNS: what need not be sent."""


class IndexBegin(Message, frozen=True, kw_only=True, tag="index_begin"):
    """`mtime_ns` is the time of the tree's own directory; `entries` and `bytes` count all of the tree."""

    task: str
    entries: int
    bytes: int
    mtime_ns: int = 0
    same: Bits = b""
    """One bit for each run that the agent knows, lowest first: whether all its entries are in the tree."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One file, directory or symlink of an index. `blocks` is the concatenation of its block digests."""

    path: str
    kind: Literal["file", "directory", "symlink"]
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    block_size: int = 0
    blocks: bytes = b""
    link: str = ""


class IndexFile(Message, frozen=True, kw_only=True, tag="index_file"):
    """A batch of entries, in path order, but those of `IndexBegin.same`; the ordinal of an entry in the whole
    index names it in requests."""

    task: str
    entries: tuple[Entry, ...]


class IndexEnd(Message, frozen=True, kw_only=True, tag="index_end"):
    task: str
    tree: bytes


AnyMessage = (
    PairRequest
    | PairAck
    | Hello
    | HelloAck
    | Ping
    | Pong
    | Task
    | Command
    | Removal
    | Cancel
    | TaskReport
    | TaskProgress
    | Forecast
    | Standing
    | DriftReport
    | RenewCertificate
    | CertificateOffer
    | CertificateAnswer
    | SyncStart
    | IndexBegin
    | IndexFile
    | IndexOwners
    | IndexEnd
    | DescribeBlocks
    | BlockDescriptions
    | BlockRequest
    | BlockResponseBin
)
