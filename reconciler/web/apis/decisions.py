"""The API with which operators decide: the verbs of the commands, recorded in the caller's name."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec

from reconciler import decisions
from reconciler.actor import person
from reconciler.control import orders
from reconciler.control.records import describe
from reconciler.decisions import Decided, Desk, record
from reconciler.desk import open_desk
from reconciler.hotfix import Begun, hotfix
from reconciler.node_work import take_effect
from reconciler.runner import Runner
from reconciler.settings_values import parse_duration
from reconciler.web.apis.writing import DECISION_REFUSALS, TIME, Because, judged
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role
from reconciler.web.refusals import RequestRefused

Name = Annotated[str, msgspec.Meta(max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=1024)]


class OfUnit(Because, frozen=True):
    unit: Name | None = None
    """One unit; left out: all of the environment."""


class OfTag(OfUnit, frozen=True):
    tag: Name | None = None


class Confirmed(OfTag, frozen=True):
    confirm: Literal["", "deploy"] = ""
    """`deploy`: have it done. Without it, it is refused with what would be done."""


class Promotion(Confirmed, frozen=True):
    source: Name | None = msgspec.field(default=None, name="from")
    """The environment to promote from; left out: the one that the spec names."""
    drop_hotfix: bool = False
    """Also where the commits of a hotfix would be lost."""


class NewRelease(OfTag, frozen=True):
    bump: Literal["", "patch", "minor", "major"] = ""


class Fix(Confirmed, frozen=True):
    fix_branch: Name | None = None


class Return(OfUnit, frozen=True):
    to: Name | None = None
    """An earlier release, by its tag; left out: the last one that ran well."""


class NodeReturn(Because, frozen=True):
    to: Name | None = None
    """A release that the node keeps: its revision, its tag or commit, or its name there; left out: the one
    that was current before."""
    lift: bool = False
    """End that instead: the node follows the project again."""


class Opening(Asked, frozen=True):
    duration: Annotated[str, msgspec.Meta(max_length=20)] = msgspec.field(name="for")
    """How long, such as 2h."""
    reason: Reason


class Numbered(Model, frozen=True):
    number: int
    what: str


class FixBegun(Model, frozen=True):
    """A hotfix's branch, to be filled and then confirmed."""

    branch: str
    commit: str
    created: bool
    refusal: str
    """Why it could not be made by trueup; the commands make it then."""
    commands: tuple[str, ...]


class RecordedDecision(Model, frozen=True):
    """Decisions that stand on the control branch; the next pass acts on them."""

    success: bool
    message: str
    commit: str | None
    decisions: tuple[Numbered, ...]
    told: tuple[str, ...]
    """What comes of it, and what was left out and why."""
    begun: FixBegun | None = None


Decide = Callable[[Desk, Call[Any, Any]], Awaitable[Decided | Begun]]


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    def decides(path: str, summary: str, decide: Decide, body: type[msgspec.Struct]) -> Endpoint:
        async def serve(call: Call[Nothing, Any]) -> RecordedDecision:
            desk = await open_desk(runner.primary, person(call.caller.name))
            made = await decide(desk, call)
            if isinstance(made, Begun):
                return _begun(made)
            told = _told(made)
            if any(each.kind == "resume" for each in made.appended.records):
                await take_effect(runner, told.message)  # it may be a node that was revoked
            else:
                runner.ask(told.message)
            return told

        return Endpoint(
            method="POST",
            path=path,
            summary=summary,
            tag="decisions",
            handler=judged(serve),
            role=Role.OPERATE,
            body=body,
            answer=RecordedDecision,
            status=202,
            refusals=DECISION_REFUSALS,
            deadline=TIME,
        )

    env, resource = "/api/environments/{env}", "/api/resources/{kind}/{name:path}"
    return [
        decides(f"{env}/promote", "Have an environment take what another one runs", _promote, Promotion),
        decides(f"{env}/release", "Make the next release of an environment now", _release, NewRelease),
        decides(f"{env}/hotfix", "Begin a fix of what runs, or have its tip taken", _hotfix, Fix),
        decides(f"{env}/rollback", "Return to an earlier release, and hold it", _rollback, Return),
        decides(f"{env}/approve", "Let a release in that waits for approval", _approve, OfTag),
        decides(f"{env}/hold", "Keep an environment, or a unit there, at its release", _hold, OfUnit),
        decides(f"{env}/unhold", "End a hold", _unhold, OfUnit),
        decides(f"{env}/override", "Open closed windows for a time", _override, Opening),
        decides(
            "/api/sync/nodes/{name}/projects/{project}/rollback",
            "Switch a node back to a release of a project that it keeps, and leave it there",
            _node_rollback,
            NodeReturn,
        ),
        decides("/api/freeze", "Apply nothing at all", _freeze, Because),
        decides("/api/unfreeze", "End a freeze", _unfreeze, Because),
        decides(f"{resource}/suspend", "Leave a resource as it is", _suspend, Because),
        decides(f"{resource}/resume", "Go on with what was suspended", _resume, Because),
    ]


def _begun(made: Begun) -> RecordedDecision:
    target = made.target
    begun = FixBegun(
        branch=target.branch,
        commit=target.release.commit,
        created=made.created,
        refusal=made.refusal,
        commands=made.commands,
    )
    message = made.refusal or f"commit the fix to {target.branch}, and confirm it"
    return RecordedDecision(
        success=not made.refusal, message=message, commit=None, decisions=(), told=(), begun=begun
    )


def _told(made: Decided) -> RecordedDecision:
    records = made.appended.records
    what = tuple(Numbered(number=each.number, what=describe(each)) for each in records)
    message = "; ".join(f"recorded {each.number}: {each.what}" for each in what)
    return RecordedDecision(
        success=True, message=message, commit=made.appended.commit, decisions=what, told=made.told
    )


async def _promote(desk: Desk, call: Call[Nothing, Promotion]) -> Decided:
    body, target = call.body, call.path["env"]
    source = body.source or desk.situation.environment(target).release.promote_from
    if source is None:
        raise RequestRefused(409, f"nothing is promoted to {target}: it takes releases of its own")
    return await decisions.promote(
        desk,
        source,
        target,
        unit=body.unit,
        tag=body.tag,
        drop_hotfix=body.drop_hotfix,
        reason=body.reason,
        confirmed=body.confirm == "deploy",
    )


async def _release(desk: Desk, call: Call[Nothing, NewRelease]) -> Decided:
    body = call.body
    return await decisions.release(
        desk, call.path["env"], unit=body.unit, bump=body.bump, tag=body.tag, reason=body.reason
    )


async def _hotfix(desk: Desk, call: Call[Nothing, Fix]) -> Decided | Begun:
    body = call.body
    return await hotfix(
        desk,
        call.path["env"],
        unit=body.unit,
        fix_branch=body.fix_branch,
        tag=body.tag,
        reason=body.reason,
        confirmed=body.confirm == "deploy",
    )


async def _rollback(desk: Desk, call: Call[Nothing, Return]) -> Decided:
    body = call.body
    return await decisions.rollback(desk, call.path["env"], unit=body.unit, to=body.to, reason=body.reason)


async def _node_rollback(desk: Desk, call: Call[Nothing, NodeReturn]) -> Decided:
    body = call.body
    return await decisions.node_rollback(
        desk, call.path["name"], call.path["project"], to=body.to, lift=body.lift, reason=body.reason
    )


async def _approve(desk: Desk, call: Call[Nothing, OfTag]) -> Decided:
    body = call.body
    return await decisions.approve(desk, call.path["env"], unit=body.unit, tag=body.tag, reason=body.reason)


async def _hold(desk: Desk, call: Call[Nothing, OfUnit]) -> Decided:
    env, body = call.path["env"], call.body
    return await record(desk, lambda at: [orders.hold(at, env, body.unit, body.reason)])


async def _unhold(desk: Desk, call: Call[Nothing, OfUnit]) -> Decided:
    env, body = call.path["env"], call.body
    return await record(desk, lambda at: [orders.unhold(at, env, body.unit, body.reason)])


async def _override(desk: Desk, call: Call[Nothing, Opening]) -> Decided:
    env, body = call.path["env"], call.body
    try:
        seconds = parse_duration(body.duration)
    except ValueError as error:
        raise RequestRefused(422, f"`for`: {body.duration!r} is not accepted; give {error}") from None
    return await record(desk, lambda at: [orders.override(at, env, seconds, body.reason)])


async def _freeze(desk: Desk, call: Call[Nothing, Because]) -> Decided:
    return await record(desk, lambda at: [orders.freeze(at, call.body.reason)])


async def _unfreeze(desk: Desk, call: Call[Nothing, Because]) -> Decided:
    return await record(desk, lambda at: [orders.unfreeze(at, call.body.reason)])


async def _suspend(desk: Desk, call: Call[Nothing, Because]) -> Decided:
    return await record(desk, lambda at: [orders.suspend(at, _resource(call), call.body.reason)])


async def _resume(desk: Desk, call: Call[Nothing, Because]) -> Decided:
    return await record(desk, lambda at: [orders.resume(at, _resource(call), call.body.reason)])


def _resource(call: Call[Any, Any]) -> str:
    return f"{call.path['kind']}/{call.path['name']}"
