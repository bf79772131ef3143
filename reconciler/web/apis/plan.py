"""The plan: of the last pass, or made anew without changing anything."""

from datetime import datetime
from typing import Final

import trio

from reconciler.errors import Problem
from reconciler.plan import Plan
from reconciler.primary import open_primary
from reconciler.reconcile import prepare
from reconciler.runner import Runner
from reconciler.web.apis.known import known, seen_as
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role

DEADLINE: Final = 170.0
"""Seconds that a plan made anew may take: repositories and secret sources are asked for it."""


class StepPlan(Model, frozen=True):
    resource: str
    action: str
    reason: str
    changes: tuple[str, ...]
    hash: str
    depends_on: tuple[str, ...]


class FindingView(Model, frozen=True):
    """A resource to which nothing is done although it is not in order. `unknown`: it could not be told."""

    resource: str
    reason: str
    message: str
    unknown: bool


class PlanView(Model, frozen=True):
    """As `trueup plan -o json` prints it."""

    version: int
    at: datetime
    fresh: bool
    """It was made for this request: agents were not asked for it."""
    spec_revision: str
    steps: tuple[StepPlan, ...]
    findings: tuple[FindingView, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


class PlanQuery(Asked, frozen=True, kw_only=True):
    fresh: bool = False


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    plans = _Plans(runner)
    return [
        Endpoint(
            method="GET",
            path="/api/plan",
            summary="The plan of the last pass, or with fresh=true one that is made now; nothing is changed",
            tag="general",
            handler=plans.show,
            role=Role.READ,
            query=PlanQuery,
            answer=PlanView,
            deadline=DEADLINE,
            refusals={
                502: "A plan could not be made: the spec is wrong, for one.",
                503: "A plan could not be made now, or no pass has read the spec yet.",
            },
        )
    ]


class _Plans:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._one_at_a_time = trio.Lock()
        self._made: tuple[float, PlanView] | None = None
        """When the last one was begun."""

    async def show(self, call: Call[PlanQuery, Nothing]) -> PlanView:
        if not call.query.fresh:
            looked = known(self._runner).looked
            return plan_view(looked.at, looked.plan, looked.problems, looked.notes, fresh=False)
        asked_at = trio.current_time()
        async with self._one_at_a_time:
            # Who waited for one that was begun later than they asked is served with it.
            if self._made is None or self._made[0] < asked_at:
                began = trio.current_time()
                self._made = began, await self._make()
            return self._made[1]

    async def _make(self) -> PlanView:
        """As `trueup plan` beside a running primary: with mirrors of its own time, and asking no agent."""
        running = self._runner.primary
        async with open_primary(running.settings, exclusive=False, journal=running.journal) as aside:
            prepared = await prepare(aside, patience=None)
        return plan_view(aside.now(), prepared.plan, prepared.spec.problems, prepared.notes, fresh=True)


def plan_view(
    at: datetime, plan: Plan, problems: tuple[Problem, ...], notes: tuple[str, ...], *, fresh: bool
) -> PlanView:
    return PlanView(
        version=1,
        at=at,
        fresh=fresh,
        spec_revision=plan.spec_revision,
        steps=tuple(seen_as(StepPlan, each) for each in plan.steps),
        findings=tuple(seen_as(FindingView, each) for each in plan.findings),
        problems=tuple(map(str, problems)),
        notes=notes,
    )
