"""The test of the connection to a node: what stands between the primary and its agent, in clear words."""

import trio

from reconciler.control.state import fold
from reconciler.enrolling import newest_spec
from reconciler.pairing import certificate_der
from reconciler.primary import Primary
from reconciler.sync.hub import AgentUnreachable
from reconciler.web.endpoints import Model
from reconciler.web.refusals import RequestRefused


class Tested(Model, frozen=True):
    """`success`: the agent has answered. All else is null where it is not connected."""

    success: bool
    message: str
    connected: bool
    round_trip_ms: float | None = None
    agent_version: str | None = None
    """What the agent says of itself."""
    protocol: int | None = None
    address: str | None = None
    """Where it connects from."""
    connected_for_seconds: float | None = None


async def test_node(primary: Primary, node: str) -> Tested:
    """Raises RequestRefused for a node that nothing knows."""
    hub = primary.hub
    if hub is None or (peer := hub.peer(node)) is None:
        return Tested(success=False, message=await why_away(primary, node), connected=False)
    try:
        took = await hub.ping(node)
    except AgentUnreachable as error:
        return Tested(success=False, message=str(error), connected=hub.peer(node) is not None)
    return Tested(
        success=True,
        message=f"the agent of {node} answered in {took * 1000:.1f} ms",
        connected=True,
        round_trip_ms=round(took * 1000, 3),
        agent_version=peer.agent_version,
        protocol=peer.protocol,
        address=peer.address,
        connected_for_seconds=round(trio.current_time() - peer.since, 3),
    )


async def why_away(primary: Primary, node: str) -> str:
    """Of a node that is not connected. Raises RequestRefused for one that nothing knows."""
    nodes = (await newest_spec(primary, await primary.status.read())).nodes
    if node not in nodes:
        raise RequestRefused(404, f"the spec has no node {node!r}")
    if primary.hub is None:
        return "no pass has made the agents' listener yet; try again in a moment, or look at the log"
    status = (await primary.status.read()).nodes.get(f"nodes/{node}")
    control = fold(await primary.operators.read())
    if control.revocation_of(node, nodes[node].token_key) is not None:
        return f"{node} is revoked, so its agent may not connect; `trueup node rotate-token {node}` ends that"
    if status is None or certificate_der(status) is None:
        return f"{node} has never paired; run its `trueup-agent join …` on the host"
    return f"{node} is paired and not connected; is `trueup-agent run` running there, and can it reach us?"
