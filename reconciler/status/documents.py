"""The status files: what each holds, as frozen structs, and all of them together as `Recorded`.

On disk names are camelCase and each file starts with `version`, `kind` and `id`; its path is the id and
`.yaml`. Fields that hold their default are left out. schema/status.v1.schema.json describes the same to
other tools, docs/status.md to people. No field holds a secret, and none holds what moves on each pass (an
age, the time of the last look): a pass that changed nothing writes the same bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from reconciler.hashing import Inputs
from reconciler.status.conditions import Condition, Moment, bounded

MAX_HISTORY: Final = 5
MAX_RELEASES: Final = 20
"""Earlier releases of a unit that an environment remembers: those it can return to, or be promoted from."""
MAX_PROBLEMS: Final = 50
"""Problems of the spec in the summary; `trueup validate` prints all."""

SUMMARY_ID: Final = "summary"


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of what stands inside a document. Keys of a newer version are ignored."""


class InputDigests(Part, frozen=True, kw_only=True):
    """What the config hash was made of, from an input's name to its digest: `reconciler.hashing.Inputs`."""

    public: dict[str, str] = {}
    keyed: dict[str, str] = {}

    @classmethod
    def of(cls, inputs: Inputs) -> "InputDigests":
        return cls(public=dict(inputs.public), keyed=dict(inputs.keyed))


class HistoryEntry(Part, frozen=True, kw_only=True):
    """One outcome that differed from the one before."""

    revision: str = ""
    """Empty for what follows no repository: a secret target."""
    outcome: Literal["succeeded", "failed"]
    config_hash: str = ""
    reason: str = ""
    at: Moment


class Document(Part, frozen=True, kw_only=True):
    """Base of all status files. `observed_generation` is the digest of the desired state last acted on."""

    id: str
    observed_generation: str = ""
    conditions: tuple[Condition, ...] = ()


ReleaseKind = Literal["external", "cut", "promotion", "hotfix", "rollback", "release"]
"""How it came: a tag that others made, one made for a change of the branch, one made for a promotion or a
hotfix, an earlier one that was returned to, or a number that somebody asked for."""


class Release(Part, frozen=True, kw_only=True):
    """The release of a unit in an environment. `spec_revision` is a commit of the spec repository."""

    tag: str
    commit: str
    spec_revision: str | None = None
    recorded_at: Moment
    kind: ReleaseKind = "external"
    promoted_from: str = ""
    """The tag in the environment that it was promoted from."""
    previous: str = ""
    """The commit that ran before it."""
    triggered_by: str = ""
    """Who or what asked for it."""
    decision: int = 0
    """The number of the operator's record that it answers; 0: nobody asked."""
    outcome: Literal["", "succeeded", "failed"] = ""
    """Whether everything of the unit ran with it; empty: that is not known yet."""
    ended_at: Moment | None = None
    """When that was first so."""
    reason: str = ""
    """Why it failed, or what of it was suspended while the rest ran: such a release is not promoted."""
    reported: str = ""
    """What GitHub was told of it: the state of its commit, and `release` once there is a GitHub Release."""


class UnitStatus(Part, frozen=True, kw_only=True):
    """A unit's current release and the ones before it, newest first, at most `MAX_RELEASES`."""

    release: Release
    history: tuple[Release, ...] = ()
    decision: int = 0
    """The number of the newest operator's record that was acted on or refused."""
    refused: str = ""
    """Why that one was refused; empty: it was not."""


class Hold(Part, frozen=True, kw_only=True):
    """Why an environment, or one unit there, stays at its release: a secret broke the deploy of `resource`
    when only `keys` had changed, or a release of `unit` failed or was returned from. `decision` is the newest
    operator's record at that time; a later one can lift it.
    """

    reason: str
    resource: str
    keys: tuple[str, ...] = ()
    at: Moment
    unit: str = ""
    decision: int = 0


class Waiting(Part, frozen=True, kw_only=True):
    """A release of a unit that would be taken if something did not keep it back."""

    unit: str
    reason: str
    message: str = ""
    tag: str = ""
    """The tag that it is promoted from, or that was found; empty: it has none yet."""
    commit: str = ""


class EnvironmentStatus(Document, frozen=True, kw_only=True):
    """`environments/<env>`: each unit's release, by unit name. The record decides what runs, not the tag."""

    units: dict[str, UnitStatus] = {}
    holds: tuple[Hold, ...] = ()
    """While there are any, no new release is taken: of the unit that one names, or of all."""
    waiting: tuple[Waiting, ...] = ()
    refused: dict[str, int] = {}
    """By unit that has no release there yet: the number of the newest operator's record that was refused."""

    def seen(self, unit: str) -> int:
        """The number of the newest operator's record that was acted on or refused; 0: none was."""
        known = self.units.get(unit)
        return known.decision if known is not None else self.refused.get(unit, 0)


class Applied(Document, frozen=True, kw_only=True):
    """What services and synced targets have in common.

    Revisions read as `status.revisions` says. `config_hash` and `inputs` are of what was last established;
    the hash is empty while nothing is known to be.
    """

    last_attempted_revision: str = ""
    last_applied_revision: str = ""
    config_hash: str = ""
    inputs: InputDigests = InputDigests()
    history: tuple[HistoryEntry, ...] = ()


class ServiceStatus(Applied, frozen=True, kw_only=True):
    """`services/<env>/<name>`."""

    deploy: str = ""
    """The kind of driver that established it."""
    inventory: dict[str, str] = {}
    """What that driver needs to find it again, to remove it for one; no secrets."""


class SyncCounts(Part, frozen=True, kw_only=True):
    """What the last sync that changed something did. `foreign`: entries of others, left alone."""

    files_written: int = 0
    files_deleted: int = 0
    foreign: int = 0
    local_edits: int = 0
    bytes_received: int = 0
    bytes_reused: int = 0


class KeptRelease(Part, frozen=True, kw_only=True):
    """One release that a target keeps."""

    name: str
    tree: str
    """The digest of its tree, lower-case hex."""
    revision: str = ""
    """What it was made from."""
    at: Moment | None = None
    """When, by the clock of the host."""


class SyncStatus(Applied, frozen=True, kw_only=True):
    """`projects/<scope>/<project>/<node>/<target>`: one project at one path on one node."""

    node: str
    target_path: str
    strategy: str = "mirror"
    tree_digest: str = ""
    """Digest of the tree that was placed, lower-case hex; empty: nothing was."""
    counts: SyncCounts = SyncCounts()
    edits_kept: int = 0
    """Local edits that are there and stay, by the project's policy, as of the last look."""
    after_done: bool = False
    warnings: tuple[str, ...] = ()
    current: str = ""
    """The release that `current` leads to, by the name of its directory; empty for other strategies."""
    releases: tuple[KeptRelease, ...] = ()
    """What the target keeps, the one that was switched to last at the end."""
    rolled_back: str = ""
    """By whom, when and why the target was switched back to a release that it keeps; empty: it was not."""


class NodeStatus(Document, frozen=True, kw_only=True):
    """`nodes/<node>`: the certificate it paired with. Removing the file unpairs it."""

    certificate: str = ""
    """PEM; empty: not paired."""
    next_certificate: str = ""
    """PEM, of one that is accepted too and takes its place once it was used."""
    fingerprint: str = ""
    """SHA-256 of the certificate's public key (SPKI), lower-case hex."""
    paired_at: Moment | None = None
    trust_on_first_use: bool = False
    """Paired without a pin of the primary: a man in the middle could not have been noticed."""
    agent_version: str = ""
    token_key: str = ""
    """The public half of the node's token, as the spec had it last."""
    token_since: Moment | None = None
    """When that was first seen: a token that pairs nobody for a day expires."""


class SourceStatus(Document, frozen=True, kw_only=True):
    """`secrets/<source>`: whether it answers, and the names (never the values) of its keys."""

    source_kind: str = ""
    state: Literal["unknown", "fresh", "stale", "fallback", "failed", "disabled"] = "unknown"
    keys: tuple[str, ...] = ()
    fingerprints: dict[str, str] = {}
    """By key, of the values that the source itself gave last: `hashing.fingerprint` for this id."""
    last_success: Moment | None = None
    """When the source itself last answered, as known when this file last changed for another reason."""
    error_kind: str = ""
    """Why it does not serve: `Down`, `Refused`, or another error's reason; empty while it does."""


class TargetStatus(Applied, frozen=True, kw_only=True):
    """`targets/<name>`: what was written into another system; its keyed inputs are the names there."""

    target_kind: str = ""
    owned: dict[str, str] = {}
    """The names that are ours, with the time of our write as that system tells it: another time is
    somebody else's write."""


class ReadinessCounts(Part, frozen=True, kw_only=True):
    ready: int = 0
    not_ready: int = 0
    unknown: int = 0


class Summary(Document, frozen=True, kw_only=True):
    """`summary`: the pass as a whole. Its revisions are commits of the spec repository.

    `last_applied_revision` is the last one that was valid and acted on; `problems` are those of the last
    attempted one, as `file:line:column: where: what`. `observed_generation` is the spec's hash.
    """

    last_attempted_revision: str = ""
    last_applied_revision: str = ""
    problems: tuple[str, ...] = ()
    counts: dict[str, ReadinessCounts] = {}
    """By kind: `services`, `projects`, `nodes`, ..."""
    control: int = 0
    """The number of the newest operator's record that a pass has seen: the branch never goes back."""
    control_commit: str = ""
    """The commit of the control branch that it saw."""


AnyDocument = (
    EnvironmentStatus | ServiceStatus | SyncStatus | NodeStatus | SourceStatus | TargetStatus | Summary
)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Every status file, by id. What stands here and not in the spec is what a prune looks at."""

    environments: dict[str, EnvironmentStatus] = {}
    services: dict[str, ServiceStatus] = {}
    syncs: dict[str, SyncStatus] = {}
    nodes: dict[str, NodeStatus] = {}
    sources: dict[str, SourceStatus] = {}
    targets: dict[str, TargetStatus] = {}
    summary: Summary | None = None

    def documents(self) -> Iterator[AnyDocument]:
        """All documents, ordered by kind; within a kind in no order that matters."""
        for field in _FIELDS.values():
            yield from getattr(self, field).values()
        if self.summary is not None:
            yield self.summary

    def get(self, id: str) -> AnyDocument | None:
        if id == SUMMARY_ID:
            return self.summary
        field = _FIELDS.get(id.partition("/")[0])
        if field is None:
            return None
        found: AnyDocument | None = getattr(self, field).get(id)
        return found

    def ids(self) -> frozenset[str]:
        return frozenset(document.id for document in self.documents())

    def put(self, *documents: AnyDocument) -> "Recorded":
        """With these documents in place of those of the same ids."""
        return self._replaced({document.id: document for document in documents})

    def without(self, ids: Iterable[str]) -> "Recorded":
        """With these documents gone; ids that are not there are ignored."""
        return self._replaced(dict.fromkeys(ids))

    def _replaced(self, changes: Mapping[str, AnyDocument | None]) -> "Recorded":
        changed: dict[str, dict[str, AnyDocument]] = {}
        summary = self.summary
        for id, document in changes.items():
            if id == SUMMARY_ID:
                if document is not None and not isinstance(document, Summary):
                    raise ValueError(f"{id} takes a Summary, not a {type(document).__name__}")
                summary = document
                continue
            prefix = id.partition("/")[0]
            if prefix not in _FIELDS or not isinstance(document, KINDS[prefix] | None):
                raise ValueError(f"{id} is no place for a {type(document).__name__}")
            field = _FIELDS[prefix]
            held = changed.setdefault(field, dict(getattr(self, field)))
            if document is None:
                held.pop(id, None)
            else:
                held[id] = document
        fields: dict[str, object] = {**changed, "summary": summary}
        return msgspec.structs.replace(self, **fields)


KINDS: Final[Mapping[str, type[AnyDocument]]] = {
    "environments": EnvironmentStatus,
    "services": ServiceStatus,
    "projects": SyncStatus,
    "nodes": NodeStatus,
    "secrets": SourceStatus,
    "targets": TargetStatus,
    SUMMARY_ID: Summary,
}
"""The type of a document by the first part of its id."""

DEPTHS: Final[Mapping[str, int]] = {
    "environments": 2,
    "services": 3,
    "projects": 5,
    "nodes": 2,
    "secrets": 2,
    "targets": 2,
    SUMMARY_ID: 1,
}
"""How many parts an id of each kind has."""

_FIELDS: Final[Mapping[str, str]] = {
    "environments": "environments",
    "services": "services",
    "projects": "syncs",
    "nodes": "nodes",
    "secrets": "sources",
    "targets": "targets",
}


def bounded_problems(problems: Iterable[object]) -> tuple[str, ...]:
    """The first problems as bounded lines, and a line that says how many more there are."""
    lines = [bounded(str(problem)) for problem in problems]
    more = len(lines) - MAX_PROBLEMS
    return tuple(lines) if more <= 0 else (*lines[:MAX_PROBLEMS], f"and {more} more")
