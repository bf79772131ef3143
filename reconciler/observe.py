"""Looking at what is there: what was recorded, and what the agents find on their hosts. Decides nothing."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from agent.wire.messages import TaskReport
from reconciler.desired import Desired, DesiredSync
from reconciler.errors import TrueupError
from reconciler.hashing import Inputs
from reconciler.observation import Absent, Observation, Present, Unknown
from reconciler.status.documents import Recorded, ServiceStatus, SyncStatus

MAX_PARALLEL_LOOKS = 16


class Agents(Protocol):
    """The agents as far as looking is concerned."""

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        """Waits until all of these nodes are connected, or until waiting makes no sense any more."""
        ...

    def why_not_connected(self, node: str) -> Unknown: ...

    async def look(self, sync: DesiredSync, tree: bytes) -> TaskReport:
        """What is at a target; raises a `TrueupError` if that could not be found out."""
        ...


@dataclass(frozen=True, slots=True)
class Observed:
    """What was found of each resource, and which nodes could be asked."""

    resources: Mapping[str, Observation]
    asked: frozenset[str] = frozenset()
    connected: frozenset[str] = frozenset()


def recorded_observation(status: ServiceStatus | SyncStatus | None, *, interrupted: bool) -> Observation:
    """What a status file says. Absent means: never brought about, or nobody knows how far."""
    if status is None:
        return Absent()
    if interrupted:
        # It may be anywhere between what is recorded and what was wanted when the primary was killed.
        return Absent("a step was interrupted")
    if not status.config_hash:
        return Absent("the last attempt failed" if status.last_attempted_revision else "not applied yet")
    return Present(status.config_hash, Inputs(status.inputs.public, status.inputs.keyed))


async def observe(
    desired: Desired, recorded: Recorded, agents: Agents | None, *, interrupted: Collection[str] = ()
) -> Observed:
    """Services by their record (their driver has nothing to look at), targets by asking their agents.

    `interrupted` names resources whose step was begun and never ended. Without `agents`, as for a plan
    made on a laptop, targets too are taken as recorded.
    """
    found: dict[str, Observation] = {}
    for service in desired.services():
        found[service] = recorded_observation(
            recorded.services.get(service), interrupted=service in interrupted
        )
    for target in desired.syncs():
        found[target] = recorded_observation(recorded.syncs.get(target), interrupted=target in interrupted)
    if agents is None:
        return Observed(found)
    to_ask = [sync for sync in desired.syncs().values() if sync.setback is None]
    asked = {sync.target.node for sync in to_ask}
    connected = await agents.wait_connected(asked)
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)

    async def ask(sync: DesiredSync) -> None:
        async with limiter:
            found[sync.id] = await _ask(agents, sync, found[sync.id], recorded.syncs.get(sync.id), connected)

    async with trio.open_nursery() as nursery:
        for sync in to_ask:
            nursery.start_soon(ask, sync)
    return Observed(found, frozenset(asked), frozenset(connected))


async def _ask(
    agents: Agents,
    sync: DesiredSync,
    known: Observation,
    status: SyncStatus | None,
    connected: set[str],
) -> Observation:
    if sync.target.node not in connected:
        return agents.why_not_connected(sync.target.node)
    if not isinstance(known, Present) or status is None:
        return known  # nothing was placed there yet; the sync itself will look
    try:
        tree = bytes.fromhex(status.tree_digest)
    except ValueError:
        return Absent("its record does not say what was placed")
    try:
        report = await agents.look(sync, tree)
    except TrueupError as error:
        return Unknown(error.reason, str(error))
    return replace(known, drift=_drift(report, status, rendered_comparable=not _serves_other(sync, known)))


def _serves_other(sync: DesiredSync, known: Present) -> bool:
    """Whether stale or fallback values differ from what was placed: that must not look like drift."""
    served = sync.inputs.keyed
    gone = sync.degraded and not known.inputs.keyed.keys() <= served.keys()
    return gone or any(known.inputs.keyed.get(name) != served.get(name) for name in sync.soft_inputs)


def _drift(report: TaskReport, status: SyncStatus, *, rendered_comparable: bool) -> str:
    differs: list[str] = []
    if report.observed.hex() != status.tree_digest:
        differs.append("files differ from what was placed")
    if rendered_comparable and not report.rendered_equal:
        differs.append("a rendered file differs or is missing")
    if not report.after_done:
        differs.append("the commands after the last sync did not finish")
    return ", ".join(differs)
