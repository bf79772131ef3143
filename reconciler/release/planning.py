"""From decisions about releases to the steps and gates of a plan. Pure."""

from collections.abc import Iterable, Mapping

from reconciler.gates import Gates, release_id
from reconciler.plan import Action, Step
from reconciler.release import rules
from reconciler.release.current import Release
from reconciler.release.decide import Decision
from reconciler.release.facts import Common, Next
from reconciler.release.told import tell_environments, why
from reconciler.spec.model import Spec
from reconciler.status.documents import Recorded, UnitStatus

Pair = tuple[str, str]


def release_steps(decisions: Mapping[Pair, Decision]) -> list[Step]:
    """One step for each unit that gets another release, but a tag of others that is only followed."""
    return [
        Step(release_id(unit, environment), Action.RELEASE, describe(decision.next))
        for (unit, environment), decision in decisions.items()
        if decision.next is not None and decision.next.kind != "external"
    ]


def spec_revisions(spec: Spec, decisions: Mapping[Pair, Decision], recorded: Recorded) -> dict[Pair, str]:
    """By unit and environment, the revision of the spec that its release brings, where the spec says so.

    A release that cannot be used now (its tag is moved or not signed, its repository is away) is still
    what runs there: without its spec, what only that has would seem to have left.
    """
    found: dict[Pair, str] = {}
    for pair, decision in decisions.items():
        if spec.environments[pair[1]].spec_from != "release":
            continue
        release = decision.next or decision.current
        if isinstance(release, Next | Release):
            revision = release.spec_revision
        else:
            known = _recorded(pair, recorded)
            revision = known.release.spec_revision if known is not None else None
        if revision is not None:
            found[pair] = revision
    return found


def _recorded(pair: Pair, recorded: Recorded) -> UnitStatus | None:
    status = recorded.environments.get(f"environments/{pair[1]}")
    return status.units.get(pair[0]) if status is not None else None


def describe(release: Next) -> str:
    """The release in a few words: from what to what, and why."""
    before = f"{release.previous_tag} -> " if release.previous_tag else ""
    origin = f" from {release.promoted_from}" if release.promoted_from and release.kind == "promotion" else ""
    what = f"{before}{release.tag}{origin} at {release.commit[:12]}"
    return f"{release.kind}: {what} ({release.triggered_by})"


def gates_of(
    spec: Spec,
    decisions: Mapping[Pair, Decision],
    recorded: Recorded,
    common: Common,
) -> Gates:
    """What may not happen in this pass, and what is told of the environments."""
    told = tell_environments(spec, decisions, common.holds, common.control)
    closed = {
        name: wait.message
        for name, environment in spec.environments.items()
        if (wait := rules.window(environment, common)) is not None
    }
    frozen = common.control.frozen
    return Gates(
        told={f"environments/{name}": (each.reason, each.message) for name, each in told.items()},
        closed=closed,
        exempt=frozenset(_going_back(decisions, recorded)),
        frozen=f"frozen by {why(frozen)}" if frozen is not None else "",
    )


def _going_back(decisions: Mapping[Pair, Decision], recorded: Recorded) -> Iterable[Pair]:
    """Units that return, or have returned and not arrived yet."""
    for pair, decision in decisions.items():
        known = _recorded(pair, recorded)
        coming = decision.next.kind if decision.next is not None else None
        on_its_way = (
            coming is None
            and known is not None
            and known.release.kind == "rollback"
            and known.release.outcome != "succeeded"
        )
        if coming == "rollback" or on_its_way:
            yield pair
