"""One pass, top to bottom: git, load, desired, observe, plan, apply, status.

It is level-triggered: whatever asked for it only says "look now". A pass that was killed anywhere is
repaired by the next one, which starts from what git, the status branch and the hosts say.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
import trio

from reconciler.apply import OnChange, Outcome, apply_plan
from reconciler.control.state import ControlState, fold
from reconciler.deploy.looking import looking
from reconciler.deploy.removal import removable
from reconciler.desired import Desired, Facts, make_desired
from reconciler.environment_status import returned_to
from reconciler.errors import Problem
from reconciler.fleet import Fleet
from reconciler.gather import gather_facts, releases_of
from reconciler.health import HealthChecks
from reconciler.health_status import checks_due, notes_of_health
from reconciler.holds import active_holds, with_untold_failures
from reconciler.journal import StepRecord
from reconciler.named import check_named
from reconciler.notes import notes_of_pass
from reconciler.observe import Observed, observe
from reconciler.pass_status import PassFacts, last_good_spec, with_pass
from reconciler.plan import Action, Plan, make_plan
from reconciler.primary import Primary
from reconciler.recording import moved, with_replayed, with_results
from reconciler.release.facts import Common
from reconciler.release.look import Decided, decide_releases
from reconciler.release.planning import gates_of, release_steps, spec_revisions
from reconciler.release_steps import ReleaseSteps
from reconciler.secret_fingerprints import source_fingerprints
from reconciler.spec.model import Move
from reconciler.spec_source import SpecAt, read_spec, with_releases
from reconciler.status.conditions import Reason
from reconciler.status.documents import SUMMARY_ID, Recorded, Summary
from reconciler.status.transitions import Transition, transitions
from reconciler.step_recorder import JournalRecorder, result_of
from reconciler.steps import Steps
from reconciler.superseded import Newer
from reconciler.sync.sources import ProjectSources
from reconciler.verification import Verification
from reconciler.views import view_repositories

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before anything is changed."""

    spec: SpecAt
    recorded: Recorded
    facts: Facts
    desired: Desired
    observed: Observed
    plan: Plan
    decided: Decided
    control: ControlState
    control_commit: str
    replayed: tuple[StepRecord, ...] = ()
    """Steps that an earlier process finished and did not get into the status branch."""
    untold: tuple[StepRecord, ...] = ()
    """Those that it left unfinished, or failed in and did not tell."""
    fleet: Fleet | None = None
    notes: tuple[str, ...] = ()
    """What is valid and worth a look."""


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
    before_return: "Pass | None" = None
    """The pass in which it failed; this one is what followed."""


async def reconcile(
    primary: Primary,
    *,
    patience: float,
    forced: Collection[str] = (),
    adopted: Collection[str] = (),
    force_prune: bool = False,
    on_plan: Callable[[Plan], None] = lambda _plan: None,
    on_change: OnChange = lambda _step, _outcome: None,
) -> Pass:
    """One whole pass: look, plan, apply, and write back what happened.

    Where that recorded the way back from a release that failed, a second one follows at once and takes it.
    `patience`: seconds to wait for agents. Raises SpecInvalid, GitUnavailable or KeyMismatch if there is
    nothing to work with; what goes wrong with one resource is in the result.
    """
    one = partial(_one_pass, primary, patience=patience, on_plan=on_plan, on_change=on_change)
    done = await one(forced=forced, adopted=adopted, force_prune=force_prune)
    if not done.returned:
        return done
    for line in done.returned:
        log.warning(line)
    back = await one(forced=(), adopted=(), force_prune=False)
    return replace(
        back, outcomes={**done.outcomes, **back.outcomes}, returned=done.returned, before_return=done
    )


async def _one_pass(
    primary: Primary,
    *,
    patience: float,
    forced: Collection[str],
    adopted: Collection[str],
    force_prune: bool,
    on_plan: Callable[[Plan], None],
    on_change: OnChange,
) -> Pass:
    prepared = await prepare(
        primary, patience=patience, forced=forced, adopted=adopted, force_prune=force_prune
    )
    for note in primary.new_notes(prepared.notes):
        log.info(f"note: {note}")
    on_plan(prepared.plan)
    spec = prepared.spec.spec
    spec_url, spec_branch = primary.settings.require_spec_repo(), primary.settings.spec_branch
    newer = Newer(spec, spec_url, spec_branch, primary.repositories, primary.calls)
    health = HealthChecks(spec, newer, primary.repositories, primary.checkouts, primary.run_context)
    due, _ = checks_due(prepared.desired, prepared.recorded, _deploying(prepared.plan))
    looked: dict[str, str | None] = {}
    # apply
    recorder = await JournalRecorder.start(primary.journal, prepared.desired, primary.now)
    releases = ReleaseSteps(
        spec,
        prepared.decided.decisions,
        prepared.decided.facts,
        repositories=primary.repositories,
        verification=Verification(primary.repositories, primary.settings),
        spec_branch=prepared.spec.branch,
        now=primary.now,
        signing_key=primary.settings.signing_key_file,
    )
    recorder.revision_of = releases.revision_of
    async with ProjectSources(spec, primary.repositories, primary.checkouts, primary.run_context) as sources:
        steps = Steps(
            spec,
            prepared.desired,
            repositories=primary.repositories,
            sources=sources,
            releases=releases,
            fleet=prepared.fleet,
            secret_targets=primary.secret_targets(spec),
            secret_exports=primary.secret_exports(spec),
            recorded=prepared.recorded,
            observed=prepared.observed.resources,
            health=health,
            checkouts=primary.checkouts,
            context=primary.run_context,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(health.look, due, looked)
            outcomes = await apply_plan(
                prepared.plan,
                steps.executors(),
                recorder,
                slot=steps.slot,
                on_change=on_change,
            )
    # status
    replayed = [result_of(record) for record in prepared.replayed]
    happened = _pass_facts(primary, prepared, outcomes, releases, looked)
    told: list[Transition] = []
    returned: list[str] = []

    def changed(recorded: Recorded) -> Recorded:
        known = with_replayed(recorded, replayed, spec.moved)
        known = with_untold_failures(known, prepared.untold)
        known = with_results(known, recorder.results)
        after = with_pass(known, happened, primary.now())
        told[:] = transitions(recorded, after)
        returned[:] = returned_to(known, after)
        return after

    commit = await primary.status.publish(changed, _message(prepared, outcomes))
    await recorder.finish(outcomes.values(), prepared.replayed, told)
    await primary.github_reports(spec).tell(spec, primary.status)
    for change in told:
        if change.kind == "degraded" and change.reason == Reason.HEALTH_CHECK_FAILED:
            log.warning("not healthy", resource=change.resource, why=change.message)
    away = prepared.observed.asked - prepared.observed.connected
    return Pass(
        prepared.plan, outcomes, prepared.spec.problems, commit, prepared.notes, away, tuple(returned)
    )


async def prepare(
    primary: Primary,
    *,
    patience: float | None,
    forced: Collection[str] = (),
    adopted: Collection[str] = (),
    force_prune: bool = False,
) -> Prepared:
    """Look at everything and plan; nothing is changed.

    Without `patience` agents are not asked: what was recorded of their hosts is taken for what is there.
    """
    # git
    repositories, settings = primary.repositories, primary.settings
    repositories.begin_pass()
    spec_url = settings.require_spec_repo()
    await repositories.refresh(spec_url)
    if settings.status_repo is not None:
        await repositories.refresh(settings.status_repo)
    replayed = primary.journal.unpublished()
    # What another process began and has not ended is interrupted only if it is not at work right now.
    interrupted = primary.journal.interrupted() if primary.alone else ()
    published = await primary.status.read()
    # load
    spec = await read_spec(
        repositories.mirror(spec_url),
        settings.spec_branch,
        last_good=last_good_spec(published),
        cache=primary.specs,
    )
    primary.spec = spec.spec
    recorded, _ = _known(published, replayed, interrupted, spec.spec.moved)
    holds = active_holds(recorded, spec.spec, spec.is_frozen)
    # releases
    known = recorded.summary or Summary(id=SUMMARY_ID)
    control = fold(await primary.operators.read(seen=known.control, commit=known.control_commit))
    views = await view_repositories(spec.spec.repositories.values(), repositories)
    common = Common(now=primary.now(), spec_commit=spec.commit, control=control, holds=holds)
    decided = await decide_releases(spec.spec, views, recorded, common, repositories)
    verification = Verification(repositories, settings)
    decided = replace(decided, decisions=await verification.decisions(spec.spec, decided.decisions))
    revisions = spec_revisions(spec.spec, decided.decisions, recorded)
    spec = await with_releases(spec, revisions, repositories.mirror(spec_url), primary.specs)
    # A release may have resources under names that the head has changed since.
    recorded, untold = _known(published, replayed, interrupted, spec.spec.moved)
    # desired
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
    )
    desired = await trio.to_thread.run_sync(make_desired, facts)
    check_named("--force", forced, desired)
    check_named("--adopt", adopted, desired)
    notes = tuple(notes_of_pass(spec.spec, desired, recorded))
    # observe
    fleet = None
    if patience is not None:
        fleet = await primary.fleet(spec.spec, patience=patience)
    observed = await observe(
        desired,
        recorded,
        fleet,
        secret_targets=primary.secret_targets(spec.spec),
        secret_exports=primary.secret_exports(spec.spec),
        interrupted=_interrupted(untold),
        look_at_service=looking(
            primary.run_context,
            here=patience is not None,
            credential=primary.secret_store(spec.spec).credential,
        ),
    )
    # plan
    ids = recorded.ids() - {SUMMARY_ID}
    plan = make_plan(
        desired,
        observed.resources,
        recorded=ids,
        # What an operator has suspended is left alone too, whatever became of it in the spec.
        frozen=[id for id in ids if spec.is_frozen(id) or control.suspends(id)],
        forced=forced,
        adopted=adopted,
        removable=removable(desired, recorded),
        force_prune=force_prune,
        releases=release_steps(decided.decisions),
        gates=gates_of(spec.spec, decided.decisions, recorded, common),
    )
    notes += tuple(notes_of_health(desired, recorded, _deploying(plan)))
    return Prepared(
        spec,
        recorded,
        facts,
        desired,
        observed,
        plan,
        decided,
        control,
        primary.operators.tip,
        replayed,
        untold,
        fleet,
        notes,
    )


def _deploying(plan: Plan) -> tuple[str, ...]:
    return tuple(step.resource for step in plan.steps if step.action is Action.DEPLOY)


def _known(
    published: Recorded,
    replayed: Iterable[StepRecord],
    interrupted: Iterable[StepRecord],
    moves: Sequence[Move],
) -> tuple[Recorded, tuple[StepRecord, ...]]:
    """What is known when a pass begins, and the steps nobody was told of, all under the names of today."""
    untold = _moved(interrupted, moves)
    return with_untold_failures(with_replayed(published, map(result_of, replayed), moves), untold), untold


def _moved(records: Iterable[StepRecord], moves: Sequence[Move]) -> tuple[StepRecord, ...]:
    """Steps under the ids that their resources have after the renames of the spec."""
    return tuple(replace(record, resource=moved(record.resource, moves)) for record in records)


def _interrupted(untold: Iterable[StepRecord]) -> set[str]:
    """Resources that a step may have left anywhere. One that only records something touches nothing."""
    acting = (Action.DEPLOY, Action.SYNC, Action.PUSH, Action.EXPORT, Action.REMOVE)
    return {record.resource for record in untold if record.action in acting}


def _pass_facts(
    primary: Primary,
    prepared: Prepared,
    outcomes: Mapping[str, Outcome],
    releases: ReleaseSteps,
    looked: Mapping[str, str | None],
) -> PassFacts:
    spec = prepared.spec
    store = primary.secret_store(spec.spec)
    return PassFacts(
        spec=spec.spec,
        spec_commit=spec.commit,
        head_commit=spec.head_commit,
        problems=spec.problems,
        is_frozen=spec.is_frozen,
        desired=releases.as_released(prepared.desired, outcomes),
        plan=prepared.plan,
        outcomes=outcomes,
        decisions=prepared.decided.decisions,
        control=prepared.control,
        control_commit=prepared.control_commit,
        sources=store.freshness(),
        fingerprints=source_fingerprints(store.own_answers(), primary.key.hash_key),
        asked=prepared.observed.asked,
        connected=prepared.observed.connected,
        looked=looked,
    )


def _message(prepared: Prepared, outcomes: Mapping[str, Outcome]) -> str:
    succeeded = sum(outcome.state == "succeeded" for outcome in outcomes.values())
    others = len(outcomes) - succeeded
    what = f"{succeeded} step{'' if succeeded == 1 else 's'} applied"
    return (
        f"{what}, {others} not, at {prepared.spec.revision}"
        if others
        else f"{what} at {prepared.spec.revision}"
    )
