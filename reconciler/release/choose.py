"""Which release an environment should run now, by its policy. Pure.

An environment that is promoted to runs what was recorded for it: a tag pushed by anyone deploys nothing
there. An environment that nothing is promoted to follows the tags that are made for it, forwards only.
"""

from collections.abc import Sequence

from reconciler.git.objects import Tag
from reconciler.release.current import Release, ReleaseProblem, current_release
from reconciler.release.versions import parse_version
from reconciler.spec.model import Environment, Unit


def choose_release(
    unit: Unit,
    environment: Environment,
    recorded: Release | None,
    tags: Sequence[Tag],
    *,
    held: bool = False,
) -> Release | ReleaseProblem:
    """The release of a unit in an environment, or why there is none to be had.

    `held`: the recorded one stays, whatever tags there are.
    """
    if recorded is None or held or environment.release.promote_from is not None:
        return current_release(unit, environment.name, recorded, tags)
    newest = current_release(unit, environment.name, None, tags)
    if isinstance(newest, Release) and _is_newer(newest.tag, recorded.tag, unit):
        return newest
    # Not newer: the recorded one, whose tag must not have moved or vanished meanwhile.
    return current_release(unit, environment.name, recorded, tags)


def _is_newer(tag: str, than: str, unit: Unit) -> bool:
    new, old = parse_version(tag, unit), parse_version(than, unit)
    return new is not None and (old is None or new > old)
