"""`POST /deploy`: a workflow that has the secret asks for a release, and follows what becomes of it.

Nothing is deployed here. What is asked for is judged by the rules of releases and recorded as an operator's
decision, in the name of whoever asked; the next pass acts on it. Answered once that is durable.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
import trio
from starlette.requests import Request
from starlette.responses import Response

from reconciler.control.records import Record, describe
from reconciler.control.situation import Situation
from reconciler.control.state import fold
from reconciler.deploy_requests import AskedDeploy, new_id
from reconciler.desk import open_desk
from reconciler.errors import TrueupError
from reconciler.git.objects import Tag
from reconciler.holds import active_holds
from reconciler.observation import Setback
from reconciler.release.facts import Common, UnitFacts
from reconciler.release.look import look_up_lineage, unit_facts
from reconciler.runner import Runner
from reconciler.spec.model import Repository
from reconciler.views import View
from reconciler.web.answers import encoded
from reconciler.web.bodies import Bodies
from reconciler.web.deliveries import DeliveryRefused
from reconciler.web.deploy_bodies import Asked, DeployBody, read_deploy
from reconciler.web.deploy_orders import (
    DeployRefused,
    Order,
    order_of,
    progress_of,
    unit_of,
    units_meant,
    with_provisional,
)
from reconciler.web.endpoints import AnyEndpoint, Model, OpenEndpoint
from reconciler.web.headers import values_of

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_BODY: Final = 64 * 1024
SIGNATURE: Final = "x-hub-signature-256"


class Taken(Model, frozen=True):
    """A request for a deploy that cannot be lost any more."""

    success: bool
    message: str
    id: str
    url: str
    """Where to follow it."""
    decision: int | None
    """The number of the record on the control branch; null where nothing had to be recorded."""


class Followed(Model, frozen=True):
    """What became of a request for a deploy."""

    id: str
    environment: str
    unit: str
    tag: str
    kind: str
    state: str
    message: str
    release: str | None


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    deploys = Deploys(runner)
    return [
        OpenEndpoint(
            method="POST",
            path="/deploy",
            summary="Ask for the deploy of a tag in an environment",
            tag="webhooks",
            handler=deploys.receive,
            security="githubSignature",
            body=DeployBody,
            answer=Taken,
            status=202,
            refusals={
                401: "The signature is missing or not right, or its time is too far from ours.",
                403: "The rules of releases do not allow it.",
                404: "Deploys are closed, or there is no such environment, unit or tag.",
                409: "The rules of releases do not allow it now, or the nonce was used for another request.",
                413: "The body is too large.",
                422: "It is not clear what is meant.",
            },
        ),
        OpenEndpoint(
            method="GET",
            path="/deploy/{id}",
            summary="What became of a request for a deploy; whoever was told its id may know",
            tag="webhooks",
            handler=deploys.follow,
            answer=Followed,
        ),
    ]


class Deploys:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._primary = runner.primary
        self._bodies = Bodies(most=MAX_BODY)
        self._one_at_a_time = trio.Lock()

    async def receive(self, request: Request) -> Response:
        """202 with where to follow it, once it cannot be lost."""
        secret = self._primary.settings.deploy_secret
        if secret is None:
            raise DeliveryRefused(404, "deploys are closed; DEPLOY_SECRET opens them")
        signatures = values_of(request, SIGNATURE)
        async with self._bodies.read(request) as body:
            asked = read_deploy(signatures, body, secret, now=self._primary.now())
        async with self._one_at_a_time:
            known = await self._known(asked)
            if known is None:
                known = await self._take(asked)
        self._runner.ask(
            f"{known.tag} of {known.unit} was asked for in {known.environment}",
            environments=[known.environment],
        )
        return encoded(
            Taken(
                success=True,
                message=f"{known.kind} of {known.unit} by {known.by}",
                id=known.id,
                url=f"/deploy/{known.id}",
                decision=known.decision or None,
            ),
            202,
        )

    async def follow(self, request: Request) -> Response:
        """What became of a request: whoever was told its id may know."""
        known = await trio.to_thread.run_sync(
            self._primary.journal.deploy_requests.by_id, request.path_params["id"]
        )
        if known is None:
            raise DeployRefused(404, "there is no such request, or it is long ago")
        recorded = await self._primary.status.read()
        status = recorded.environments.get(f"environments/{known.environment}")
        waiting = {
            name: each.message
            for each in (status.waiting if status is not None else ())
            if each.unit == known.unit
            for name in (each.tag, each.commit)
            if name
        }
        found = progress_of(
            known.kind,
            known.tag,
            known.commit,
            known.decision,
            status.units.get(known.unit) if status is not None else None,
            waiting,
        )
        return encoded(
            Followed(
                id=known.id,
                environment=known.environment,
                unit=known.unit,
                tag=known.tag,
                kind=known.kind,
                state=found.state,
                message=found.message,
                release=found.release,
            )
        )

    async def _known(self, asked: Asked) -> AskedDeploy | None:
        """The same request, which has come before. Raises DeployRefused for another one with its nonce."""
        known = await trio.to_thread.run_sync(self._primary.journal.deploy_requests.by_nonce, asked.nonce)
        if known is not None and known.digest != asked.digest:
            raise DeployRefused(409, "this nonce was used for another request")
        return known

    async def _take(self, asked: Asked) -> AskedDeploy:
        """Judge it, record what follows, and remember it. Raises DeployRefused, GitUnavailable."""
        primary = self._primary
        desk = await open_desk(primary, asked.by)
        at, seen = desk.situation, desk.seen
        facts, tag, common = await self._facts(asked, at, desk.records)
        order = order_of(asked, at, facts, tag, common)
        if order.record is not None:
            order = await self._append(asked, at, facts, tag, common, seen)
        request = AskedDeploy(
            id=new_id(),
            nonce=asked.nonce,
            digest=asked.digest,
            environment=asked.environment,
            unit=order.unit,
            tag=order.tag,
            commit=order.commit,
            kind=order.kind,
            decision=order.decision,
            by=asked.by,
        )
        await trio.to_thread.run_sync(primary.journal.deploy_requests.record, request)
        return request

    async def _facts(
        self, asked: Asked, at: Situation, records: Sequence[Record]
    ) -> tuple[UnitFacts, Tag, Common]:
        """The unit that is meant, its tag, and all that the rules ask of them."""
        units = units_meant(asked, at)
        named = [at.spec.repositories[at.spec.units[unit].repository] for unit in units]
        views = {each.name: await self._view(each) for each in named}
        common = Common(
            now=at.now,
            spec_commit=at.spec_commit,
            control=at.control,
            holds=active_holds(at.recorded, at.spec, lambda _id: False),
        )
        look = partial(unit_facts, at.spec, views, at.recorded, common)
        facts, tag = unit_of(asked, [look(unit, asked.environment) for unit in units])
        view = views[facts.unit.repository]
        assert isinstance(view, View)  # it has tags
        probe = with_provisional(common, records, facts, tag)
        return replace(facts, lineage=await look_up_lineage(facts, probe, view)), tag, common

    async def _view(self, repository: Repository) -> View | Setback:
        """A repository as it is at this moment, not as the pass under way has seen it."""
        try:
            mirror = self._primary.repositories.mirror(repository.url)
            return View(mirror, await mirror.refresh(), await mirror.tags())
        except TrueupError as error:
            return Setback.of(error)

    async def _append(
        self, asked: Asked, at: Situation, facts: UnitFacts, tag: Tag, common: Common, seen: int
    ) -> Order:
        """Record it; judged again if somebody else recorded something meanwhile."""
        made: list[Order] = []

        def make(known: Sequence[Record]) -> list[Record]:
            control = fold(known)
            order = order_of(
                asked, replace(at, control=control), facts, tag, replace(common, control=control)
            )
            made[:] = [order]
            if order.record is None:
                raise _Recorded
            return [order.record]

        try:
            appended = await self._primary.operators.append(make, author=asked.by, seen=seen)
        except _Recorded:
            return made[0]
        [record] = appended.records
        log.info("recorded", decision=record.number, what=describe(record), by=record.by)
        return replace(made[0], record=record, decision=record.number)


class _Recorded(Exception):
    """Another request for the same was faster."""
