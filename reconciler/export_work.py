"""What an export of secrets to a target has to do, from what is wanted, recorded and found. Pure.

Names and times alone are known of either end: see `reconciler/github/export_work.py`.
"""

from collections.abc import Mapping

from reconciler.desired_model import DesiredTarget
from reconciler.github.export_work import Found, Route, State, due, judge, told
from reconciler.github.scopes import EnvironmentScope, RepositoryScope
from reconciler.observation import Absent, Observation, Present
from reconciler.spec.model import GithubActionsSettings
from reconciler.status.documents import TargetStatus


def origin_of(desired: DesiredTarget) -> GithubActionsSettings:
    """The source whose repository exports what this target gets."""
    assert desired.origin is not None
    return desired.origin


def route_of(desired: DesiredTarget) -> Route:
    origin, target = origin_of(desired), desired.target
    assert target.repo is not None  # the spec refuses another target of such a source
    scope = (
        RepositoryScope(target.repo)
        if target.environment is None
        else EnvironmentScope(target.repo, target.environment)
    )
    return Route(origin.repo, scope, origin.export_event)


def wanted_of(desired: DesiredTarget) -> dict[str, str]:
    """By name in the target the name in the source, as GitHub stores them."""
    return {key.name.upper(): key.key.upper() for key in desired.target.keys}


def states_at(desired: DesiredTarget, status: TargetStatus | None, found: Found) -> dict[str, State]:
    """What is the matter with each name. What we had exported from another secret is out of date."""
    owned = _owned(desired, status)
    known = status.inputs.keyed if status is not None else {}
    states = judge(wanted_of(desired), found, owned=owned, org_fallback=origin_of(desired).org_fallback)
    for name, state in states.items():
        if state is State.REPOSITORY and name in owned and known.get(name) != desired.inputs.keyed[name]:
            states[name] = State.OUTDATED
    return states


def to_export(
    desired: DesiredTarget, status: TargetStatus | None, found: Found, *, everything: bool
) -> dict[str, str]:
    """The names to ask for, with those in the source: of a group all of it, or none."""
    wanted = wanted_of(desired)
    if everything:
        return wanted
    names = due(states_at(desired, status, found), desired.target.groups)
    return {name: wanted[name] for name in names}


def seen_at(
    desired: DesiredTarget, status: TargetStatus | None, found: Found, known: Observation
) -> Observation:
    """What was recorded, with how the target and the source differ from it now."""
    differs = told(states_at(desired, status, found), origin_of(desired).repo)
    match known:
        case Absent(why) if differs:
            return Absent(f"{why}: {differs}")
        case Present(hash, inputs):
            return Present(hash, inputs, drift=differs)
    return known


def _owned(desired: DesiredTarget, status: TargetStatus | None) -> Mapping[str, str]:
    if status is None or status.inputs.public.get("place") != desired.inputs.public["place"]:
        return {}
    return status.owned
