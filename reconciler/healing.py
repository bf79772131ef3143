"""What a primary still does that cannot renew its lease: it keeps nodes at what was applied to them.

It works with what its mirrors have and asks no repository anything. Of the plan it carries out only the
syncs whose outcome is recorded already, where a host has drifted from it: whoever may lead now wants the same
there, and an agent that has seen a newer primary refuses. Nothing is deployed, released or published.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog
import trio

from reconciler.apply import Details, OnChange, apply_plan
from reconciler.fleet import Fleet, report_details
from reconciler.ongoing import Ongoing
from reconciler.plan import Action, Plan, Step
from reconciler.primary import Primary
from reconciler.reconcile import Pass, prepare
from reconciler.status.documents import Recorded
from reconciler.step_recorder import JournalRecorder
from reconciler.sync.sources import ProjectSources

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def healing(plan: Plan, recorded: Recorded) -> Plan:
    """The part of a plan that brings back what is recorded, of trees that need no build. Pure."""
    kept = [
        step
        for step in plan.steps
        if step.action is Action.SYNC
        and (status := recorded.syncs.get(step.resource)) is not None
        and status.config_hash == step.hash != ""
    ]
    planned = {step.resource for step in plan.steps}
    able = {step.resource for step in kept}
    # What waits for something that is not done here is not done either.
    return replace(
        plan, steps=tuple(step for step in kept if not (planned - able).intersection(step.depends_on))
    )


async def heal(
    primary: Primary,
    *,
    patience: float,
    ongoing: Ongoing | None = None,
    on_change: OnChange = lambda _step, _outcome: None,
) -> Pass:
    """One pass of this kind. Raises as `reconcile`, and GitUnavailable where nothing is mirrored."""
    prepared = await prepare(primary, patience=patience, offline=True, ongoing=ongoing)
    plan = healing(prepared.plan, prepared.recorded)
    if plan.steps:
        log.warning("nodes are kept at what was applied", resources=", ".join(s.resource for s in plan.steps))
    spec, fleet, syncs = prepared.spec.spec, prepared.fleet, prepared.desired.syncs()
    recorder = await JournalRecorder.start(primary.journal, prepared.desired, primary.now)
    limit = trio.CapacityLimiter(spec.limits.max_parallel_tasks)

    @asynccontextmanager
    async def slot(_step: Step) -> AsyncIterator[None]:
        async with limit:
            yield

    async with ProjectSources(spec, primary.repositories, primary.checkouts, primary.run_context) as sources:

        async def sync(step: Step) -> Details:
            assert isinstance(fleet, Fleet)  # a step of a node needs one, or the plan has none
            wanted = syncs[step.resource]
            source = await sources.tree(wanted)
            report = await fleet.sync(wanted, source, wanted.project.sync.retry)
            return report_details(report, source.warnings)

        outcomes = await apply_plan(plan, {Action.SYNC: sync}, recorder, slot=slot, on_change=on_change)
    away = prepared.observed.asked - prepared.observed.connected
    return Pass(plan, outcomes, prepared.spec.problems, None, prepared.notes, away)
