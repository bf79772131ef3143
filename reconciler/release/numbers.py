"""Which number a release gets: the highest anywhere + 1, or the tag that was made for it before. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from reconciler.git.objects import Tag
from reconciler.observation import Setback
from reconciler.release.facts import Next, UnitFacts
from reconciler.release.versions import (
    Bump,
    is_of_unit,
    is_release,
    next_version,
    parse_version,
    read_trailers,
    tag_name,
)

Pair = tuple[str, str]


def made_before(facts: UnitFacts, tags: Iterable[Tag], release: Next) -> Tag | None:
    """The tag of this very release: made by another pass, which was killed before it could record it."""
    for tag in tags:
        said, version = read_trailers(tag), parse_version(tag.name, facts.unit)
        if (
            tag.commit == release.commit
            and tag.name not in facts.recorded_tags
            and said.environment == facts.environment.name
            and (said.promoted_from or "") == release.promoted_from
            and said.decision == release.decision
            and version is not None
            and is_release(version)
            and is_of_unit(facts.unit, said)
        ):
            return tag
    return None


def next_tag(facts: UnitFacts, tags: Iterable[Tag], bump: Bump, *, taken: Collection[str] = ()) -> str:
    """The name with the highest number anywhere + 1: of every tag with the unit's prefix, for whatever
    environment, of every release that was ever recorded, and of those `taken` by others of this pass."""
    names = {*(tag.name for tag in tags), *facts.recorded_tags, *taken}
    versions = [version for name in names if (version := parse_version(name, facts.unit)) is not None]
    return tag_name(next_version(versions, bump), facts.unit)


def numbered(planned: Mapping[Pair, Next], facts: Mapping[Pair, UnitFacts]) -> dict[Pair, Next]:
    """The releases of one pass, of which no two have the same number: a plan shows what will be there."""
    taken: dict[str, list[str]] = {}
    found: dict[Pair, Next] = {}
    for pair, release in sorted(planned.items()):
        known = facts[pair]
        names = taken.setdefault(known.unit.repository, [])
        if release.cut and names and not isinstance(known.tags, Setback):
            release = replace(release, tag=next_tag(known, known.tags, release.bump, taken=names))
        if release.cut:
            names.append(release.tag)
        found[pair] = release
    return found
