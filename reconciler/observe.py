"""Looking at what is there: what was recorded, and what the agents find on their hosts. Decides nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from agent.wire.messages import TaskReport
from reconciler.desired import Desired, DesiredResource
from reconciler.errors import TrueupError
from reconciler.hashing import Inputs
from reconciler.observation import Absent, Observation, Present, Unknown
from reconciler.status.conditions import Reason
from reconciler.status.documents import Recorded, ServiceStatus, SyncStatus

MAX_PARALLEL_LOOKS = 16


class Agents(Protocol):
    """The agents as far as looking is concerned."""

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        """Waits until all of these nodes are connected, or until waiting makes no sense any more."""
        ...

    def why_not_connected(self, node: str) -> Unknown: ...

    async def look(self, resource: DesiredResource, tree: bytes) -> TaskReport:
        """What is at a target; raises a `TrueupError` if that could not be found out."""
        ...


@dataclass(frozen=True, slots=True)
class Observed:
    """What was found of each resource, and which nodes could be asked."""

    resources: Mapping[str, Observation]
    connected: frozenset[str] = frozenset()


def recorded_observation(status: ServiceStatus | SyncStatus | None) -> Observation:
    """What a status file says. Absent means: never brought about."""
    if status is None or not status.config_hash:
        return Absent()
    return Present(status.config_hash, Inputs(status.inputs.public, status.inputs.keyed))


async def observe(desired: Desired, recorded: Recorded, agents: Agents | None) -> Observed:
    """Services by their record (their driver has nothing to look at), targets by asking their agents.

    Without `agents`, as for a plan made on a laptop, targets too are taken as recorded.
    """
    found: dict[str, Observation] = {}
    to_ask: list[DesiredResource] = []
    for resource in desired.resources:
        if resource.target is None:
            found[resource.id] = recorded_observation(recorded.services.get(resource.id))
        else:
            found[resource.id] = recorded_observation(recorded.syncs.get(resource.id))
            if resource.setback is None:
                to_ask.append(resource)
    if agents is None:
        return Observed(found)
    connected = await agents.wait_connected({r.target.node for r in to_ask if r.target is not None})
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)

    async def ask(resource: DesiredResource) -> None:
        assert resource.target is not None
        async with limiter:
            found[resource.id] = await _ask(
                agents, resource, found[resource.id], recorded.syncs.get(resource.id), connected
            )

    async with trio.open_nursery() as nursery:
        for resource in to_ask:
            nursery.start_soon(ask, resource)
    return Observed(found, frozenset(connected))


async def _ask(
    agents: Agents,
    resource: DesiredResource,
    known: Observation,
    status: SyncStatus | None,
    connected: set[str],
) -> Observation:
    assert resource.target is not None
    if resource.target.node not in connected:
        return agents.why_not_connected(resource.target.node)
    if not isinstance(known, Present) or status is None:
        return known  # nothing was placed there yet; the sync itself will look
    try:
        report = await agents.look(resource, bytes.fromhex(status.tree_digest))
    except TrueupError as error:
        return Unknown(error.reason, str(error))
    if report.state == "FAILED":
        return Unknown(report.reason or Reason.OBSERVATION_FAILED, report.message)
    return replace(known, drift=_drift(report, status, rendered_comparable=not _serves_other(resource, known)))


def _serves_other(resource: DesiredResource, known: Present) -> bool:
    """Whether a stale or fallback value differs from what was placed: it must not look like drift."""
    return any(
        known.inputs.keyed.get(name) != resource.inputs.keyed.get(name) for name in resource.soft_inputs
    )


def _drift(report: TaskReport, status: SyncStatus, *, rendered_comparable: bool) -> str:
    differs: list[str] = []
    if report.observed.hex() != status.tree_digest:
        differs.append("files differ from what was placed")
    if rendered_comparable and not report.rendered_equal:
        differs.append("a rendered file differs or is missing")
    if not report.after_done:
        differs.append("the commands after the last sync did not finish")
    return ", ".join(differs)
