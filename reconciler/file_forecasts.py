"""What a sync of a project would do to each of its targets, file by file, as their agents see it.

Nothing is changed. A build runs as in a pass, in a checkout of its own. The answer is one bounded document,
for the API, the page and `trueup plan --files`.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
import trio

from agent.wire.forecast import KEEP, Item
from reconciler.control.records import Record
from reconciler.desired_model import DesiredSync
from reconciler.errors import TrueupError
from reconciler.exit_codes import ExitCode
from reconciler.fleet import Fleet
from reconciler.identity import project_id
from reconciler.observation import Setback
from reconciler.prepared import Prepared
from reconciler.primary import Primary
from reconciler.returned import rolled_back_to
from reconciler.status.conditions import Reason, bounded
from reconciler.sync.itemising import Itemising
from reconciler.sync.serving import TreeSource
from reconciler.sync.sources import ProjectSources

MAX_PARALLEL_LOOKS: Final = 16

MAX_LINES: Final = 20_000
"""Items in one document, over all targets."""

MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters of their paths."""

State = Literal["equal", "changes", "stopped", "left", "unknown"]


class ItemView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What would be done at one path. `saved`: what is there is a local edit and gets another name first."""

    deed: str
    path: str
    kind: str
    size: int
    requested_bytes: int
    reused_bytes: int
    saved: bool


class GuardView(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    message: str


class TargetFiles(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One target. `equal`: there is nothing to do, whatever local edits stay. `stopped`: a guard would refuse
    the sync. `left`: nothing is done there, and that is meant. `unknown`: nobody could look, for the reason
    given."""

    id: str
    node: str
    target_path: str
    revision: str = ""
    state: State
    reason: str = ""
    message: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """How many of each deed, unlisted ones too."""
    items: tuple[ItemView, ...] = ()
    unlisted: int = 0
    files_written: int = 0
    files_deleted: int = 0
    requested_bytes: int = 0
    """That would travel at most: blocks that only moved or differ little are found in the sync alone."""
    reused_bytes: int = 0
    foreign: int = 0
    foreign_deleted: int = 0
    """Of what would be deleted: what trueup never placed."""
    ignored: int = 0
    local_edits: int = 0
    guards: tuple[GuardView, ...] = ()
    after: tuple[str, ...] = ()
    """Commands that would run there."""
    warnings: tuple[str, ...] = ()
    """What of the source is not sent."""


class ProjectFiles(msgspec.Struct, frozen=True, kw_only=True):
    """As `trueup plan --files PROJECT -o json` prints it."""

    version: int = 1
    project: str
    targets: tuple[TargetFiles, ...]
    problems: tuple[str, ...] = ()


def exit_code(files: ProjectFiles, *, detailed: bool) -> ExitCode:
    """As of a plan: 3 for a spec with errors, 1 for what is unknown or would be refused, 2 for changes."""
    states = {target.state for target in files.targets}
    if files.problems:
        return ExitCode.SPEC_INVALID
    if states & {"unknown", "stopped"}:
        return ExitCode.FAILED
    return ExitCode.CHANGES_PENDING if detailed and "changes" in states else ExitCode.DONE


def targets_of(prepared: Prepared, name: str, scope: str = "") -> list[DesiredSync]:
    """Of the project of that name, in all its environments or in the one that `scope` is (or `branch`)."""
    syncs = prepared.desired.syncs().values()
    return [each for each in syncs if each.project.id == name and scope in ("", each.project.scope)]


async def forecast_files(
    primary: Primary, prepared: Prepared, syncs: Sequence[DesiredSync], fleet: Fleet | None
) -> ProjectFiles:
    """Ask the agents of `syncs`, targets of one project. `fleet`: of whoever they are connected to."""
    found: dict[str, TargetFiles] = {}
    to_ask = [each for each in syncs if each.setback is None and each.returned is None]
    connected = set[str]()
    if fleet is not None:
        connected = await fleet.wait_connected({each.target.node for each in to_ask})
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)
    spec = prepared.spec.spec
    sources = ProjectSources(
        spec, primary.repositories, primary.checkouts, primary.run_context, prepared.directories
    )
    async with sources:
        trees = _Trees(sources)

        async def ask(sync: DesiredSync) -> None:
            async with limiter:
                found[sync.id] = await _ask(sync, trees, fleet, connected)

        async with trio.open_nursery() as nursery:
            for each in to_ask:
                nursery.start_soon(ask, each)
    for each in syncs:
        if each.setback is not None:
            found[each.id] = _set_back(each, each.setback)
        elif each.returned is not None:
            found[each.id] = _rolled_back(each, each.returned)
    return ProjectFiles(
        project=syncs[0].project.id,
        targets=tuple(_bounded(found[id] for id in sorted(found))),
        problems=tuple(map(str, prepared.spec.problems)),
    )


class _Trees:
    """Trees of projects, each built once."""

    def __init__(self, sources: ProjectSources) -> None:
        self._sources = sources
        self._lock = trio.Lock()
        self._built: dict[tuple[str, str], TrueupError | None] = {}

    async def tree(self, sync: DesiredSync) -> TreeSource:
        """Raises what the build ended with, and what a tree cannot be made for."""
        if sync.project.build is not None:
            await self._build(sync)
        return await self._sources.tree(sync)

    async def _build(self, sync: DesiredSync) -> None:
        assert sync.revision is not None  # it has no setback
        key = project_id(sync.project), sync.revision.commit
        async with self._lock:
            if key not in self._built:
                try:
                    await self._sources.build(sync)
                    self._built[key] = None
                except TrueupError as error:
                    self._built[key] = error
        if (failed := self._built[key]) is not None:
            raise failed


async def _ask(sync: DesiredSync, trees: _Trees, fleet: Fleet | None, connected: set[str]) -> TargetFiles:
    node = sync.target.node
    if fleet is None:
        message = "no primary is running that its agent could be connected to"
        return _unknown(sync, Reason.AGENT_UNREACHABLE, message)
    if node not in connected:
        away = fleet.why_not_connected(node)
        return _unknown(sync, away.reason, away.message)
    try:
        source = await trees.tree(sync)
        told = await fleet.itemise(sync, source)
    except TrueupError as error:
        return _unknown(sync, error.reason, str(error))
    return _told(sync, told, source.warnings)


def _unknown(sync: DesiredSync, reason: str, message: str, *, state: State = "unknown") -> TargetFiles:
    return TargetFiles(
        id=sync.id,
        node=sync.target.node,
        target_path=sync.target.target_path,
        revision=str(sync.revision or ""),
        state=state,
        reason=reason,
        message=bounded(message),
    )


def _set_back(sync: DesiredSync, setback: Setback) -> TargetFiles:
    is_fault = setback.unknown or setback.blocks
    return _unknown(sync, setback.reason, setback.message, state="unknown" if is_fault else "left")


def _rolled_back(sync: DesiredSync, record: Record) -> TargetFiles:
    """The host keeps that release, whose tree nobody else need have any more: nothing of it is sent."""
    message = f"{rolled_back_to(record)}; nothing is sent there until that is lifted"
    return _unknown(sync, Reason.ROLLED_BACK, message, state="left")


def _told(sync: DesiredSync, told: Itemising, warnings: Sequence[str]) -> TargetFiles:
    sums = told.sums
    assert sums is not None  # or `Fleet.itemise` would have raised
    has_work = sums.counts.keys() - {KEEP} or sums.after
    state: State = "stopped" if sums.guards else "changes" if has_work else "equal"
    return msgspec.structs.replace(
        _unknown(sync, "", "", state=state),
        counts={deed: sums.counts[deed] for deed in sorted(sums.counts)},
        items=tuple(map(_item, told.items)),
        unlisted=sums.unlisted,
        files_written=sums.files_written,
        files_deleted=sums.files_deleted,
        requested_bytes=sums.bytes_requested,
        reused_bytes=sums.bytes_reused,
        foreign=sums.foreign,
        foreign_deleted=sums.foreign_deleted,
        ignored=sums.ignored,
        local_edits=sums.local_edits,
        guards=tuple(
            GuardView(reason=bounded(each.reason), message=bounded(each.message)) for each in sums.guards
        ),
        after=tuple(map(bounded, sums.after)),
        warnings=tuple(map(bounded, warnings[:_MAX_WARNINGS])),
    )


_MAX_WARNINGS: Final = 50


def _item(item: Item) -> ItemView:
    return ItemView(
        deed=item.deed,
        path=item.path,
        kind=item.kind,
        size=item.size,
        requested_bytes=item.requested,
        reused_bytes=item.reused,
        saved=item.saved,
    )


def _bounded(targets: Iterable[TargetFiles]) -> Iterable[TargetFiles]:
    """With as many items, in order, as one document may have."""
    lines, text = MAX_LINES, MAX_TEXT
    for target in targets:
        fit = 0
        for item in target.items:
            lines, text = lines - 1, text - len(item.path)
            if lines < 0 or text < 0:
                break
            fit += 1
        if fit < len(target.items):
            left_out = len(target.items) - fit
            target = msgspec.structs.replace(
                target, items=target.items[:fit], unlisted=target.unlisted + left_out
            )
        yield target
