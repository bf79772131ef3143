"""The nodes: pairing, who is connected now, what was synced there last, and what drifted."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import trio

from reconciler.enrolling import LONGEST_LOOK, Basis, basis
from reconciler.errors import TrueupError
from reconciler.node_health import Health, drift_of, health_of
from reconciler.runner import Runner
from reconciler.spec.model import Node
from reconciler.status.documents import NodeStatus, SyncStatus
from reconciler.web.apis.known import (
    ConditionView,
    Limit,
    NotFound,
    Page,
    Paged,
    Readiness,
    conditions_of,
    known,
    page_of,
    readiness_of,
)
from reconciler.web.apis.services import Change, changes_of
from reconciler.web.endpoints import AnyEndpoint, Call, Endpoint, Model, Nothing, Role


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that is connected."""

    protocol: int
    version: str
    address: str


class Pairing(Model, frozen=True):
    """`pinned`: the agent knew the primary before it paired."""

    paired: bool
    fingerprint: str
    paired_at: datetime | None
    pinned: bool


class LastSync(Model, frozen=True):
    """The newest outcome of a target there that differed from the one before."""

    target: str
    change: Change


class Drift(Model, frozen=True):
    """A target that is not as trueup left it."""

    target: str
    message: str


class NodeView(Model, frozen=True):
    name: str
    title: str
    labels: dict[str, str]
    health: Health
    """`degraded`: it is connected, and a target there failed or has drifted; what waits is in order."""
    ready: Readiness
    conditions: tuple[ConditionView, ...]
    pairing: Pairing
    connected: bool
    """Now."""
    protocol: int | None
    agent_version: str
    """Of the agent that is connected, or was when it was last recorded."""
    address: str
    """Where it comes from; empty while it is away."""
    targets: int
    last_sync: LastSync | None
    drift: tuple[Drift, ...]
    suspended: bool


class Nodes(Page, frozen=True):
    nodes: tuple[NodeView, ...]


class NodesQuery(Paged, frozen=True, kw_only=True):
    limit: Limit = 100


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def listed(call: Call[NodesQuery, Nothing]) -> Nodes:
        seen = await seen_now(runner)
        names, following = page_of(sorted(seen.spec.nodes), call.query)
        views = tuple(node_view(seen, seen.spec.nodes[name], agent_of(runner, name)) for name in names)
        return Nodes(nodes=views, next=following)

    async def one(call: Call[Nothing, Nothing]) -> NodeView:
        seen, name = await seen_now(runner), call.path["name"]
        if name not in seen.spec.nodes:
            raise NotFound(f"Node {name}")
        return node_view(seen, seen.spec.nodes[name], agent_of(runner, name))

    return [
        Endpoint(
            method="GET",
            path="/api/sync/nodes",
            summary="The nodes: pairing, connection, last sync, drift",
            tag="nodes",
            handler=listed,
            role=Role.READ,
            query=NodesQuery,
            answer=Nodes,
        ),
        Endpoint(
            method="GET",
            path="/api/sync/nodes/{name}",
            summary="One node",
            tag="nodes",
            handler=one,
            role=Role.READ,
            answer=NodeView,
        ),
    ]


async def seen_now(runner: Runner) -> Basis:
    """By what it is judged now who may connect: a token that was rotated or taken back shows at once.

    Where git cannot be read, or not soon, what the last pass found. Raises NoPassYet.
    """
    last = known(runner)
    with suppress(TrueupError), trio.move_on_after(LONGEST_LOOK):
        return await basis(runner.primary)
    return Basis(last.spec, last.recorded, last.control)


def agent_of(runner: Runner, node: str) -> Agent | None:
    hub = runner.primary.hub
    peer = hub.peer(node) if hub is not None else None
    return None if peer is None else Agent(peer.protocol, peer.agent_version, peer.address)


def node_view(seen: Basis, node: Node, agent: Agent | None) -> NodeView:
    status = seen.recorded.nodes.get(f"nodes/{node.id}") or NodeStatus(id=f"nodes/{node.id}")
    syncs = [each for each in seen.recorded.syncs.values() if each.node == node.id]
    revoked = seen.control.revocation_of(node.id, node.token_key)
    return NodeView(
        name=node.id,
        title=node.name,
        labels=node.labels,
        health=health_of(status, syncs, connected=agent is not None, revoked=revoked),
        ready=readiness_of(status.conditions),
        conditions=conditions_of(status.conditions),
        pairing=Pairing(
            paired=bool(status.certificate),
            fingerprint=status.fingerprint,
            paired_at=status.paired_at,
            pinned=bool(status.certificate) and not status.trust_on_first_use,
        ),
        connected=agent is not None,
        protocol=agent.protocol if agent is not None else None,
        agent_version=agent.version if agent is not None else status.agent_version,
        address=agent.address if agent is not None else "",
        targets=len(syncs),
        last_sync=_last_sync(syncs),
        drift=tuple(_drift(syncs)),
        suspended=seen.control.suspension_of(f"nodes/{node.id}") is not None,
    )


def _last_sync(syncs: Iterable[SyncStatus]) -> LastSync | None:
    changes = [(each.history[0].at, each) for each in syncs if each.history]
    if not changes:
        return None
    _, newest = max(changes, key=lambda each: each[0])
    return LastSync(target=newest.id, change=changes_of(newest.history)[0])


def _drift(syncs: Iterable[SyncStatus]) -> Iterable[Drift]:
    for sync in syncs:
        if (condition := drift_of(sync.conditions)) is not None:
            yield Drift(target=sync.id, message=condition.message)
