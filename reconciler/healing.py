"""What a primary still does that cannot renew its lease: it keeps nodes at what was applied to them.

It works with what its mirrors and its memory have, and asks nobody but the agents anything. Of the plan it
carries out only the syncs whose outcome is recorded already, where a host has drifted from it: whoever may
lead now wants the same there, and an agent that has seen a newer primary refuses. Nothing is deployed,
released or published.
"""

from dataclasses import replace

import structlog

from reconciler.apply import OnChange
from reconciler.ongoing import Ongoing
from reconciler.plan import Action, Plan
from reconciler.primary import Primary
from reconciler.reconcile import Pass, prepare
from reconciler.status.documents import Recorded
from reconciler.work import Work, recorder_of

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
    ongoing: Ongoing,
    on_change: OnChange = lambda _step, _outcome: None,
) -> Pass:
    """One pass of this kind. Raises as `reconcile`, and GitUnavailable where nothing is mirrored."""
    prepared = await prepare(primary, patience=patience, offline=True, ongoing=ongoing)
    plan = healing(prepared.plan, prepared.recorded)
    if plan.steps:
        log.warning("nodes are kept at what was applied", resources=", ".join(s.resource for s in plan.steps))
    recorder = await recorder_of(primary, prepared)
    work = Work(primary, replace(prepared, plan=plan), recorder, on_change=on_change)
    await work.keep(ongoing.stop)
    outcomes = work.application.outcomes
    # Nothing is left to tell later: what is recorded was and is true, or the next look shows that it is not.
    await recorder.finish(outcomes, (), ())
    away = prepared.observed.asked - prepared.observed.connected
    return Pass(plan, outcomes, prepared.spec.problems, None, prepared.notes, away)
