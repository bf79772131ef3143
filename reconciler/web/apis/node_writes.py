"""The API that changes nodes: each change is a commit or a record of the caller, and acts at once."""

from typing import Annotated

import msgspec

from reconciler.actor import person
from reconciler.control.records import describe
from reconciler.node_work import NewToken, NodeWork
from reconciler.primary import Primary
from reconciler.runner import Runner
from reconciler.spec_edit import NodeFields
from reconciler.sync.hub import AgentTooOld, AgentUnreachable
from reconciler.sync.renewals import DEADLINE as RENEWAL_DEADLINE
from reconciler.sync.renewals import RenewalRefused
from reconciler.web.apis.node_test import Tested, test_node, why_away
from reconciler.web.apis.writing import (
    DECISION_REFUSALS,
    REFUSALS,
    TIME,
    Because,
    Writing,
    Wrote,
    how,
    judged,
    wrote,
)
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Done, Endpoint, Model, Nothing, Role
from reconciler.web.refusals import RequestRefused

Text = Annotated[str, msgspec.Meta(max_length=255)]
Labels = Annotated[dict[Text, Text], msgspec.Meta(max_length=100)]
Addresses = Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)]


class NewNode(Asked, frozen=True):
    node: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    """Its name in the spec."""
    name: Text = ""
    """For people."""
    labels: Labels = msgspec.field(default_factory=dict)
    fingerprint: Text = ""
    """Pins the agent's key."""
    primaries: Addresses = ()
    """HOST:PORT at which agents reach this primary, for the join command."""


class NodeChange(Asked, frozen=True):
    """What is not given stays; an empty text or map takes it away."""

    name: Text | None = None
    labels: Labels | None = None
    fingerprint: Text | None = None


class Reached(Asked, frozen=True):
    primaries: Addresses = ()
    """HOST:PORT at which agents reach this primary, for the join command."""


class WroteToken(Wrote, frozen=True):
    join: str | None
    """The command for the host, with the token's private half: it is told only here."""


class Revoked(Model, frozen=True):
    success: bool
    message: str
    commit: str
    decision: int
    """The number of the record."""


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    api = _Nodes(NodeWork(runner), runner.primary)

    async def test(call: Call[Nothing, Nothing]) -> Tested:
        return await test_node(runner.primary, call.path["name"])

    def writes(method: str, path: str, summary: str, handler: object, **more: object) -> Endpoint:
        fields = {"answer": Wrote, "query": Writing, "refusals": REFUSALS, **more}
        return Endpoint(
            method=method,
            path=path,
            summary=summary,
            tag="nodes",
            handler=judged(handler),  # type: ignore[arg-type]
            role=Role.OPERATE,
            deadline=TIME,
            **fields,  # type: ignore[arg-type]
        )

    return [
        writes(
            "POST",
            "/api/sync/nodes",
            "Add a node, and get the command with which its host joins",
            api.create,
            body=NewNode,
            answer=WroteToken,
            status=201,
        ),
        writes("PUT", "/api/sync/nodes/{name}", "Change a node", api.change, body=NodeChange),
        writes("DELETE", "/api/sync/nodes/{name}", "Take a node out of the spec", api.remove),
        writes(
            "POST",
            "/api/sync/nodes/{name}/rotate-token",
            "Give a node another token; its agent has to join again",
            api.rotate,
            body=Reached,
            answer=WroteToken,
        ),
        Endpoint(
            method="POST",
            path="/api/sync/nodes/{name}/rotate-certificate",
            summary="Have a node's agent take another key and certificate; nothing is cut off",
            tag="nodes",
            handler=api.renew,
            role=Role.OPERATE,
            answer=Done,
            refusals={
                404: "There is no such node.",
                409: "Its agent is not connected, or knows of no such thing.",
            },
            deadline=2 * RENEWAL_DEADLINE,
        ),
        writes(
            "POST",
            "/api/sync/nodes/{name}/repair",
            "Forget the certificate that a node paired with, so that its host can join again",
            api.repair,
            query=Nothing,
            answer=Done,
        ),
        writes(
            "POST",
            "/api/sync/nodes/{name}/revoke",
            "Take a node's token back: its agent is disconnected, whatever the spec says",
            api.revoke,
            query=Nothing,
            body=Because,
            answer=Revoked,
            refusals=DECISION_REFUSALS,
        ),
        Endpoint(
            method="POST",
            path="/api/sync/nodes/{name}/test",
            summary="Whether a node's agent is connected, and how long a message to it and back takes",
            tag="nodes",
            handler=test,
            role=Role.OPERATE,
            answer=Tested,
        ),
    ]


class _Nodes:
    def __init__(self, work: NodeWork, primary: Primary) -> None:
        self._work = work
        self._primary = primary

    async def create(self, call: Call[Writing, NewNode]) -> WroteToken:
        body = call.body
        fields = NodeFields(labels=body.labels, display=body.name, pin=body.fingerprint)
        made = await self._work.create(body.node, fields, body.primaries, how(call.caller, call.query))
        return _with_join(made, f"node {body.node} was added")

    async def change(self, call: Call[Writing, NodeChange]) -> Wrote:
        body, name = call.body, call.path["name"]
        fields = NodeFields(labels=body.labels, display=body.name, pin=body.fingerprint)
        written = await self._work.change(name, fields, how(call.caller, call.query))
        return Wrote(**wrote(written, f"node {name} was changed"))

    async def remove(self, call: Call[Writing, Nothing]) -> Wrote:
        name = call.path["name"]
        written = await self._work.remove(name, how(call.caller, call.query))
        return Wrote(**wrote(written, f"node {name} was removed"))

    async def rotate(self, call: Call[Writing, Reached]) -> WroteToken:
        name = call.path["name"]
        made = await self._work.rotate(name, call.body.primaries, how(call.caller, call.query))
        return _with_join(made, f"node {name} has another token")

    async def renew(self, call: Call[Nothing, Nothing]) -> Done:
        name = call.path["name"]
        hub = self._primary.hub
        if hub is None or hub.peer(name) is None:
            raise RequestRefused(409, await why_away(self._primary, name))
        try:
            used = await self._work.renew(name)
        except (AgentUnreachable, AgentTooOld, RenewalRefused) as error:
            raise RequestRefused(409, str(error)) from None
        how_far = (
            "uses another certificate" if used else "takes another certificate once its tasks have ended"
        )
        return Done(success=True, message=f"the agent of {name} {how_far}")

    async def repair(self, call: Call[Nothing, Nothing]) -> Done:
        return Done(success=True, message=await self._work.repair(call.path["name"]))

    async def revoke(self, call: Call[Nothing, Because]) -> Revoked:
        name = call.path["name"]
        appended = await self._work.revoke(name, call.body.reason, person(call.caller.name))
        [record] = appended.records
        return Revoked(
            success=True,
            message=f"recorded {record.number}: {describe(record)}",
            commit=appended.commit,
            decision=record.number,
        )


def _with_join(made: NewToken, message: str) -> WroteToken:
    return WroteToken(**wrote(made.written, message), join=made.join or None)
