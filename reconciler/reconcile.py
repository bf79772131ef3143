"""One pass, top to bottom: git, load, desired, observe, plan, apply, status.

It is level-triggered: whatever asked for it only says "look now". A pass that was killed anywhere is
repaired by the next one, which starts from what git, the status branch and the hosts say.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

import structlog
import trio

from reconciler.apply import OnChange, Outcome
from reconciler.around import around, finding_under_way
from reconciler.carried import Carried, ends_to_tell, outdated
from reconciler.control.state import fold
from reconciler.deploy.looking import looking
from reconciler.deploy.removal import removable
from reconciler.desired import make_desired
from reconciler.directories import PATIENCE, DirectoryLook, record_changes, warnings_of
from reconciler.early_looks import EarlyLooks, early_looks
from reconciler.environment_status import returned_to
from reconciler.errors import Problem
from reconciler.gather import gather_facts, releases_of
from reconciler.health_status import notes_of_health
from reconciler.holds import active_holds, with_untold_failures
from reconciler.journal import StepRecord
from reconciler.journal_events import NewEvent
from reconciler.looked import Looked
from reconciler.named import check_named
from reconciler.notes import notes_of_directories, notes_of_pass
from reconciler.notifications.announcing import Announcement
from reconciler.observe import Agents, as_recorded, observe
from reconciler.ongoing import Ongoing
from reconciler.overtaken import LEFT_OUT, OVERTAKEN, overtaken, without
from reconciler.overtaken import left_out as left_out_of
from reconciler.pass_requests import EVERYTHING, PassRequest
from reconciler.pass_status import last_good_spec, with_pass
from reconciler.plan import Plan, Step, make_plan
from reconciler.prepared import (
    Prepared,
    commit_message,
    deploying,
    facts_of_pass,
    known_at_start,
    left_anywhere,
)
from reconciler.primary import Primary
from reconciler.recording import moved, with_begun, with_moves, with_replayed, with_results
from reconciler.release.facts import Common
from reconciler.release.look import decide_releases
from reconciler.release.planning import gates_of, release_steps, spec_revisions
from reconciler.scope import left_alone, meant, scope_of, within
from reconciler.spec_source import read_spec, with_releases
from reconciler.status.conditions import Reason
from reconciler.status.documents import SUMMARY_ID, Recorded
from reconciler.status.transitions import Transition, transitions
from reconciler.step_recorder import result_of
from reconciler.tracing import traced
from reconciler.verification import Verification
from reconciler.views import view_repositories
from reconciler.work import Work, recorder_of

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass did."""

    plan: Plan
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    status_commit: str | None = None
    """None: nothing changed, and so nothing was committed."""
    notes: tuple[str, ...] = ()
    away: frozenset[str] = frozenset()
    """Nodes that were needed and not connected."""
    returned: tuple[str, ...] = ()
    """In words, the units that went back to an earlier release because another one failed."""
    left: frozenset[str] = frozenset()
    """Resources that are not in order and stay as they were: nothing was to be done to them in this pass."""
    let_go: bool = False
    """Another pass was due: what it had not begun is for that one, and what it had begun goes on."""
    before_return: "Pass | None" = None
    """The pass in which it failed; this one is what followed."""


@traced
async def reconcile(
    primary: Primary,
    *,
    patience: float,
    request: PassRequest = EVERYTHING,
    forced: Collection[str] = (),
    adopted: Collection[str] = (),
    force_prune: bool = False,
    on_plan: Callable[[Plan], None] = lambda _plan: None,
    on_change: OnChange = lambda _step, _outcome: None,
    ongoing: Ongoing | None = None,
) -> Pass:
    """One whole pass: look, plan, apply, and write back what happened.

    Where that recorded the way back from a release that failed, a second one follows at once and takes it.
    `patience`: seconds to wait for agents. `request`: what of the plan is applied. With `ongoing`, of a
    running primary, what failed is tried again in its own time, and steps may go on after the pass. Raises
    SpecInvalid, GitUnavailable or KeyMismatch if there is nothing to work with, and SettingsError where
    `forced` or `adopted` name what is not there; what goes wrong with one resource is in the result.
    """
    one = partial(
        _one_pass, primary, patience=patience, on_plan=on_plan, on_change=on_change, ongoing=ongoing
    )
    done = await one(request=request, forced=forced, adopted=adopted, force_prune=force_prune)
    if not done.returned:
        return done
    for line in done.returned:
        log.warning(line)
    back = await one(request=EVERYTHING, forced=(), adopted=(), force_prune=False)
    return replace(
        back, outcomes={**done.outcomes, **back.outcomes}, returned=done.returned, before_return=done
    )


async def _one_pass(
    primary: Primary,
    *,
    patience: float,
    request: PassRequest,
    forced: Collection[str],
    adopted: Collection[str],
    force_prune: bool,
    on_plan: Callable[[Plan], None],
    on_change: OnChange,
    ongoing: Ongoing | None,
) -> Pass:
    async def look() -> Prepared:
        async with early_looks(primary.asked_last) as early:
            return await prepare(
                primary,
                patience=patience,
                request=request,
                forced=forced,
                adopted=adopted,
                force_prune=force_prune,
                ongoing=ongoing,
                early=early,
            )

    prepared = await look()
    leadership = primary.leadership
    assert leadership is not None  # a pass is made by who has the state directory to itself
    if prepared.plan.steps and await leadership.claim():
        prepared = await look()  # somebody else may have acted since
    for note in primary.new_notes(prepared.notes):
        log.info(f"note: {note}")
    on_plan(prepared.plan)
    primary.looked = Looked(
        primary.now(),
        prepared.spec.spec,
        prepared.plan,
        prepared.spec.problems,
        prepared.notes,
        prepared.control,
    )
    primary.bulletin.tell()
    spec = prepared.spec.spec
    await record_changes(primary.directories, primary.journal)
    # apply
    recorder = await recorder_of(primary, prepared)
    work = Work(primary, prepared, recorder, on_change=on_change, ongoing=ongoing)
    await work.run()
    # status
    replayed = [result_of(record) for record in prepared.replayed]
    outcomes = dict(work.application.outcomes)
    results = recorder.results(outcomes)
    told_now = ends_to_tell(
        prepared.carried, prepared.plan, prepared.desired, outcomes, prepared.left, prepared.held
    )
    happened = facts_of_pass(
        primary, prepared, work.application, outcomes, told_now, work.releases, work.looked
    )
    announcement = Announcement(primary, spec, prepared.spec.commit)
    await announcement.prepare(await primary.status.read())
    published: list[Recorded] = []
    told: list[Transition] = []
    returned: list[str] = []

    def changed(recorded: Recorded) -> Recorded:
        known = with_replayed(recorded, replayed, spec.moved)
        known = with_untold_failures(known, prepared.untold)
        known = with_begun(known, prepared.untold, prepared.desired.ids)
        known = with_results(known, results)
        after = with_pass(known, happened, primary.now())
        published[:] = recorded, after
        told[:] = transitions(recorded, after)
        returned[:] = returned_to(known, after)
        return after

    commit = await primary.status.publish(changed, commit_message(prepared, outcomes))
    await announcement.announce(*published)
    others = [record.id for record in (*prepared.replayed, *prepared.overtaken)]
    left_out = [
        NewEvent(OVERTAKEN, resource, Reason.LEASE_LOST, LEFT_OUT)
        for resource in left_out_of(prepared.overtaken, prepared.published, spec.moved)
    ]
    for event in left_out:
        log.warning(event.message, resource=event.resource)
    others += [end.record for end in told_now.values()]
    await recorder.finish(outcomes, others, (*left_out, *told))
    if ongoing is not None:
        ongoing.settle(prepared.carried, {*outcomes, *told_now}, happened.left)
    await primary.github_reports(spec).tell(spec, primary.status)
    for change in told:
        if change.kind == "degraded" and change.reason == Reason.HEALTH_CHECK_FAILED:
            log.warning("not healthy", resource=change.resource, why=change.message)
    away = prepared.observed.asked - prepared.observed.connected
    return Pass(
        prepared.plan,
        outcomes,
        prepared.spec.problems,
        commit,
        prepared.notes,
        away,
        tuple(returned),
        left=happened.left,
        let_go=work.was_let_go,
    )


async def prepare(
    primary: Primary,
    *,
    patience: float | None,
    request: PassRequest = EVERYTHING,
    forced: Collection[str] = (),
    adopted: Collection[str] = (),
    force_prune: bool = False,
    ongoing: Ongoing | None = None,
    early: EarlyLooks | None = None,
    offline: bool = False,
) -> Prepared:
    """Look at everything and plan; nothing is changed. The plan is what of it the request concerns.

    Without `patience` agents are not asked: what was recorded of their hosts is taken for what is there.
    With `early` they are asked at the beginning what they were asked last time.
    `offline`: nobody but agents is asked anything: no repository, no secret source and no other system.
    """
    carried = ongoing.carried() if ongoing is not None else Carried()
    # git
    repositories, settings = primary.repositories, primary.settings
    repositories.begin_pass(offline=offline)
    spec_url = settings.require_spec_repo()
    await repositories.refresh(spec_url)
    if settings.status_repo is not None:
        await repositories.refresh(settings.status_repo)
    replayed = await trio.to_thread.run_sync(primary.journal.unpublished)
    # What another process began and has not ended is interrupted only if it is not at work right now.
    interrupted: tuple[StepRecord, ...] = ()
    if primary.alone:
        interrupted = await trio.to_thread.run_sync(primary.journal.interrupted, carried.records)
    published = await primary.status.read()
    # load
    spec = await read_spec(
        repositories.mirror(spec_url),
        settings.spec_branch,
        last_good=last_good_spec(published),
        cache=primary.specs,
    )
    primary.spec = spec.spec
    gone = overtaken((*replayed, *interrupted), published, spec.spec.moved, run=primary.journal.run)
    replayed, interrupted = without(replayed, gone), without(interrupted, gone)
    recorded, untold = known_at_start(published, replayed, interrupted, spec.spec.moved)
    # hosts: what they answer is needed once it is known what is wanted there
    fleet = None
    if patience is not None:
        fleet = await primary.fleet(spec.spec, patience=patience)
    agents: Agents | None = fleet
    if fleet is not None and early is not None:
        acted_on = {*carried.under_way, *left_anywhere(untold)}
        agents = early.begin(fleet, recorded, spec_commit=spec.commit, acted_on=acted_on)
    holds = active_holds(recorded, spec.spec, spec.is_frozen)
    # releases
    control = fold(await primary.operators.read_after(recorded))
    views = await view_repositories(spec.spec.repositories.values(), repositories)
    common = Common(now=primary.now(), spec_commit=spec.commit, control=control, holds=holds)
    decided = await decide_releases(spec.spec, views, recorded, common, repositories)
    verification = Verification(repositories, settings)
    decided = replace(decided, decisions=await verification.decisions(spec.spec, decided.decisions))
    revisions = spec_revisions(spec.spec, decided.decisions, recorded)
    spec = await with_releases(spec, revisions, repositories.mirror(spec_url), primary.specs)
    # A release may have resources under names that the head has changed since.
    recorded, untold = known_at_start(published, replayed, interrupted, spec.spec.moved)
    # desired
    waits = inf if ongoing is None else PATIENCE
    directories = await primary.directories.look(spec.spec, patience=waits)
    facts = await gather_facts(
        spec.spec,
        spec.revision,
        repositories=repositories,
        views=views,
        releases=releases_of(decided.decisions),
        store=primary.secret_store(spec.spec),
        settings=settings,
        key=primary.key,
        suspended=control,
        directories={
            key: look.facts if isinstance(look, DirectoryLook) else look for key, look in directories.items()
        },
        offline=offline,
    )
    desired = await trio.to_thread.run_sync(make_desired, facts)
    recorded = with_begun(recorded, untold, desired.ids)
    check_named("--force", forced, desired)
    check_named("--adopt", adopted, desired)
    forced = {*forced, *meant(request.forced, desired)}
    notes = (*notes_of_pass(spec.spec, desired, recorded), *notes_of_directories(warnings_of(directories)))
    moves = spec.spec.moved
    carried = replace(carried, under_way={moved(id, moves): step for id, step in carried.under_way.items()})
    if ongoing is not None:
        ongoing.call_off(outdated(carried, desired, spec.is_frozen))
    # observe
    observed = await observe(
        desired,
        recorded,
        agents,
        secret_targets=primary.secret_targets(spec.spec),
        secret_exports=primary.secret_exports(spec.spec),
        interrupted=left_anywhere(untold),
        under_way={*carried.under_way, *(desired.targets() if offline else ())},
        look_at_service=as_recorded
        if offline
        else looking(
            primary.run_context,
            here=patience is not None,
            credential=primary.secret_store(spec.spec).credential,
        ),
    )
    # plan
    ids = recorded.ids() - {SUMMARY_ID}
    places = removable(desired, recorded)
    plan = make_plan(
        desired,
        observed.resources,
        recorded=ids,
        # What an operator has suspended is left alone too, whatever became of it in the spec.
        frozen=[id for id in ids if spec.is_frozen(id) or control.suspends(id)],
        forced=forced,
        adopted=adopted,
        removable=places,
        force_prune=force_prune,
        releases=release_steps(decided.decisions),
        gates=gates_of(spec.spec, decided.decisions, recorded, common),
        under_way={id: finding_under_way(step, id) for id, step in carried.under_way.items()},
    )
    plan, waiting = around(plan, carried.under_way, places)
    held: Mapping[str, Step] = {}
    if ongoing is not None:
        plan, held = ongoing.without_failing(plan, meant(request.named, desired), carried, primary.now())
    plan, left = within(plan, scope_of(request, spec.spec, desired), desired)
    if ongoing is not None:
        ongoing.back_off.try_again({step.resource for step in plan.steps})
    left = left_alone(desired, {*left, *waiting, *held, *carried.under_way})
    notes += tuple(notes_of_health(desired, recorded, (*deploying(plan), *left)))
    return Prepared(
        spec,
        recorded,
        with_moves(published, moves),
        facts,
        desired,
        observed,
        plan,
        decided,
        control,
        primary.operators.tip,
        directories,
        replayed,
        untold,
        gone,
        fleet,
        notes,
        carried,
        held,
        left,
    )
