"""Looking at what is there: what was recorded, and what the agents find on their hosts. Decides nothing."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from agent.wire.messages import TaskReport
from reconciler.desired_model import Desired, DesiredService, DesiredSync, DesiredTarget
from reconciler.desired_sync import content_input
from reconciler.errors import TrueupError
from reconciler.export_work import seen_at
from reconciler.github.export_work import Found
from reconciler.github.scopes import SecretMeta
from reconciler.hashing import Inputs
from reconciler.observation import Absent, Observation, Present, Unknown
from reconciler.spec.model import SecretTarget
from reconciler.status.conditions import ConditionType, Reason, find_condition
from reconciler.status.documents import Applied, Recorded, ServiceStatus, SyncStatus, TargetStatus
from reconciler.target_work import drift_at, held_and_foreign

MAX_PARALLEL_LOOKS = 16

LookAtService = Callable[[DesiredService, ServiceStatus | None], Awaitable[Observation | None]]
"""What its driver finds of a service; None: it is as recorded, as far as can be seen."""


async def as_recorded(_desired: DesiredService, _status: ServiceStatus | None) -> Observation | None:
    """For whoever asks no driver."""
    return None


class SecretTargets(Protocol):
    """The systems that secrets are written to, as far as looking is concerned."""

    async def look(self, target: SecretTarget) -> Mapping[str, SecretMeta]:
        """The names that are there; raises a `TrueupError` if that could not be found out."""
        ...


class SecretExports(Protocol):
    """The same for targets whose secrets another system has to export."""

    async def look(self, desired: DesiredTarget) -> Found:
        """What is at both ends; raises a `TrueupError` if that could not be found out."""
        ...


class Agents(Protocol):
    """The agents as far as looking is concerned."""

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        """Waits until all of these nodes are connected, or until waiting makes no sense any more."""
        ...

    def why_not_connected(self, node: str) -> Unknown: ...

    async def look(self, sync: DesiredSync, tree: bytes, owners: bytes = b"") -> TaskReport:
        """What is at a target, where that tree was placed, with owners of that digest unless it is empty;
        raises a `TrueupError` if that could not be found out."""
        ...


@dataclass(frozen=True, slots=True)
class Observed:
    """What was found of each resource, and which nodes could be asked."""

    resources: Mapping[str, Observation]
    asked: frozenset[str] = frozenset()
    connected: frozenset[str] = frozenset()
    edits_kept: Mapping[str, int] = field(default_factory=dict)
    """By sync target that was looked at: how many local edits are there and stay by policy."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What was left at a sync target: a tree, and the digest of its owners; empty where they do not count."""

    tree: bytes
    owners: bytes


def recorded_observation(status: Applied | None, *, interrupted: bool) -> Observation:
    """What a status file says. Absent means: never brought about, or nobody knows how far."""
    if status is None:
        return Absent()
    if interrupted:
        # It may be anywhere between what is recorded and what was wanted when the primary was killed.
        return Absent("a step was interrupted")
    if not status.config_hash:
        ready = find_condition(status.conditions, ConditionType.READY)
        if ready is not None and ready.status == "True":
            return Absent("it was not deployed since its project was synced")
        return Absent("the last attempt failed" if status.last_attempted_revision else "not applied yet")
    return Present(status.config_hash, Inputs(status.inputs.public, status.inputs.keyed))


async def observe(
    desired: Desired,
    recorded: Recorded,
    agents: Agents | None,
    *,
    secret_targets: SecretTargets,
    secret_exports: SecretExports,
    interrupted: Collection[str] = (),
    under_way: Collection[str] = (),
    look_at_service: LookAtService = as_recorded,
) -> Observed:
    """Services by their record and what their driver sees, sync targets by asking their agents.

    `interrupted` names resources whose step was begun and never ended, and `under_way` those whose step runs
    at this moment: there is nothing to see of them. Without `agents`, as for a plan
    made on a laptop, sync targets too are taken as recorded. Secret targets are asked always.
    """
    found: dict[str, Observation] = {}
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)

    async def ask_target(secrets: DesiredTarget) -> None:
        async with limiter:
            status = recorded.targets.get(secrets.id)
            await _ask_target(secret_targets, secret_exports, secrets, status, found)

    async def ask_driver(service: DesiredService, status: ServiceStatus | None) -> None:
        async with limiter:
            if (seen := await look_at_service(service, status)) is not None:
                found[service.id] = seen

    async with trio.open_nursery() as nursery:
        for name, secrets in desired.targets().items():
            found[name] = recorded_observation(recorded.targets.get(name), interrupted=name in interrupted)
            if secrets.setback is None and name not in under_way:
                nursery.start_soon(ask_target, secrets)
        for name, service in desired.services().items():
            status = recorded.services.get(name)
            found[name] = recorded_observation(status, interrupted=name in interrupted)
            # After a failure or an interruption nobody's look counts: it is done again.
            asks = service.setback is None and name not in under_way
            if asks and (status is None or isinstance(found[name], Present)):
                nursery.start_soon(ask_driver, service, status)
        # Neither waits for the other.
        return await _observe_syncs(desired, recorded, agents, found, interrupted, under_way)


async def _observe_syncs(
    desired: Desired,
    recorded: Recorded,
    agents: Agents | None,
    found: dict[str, Observation],
    interrupted: Collection[str],
    under_way: Collection[str],
) -> Observed:
    """Sync targets, into `found`."""
    for target in desired.syncs():
        found[target] = recorded_observation(recorded.syncs.get(target), interrupted=target in interrupted)
    if agents is None:
        return Observed(found)
    to_ask = [each for each in desired.syncs().values() if each.setback is None and each.id not in under_way]
    asked = {sync.target.node for sync in to_ask}
    connected = await agents.wait_connected(asked)
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)
    edits: dict[str, int] = {}

    async def ask(sync: DesiredSync) -> None:
        status = recorded.syncs.get(sync.id)
        async with limiter:
            found[sync.id] = await _ask(agents, sync, found[sync.id], status, connected, edits)

    async with trio.open_nursery() as nursery:
        for sync in to_ask:
            nursery.start_soon(ask, sync)
    return Observed(found, frozenset(asked), frozenset(connected), edits)


async def _ask_target(
    targets: SecretTargets,
    exports: SecretExports,
    desired: DesiredTarget,
    status: TargetStatus | None,
    found: dict[str, Observation],
) -> None:
    """What stands at a secret target, also where nothing is recorded yet: a place that is not there shows."""
    known = found[desired.id]
    try:
        if desired.origin is not None:
            found[desired.id] = seen_at(desired, status, await exports.look(desired), known)
            return
        there = await targets.look(desired.target)
    except TrueupError as error:
        found[desired.id] = Unknown(error.reason, str(error))
        return
    taken = sorted(desired.inputs.keyed.keys() & there.keys())
    if status is None and isinstance(known, Absent) and taken:
        found[desired.id] = Absent(f"{known.why}; overwrites {', '.join(taken)}, which somebody else wrote")
    if isinstance(known, Present) and status is not None:
        if held := held_and_foreign(desired, status, there):
            names = ", ".join(held)
            message = f"{names} is not as it was written, and only an old value or a fallback serves"
            found[desired.id] = Unknown(Reason.STALE_SECRETS, message)
        else:
            found[desired.id] = replace(known, drift=drift_at(desired, status, there))


async def _ask(
    agents: Agents,
    sync: DesiredSync,
    known: Observation,
    status: SyncStatus | None,
    connected: set[str],
    edits: dict[str, int],
) -> Observation:
    if sync.target.node not in connected:
        return agents.why_not_connected(sync.target.node)
    placed = placed_at(sync, known, status)
    if not isinstance(placed, Placed):
        return placed
    assert isinstance(known, Present)
    assert status is not None
    try:
        report = await agents.look(sync, placed.tree, placed.owners)
    except TrueupError as error:
        return Unknown(error.reason, str(error))
    edits[sync.id] = max(0, report.local_edits) if sync.keeps_edits else 0
    return replace(known, drift=_drift(report, status, rendered_comparable=not _serves_other(sync, known)))


def placed_at(sync: DesiredSync, known: Observation, status: SyncStatus | None) -> Placed | Observation:
    """What its agent is to compare a target with, or what is known of it where there is nothing to ask."""
    if not isinstance(known, Present) or status is None:
        return known  # nothing was placed there yet; the sync itself will look
    try:
        tree = bytes.fromhex(status.tree_digest)
    except ValueError:
        return Absent("its record does not say what was placed")
    return Placed(tree, _placed_owners(sync, known))


def _placed_owners(sync: DesiredSync, known: Present) -> bytes:
    """Whose the entries are to be: known where what was placed is what the directory holds now.

    So an agent that knew nothing of owners when it placed them is found to lack them once it does.
    """
    content = content_input(sync.project)
    same = known.inputs.public.get(content) == sync.inputs.public.get(content)
    return sync.owners if same else b""


def _serves_other(sync: DesiredSync, known: Present) -> bool:
    """Whether stale or fallback values differ from what was placed: that must not look like drift."""
    served = sync.inputs.keyed
    gone = sync.degraded and not known.inputs.keyed.keys() <= served.keys()
    return gone or any(known.inputs.keyed.get(name) != served.get(name) for name in sync.soft_inputs)


def _drift(report: TaskReport, status: SyncStatus, *, rendered_comparable: bool) -> str:
    differs: list[str] = []
    if report.observed.hex() != status.tree_digest:
        differs.append("files differ from what was placed")
    if not report.owners_equal:
        differs.append("owners differ from what was placed")
    if rendered_comparable and not report.rendered_equal:
        differs.append("a rendered file differs or is missing")
    if not report.after_done:
        differs.append("the commands after the last sync did not finish")
    return ", ".join(differs)
