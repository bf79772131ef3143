"""`POST /sync`: somebody, or a workflow that has the secret, says "look now" at something.

Signed as `/deploy` is, with a time and a nonce, or with a token. Nothing is forced unless that is asked for.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from reconciler.control.situation import UnknownName, unknown
from reconciler.identity import project_id
from reconciler.runner import Runner
from reconciler.spec.model import Spec
from reconciler.status.conditions import bounded
from reconciler.web.answers import encoded
from reconciler.web.apis.known import spec_of
from reconciler.web.asked_passes import ask_durably
from reconciler.web.bodies import Bodies
from reconciler.web.deliveries import DeliveryRefused, PassAsked, check_github_signature
from reconciler.web.deploy_bodies import Name, check_once
from reconciler.web.endpoints import AnyEndpoint, Done, Identify, OpenEndpoint, Role, require_role
from reconciler.web.headers import values_of
from reconciler.web.refusals import RequestRefused

MAX_BODY: Final = 64 * 1024
SIGNATURE: Final = "x-hub-signature-256"


class SyncBody(msgspec.Struct, forbid_unknown_fields=True):
    """One of `env`, `service` and `all`, or `env` and `service` together."""

    env: Name | None = None
    service: Name | None = None
    all: bool = False
    force: bool = False
    """Act on it though nothing changed."""
    requested_at: datetime | int | None = None
    """With a signature: when it was made."""
    nonce: str = ""
    """With a signature: it counts once."""


@dataclass(frozen=True, slots=True)
class Meant:
    resources: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


def endpoints(runner: Runner, identify: Identify) -> list[AnyEndpoint]:
    return [
        OpenEndpoint(
            method="POST",
            path="/sync",
            summary="Look now at an environment, a service, or everything; signed, or with a token",
            tag="webhooks",
            handler=ManualSync(runner, identify).receive,
            security="githubSignature",
            body=SyncBody,
            answer=Done,
            status=202,
            refusals={
                401: "The signature is not right, its time is too far from ours, or the token is not known.",
                403: "The role of the token does not allow it, or no tokens are accepted here.",
                404: "There is no such environment or service.",
                413: "The body is too large.",
                429: "Too many requests.",
            },
        )
    ]


class ManualSync:
    def __init__(self, runner: Runner, identify: Identify) -> None:
        self._runner = runner
        self._identify = identify
        self._bodies = Bodies(most=MAX_BODY)

    async def receive(self, request: Request) -> Response:
        """202 once it cannot be lost."""
        primary = self._runner.primary
        signatures = values_of(request, SIGNATURE)
        by = "a signed request"
        secret = primary.settings.deploy_secret
        if not signatures:
            caller = await self._identify(request)
            require_role(caller, Role.OPERATE)
            by = caller.name
        elif secret is None:
            raise DeliveryRefused(404, "closed to signed requests; DEPLOY_SECRET opens it")
        async with self._bodies.read(request) as body:
            if signatures and secret is not None:
                check_github_signature(signatures, body, secret)
            try:
                asked = msgspec.json.decode(body, type=SyncBody)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise RequestRefused(
                    400, f"the body is not a request for a sync: {bounded(str(error))}"
                ) from None
            if signatures:
                if not asked.nonce:
                    raise DeliveryRefused(400, "a signed request needs requested_at and nonce")
                check_once(asked.requested_at, asked.nonce, primary.now())
            said = self._said(asked, by)
            await ask_durably(self._runner, "sync", said, body if signatures else None)
        return encoded(Done(success=True, message="A pass was asked for"), 202)

    def _said(self, asked: SyncBody, by: str) -> PassAsked:
        spec = spec_of(self._runner)
        try:
            meant = meant_by(asked, spec)
        except UnknownName as error:
            raise RequestRefused(404, str(error)) from None
        return PassAsked(f"{by} asked for a sync", meant.resources, meant.environments, meant.forced)


def meant_by(asked: SyncBody, spec: Spec) -> Meant:
    """What a pass is asked for. Raises UnknownName, and RequestRefused for what says nothing."""
    if asked.all == bool(asked.env or asked.service):
        raise RequestRefused(400, "name `env`, `service` or both, or say `all`")
    if asked.all and asked.force:
        raise RequestRefused(400, "`force` needs an `env` or a `service`: what is forced is deployed anew")
    if asked.all:
        return Meant()
    if asked.env is not None and asked.env not in spec.environments:
        raise unknown("environment", asked.env, spec.environments)
    inside = [each for each in spec.services if asked.env in (None, each.environment)]
    if asked.service is not None:
        if asked.service not in {each.name for each in inside}:
            raise unknown("service", asked.service, {each.name for each in inside})
        ids = tuple(each.id for each in inside if each.name == asked.service)
        return Meant(forced=ids) if asked.force else Meant(resources=ids)
    assert asked.env is not None
    if not asked.force:
        return Meant(environments=(asked.env,))
    projects = [project_id(each) for each in spec.projects.values() if each.environment == asked.env]
    return Meant(forced=(*(each.id for each in inside), *projects))
