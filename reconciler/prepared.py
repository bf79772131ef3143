"""What a pass knows before it changes anything, and what it has to write down afterwards."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.apply import Application, Outcome
from reconciler.around import finding_under_way
from reconciler.carried import Carried, End
from reconciler.control.state import ControlState
from reconciler.desired import Desired, Facts
from reconciler.directories import Looks
from reconciler.fleet import Fleet
from reconciler.holds import with_untold_failures
from reconciler.journal import StepRecord
from reconciler.observe import Observed
from reconciler.pass_status import PassFacts
from reconciler.plan import Action, Plan, Step
from reconciler.primary import Primary
from reconciler.recording import moved, with_replayed
from reconciler.release.look import Decided
from reconciler.release_steps import ReleaseSteps
from reconciler.scope import left_alone
from reconciler.secret_fingerprints import source_fingerprints
from reconciler.spec.model import Move
from reconciler.spec_source import SpecAt
from reconciler.status.documents import Recorded
from reconciler.step_recorder import result_of


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before anything is changed."""

    spec: SpecAt
    recorded: Recorded
    published: Recorded
    """What of it git has, under the names of today."""
    facts: Facts
    desired: Desired
    observed: Observed
    plan: Plan
    decided: Decided
    control: ControlState
    control_commit: str
    directories: Looks
    """What is in the directories that projects are synced from."""
    replayed: tuple[StepRecord, ...] = ()
    """Steps that an earlier process finished and did not get into the status branch."""
    untold: tuple[StepRecord, ...] = ()
    """Those that it left unfinished, or failed in and did not tell."""
    overtaken: tuple[StepRecord, ...] = ()
    """Such steps of both kinds that are left out, as others have recorded something since."""
    fleet: Fleet | None = None
    notes: tuple[str, ...] = ()
    """What is valid and worth a look."""
    carried: Carried = field(default_factory=Carried)
    """From earlier passes of this process."""
    held: Mapping[str, Step] = field(default_factory=dict)
    """Steps that failed and whose time has not come, by resource."""
    left: frozenset[str] = frozenset()
    """Resources that are not in order and stay as they are recorded, as this pass does nothing to them."""


def deploying(plan: Plan) -> tuple[str, ...]:
    return tuple(step.resource for step in plan.steps if step.action is Action.DEPLOY)


def known_at_start(
    published: Recorded,
    replayed: Iterable[StepRecord],
    interrupted: Iterable[StepRecord],
    moves: Sequence[Move],
) -> tuple[Recorded, tuple[StepRecord, ...]]:
    """What is known when a pass begins, and the steps nobody was told of, all under the names of today."""
    untold = moved_steps(interrupted, moves)
    return with_untold_failures(with_replayed(published, map(result_of, replayed), moves), untold), untold


def moved_steps(records: Iterable[StepRecord], moves: Sequence[Move]) -> tuple[StepRecord, ...]:
    """Steps under the ids that their resources have after the renames of the spec."""
    return tuple(replace(record, resource=moved(record.resource, moves)) for record in records)


def left_anywhere(untold: Iterable[StepRecord]) -> set[str]:
    """Resources that a step may have left anywhere. One that only records something touches nothing."""
    acting = (Action.DEPLOY, Action.SYNC, Action.PUSH, Action.EXPORT, Action.REMOVE)
    return {record.resource for record in untold if record.action in acting}


def facts_of_pass(
    primary: Primary,
    prepared: Prepared,
    application: Application,
    outcomes: Mapping[str, Outcome],
    told: Mapping[str, End],
    releases: ReleaseSteps,
    looked: Mapping[str, str | None],
) -> PassFacts:
    """`outcomes` are those of this pass as far as it got, `told` those of earlier ones."""
    spec = prepared.spec
    store = primary.secret_store(spec.spec)
    under_way = {**prepared.carried.under_way, **application.left}
    dropped = left_alone(prepared.desired, {*application.dropped, *under_way})
    every = {**{id: end.outcome for id, end in told.items()}, **outcomes}
    return PassFacts(
        spec=spec.spec,
        spec_commit=spec.commit,
        head_commit=spec.head_commit,
        problems=spec.problems,
        is_frozen=spec.is_frozen,
        desired=releases.as_released(prepared.desired, every),
        plan=replace(prepared.plan, steps=(*prepared.plan.steps, *(end.step for end in told.values()))),
        left=(prepared.left | dropped) - told.keys(),
        under_way={id: finding_under_way(step, id).message for id, step in under_way.items()},
        outcomes=every,
        decisions=prepared.decided.decisions,
        control=prepared.control,
        control_commit=prepared.control_commit,
        sources=store.freshness(),
        fingerprints=source_fingerprints(store.own_answers(), primary.key.hash_key),
        asked=prepared.observed.asked,
        connected=prepared.observed.connected,
        edits_kept=prepared.observed.edits_kept,
        looked=looked,
    )


def commit_message(prepared: Prepared, outcomes: Mapping[str, Outcome]) -> str:
    succeeded = sum(outcome.state == "succeeded" for outcome in outcomes.values())
    others = len(outcomes) - succeeded
    what = f"{succeeded} step{'' if succeeded == 1 else 's'} applied"
    return (
        f"{what}, {others} not, at {prepared.spec.revision}"
        if others
        else f"{what} at {prepared.spec.revision}"
    )
