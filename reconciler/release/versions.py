"""Which tags are releases of a unit, in which order, and which environment they are for. Pure.

A release tag is `<the unit's prefix>v<semantic version>`, such as `v1.2.3` or `platform/v1.2.3`; tags
without the `v` are understood too. Order is that of semver.org, section 11. Annotated tags made by
trueup carry trailers; a lightweight tag, and one that somebody else made, has none of them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from semver import Version

from reconciler.git.objects import Tag
from reconciler.spec.model import Unit

ENVIRONMENT = "Environment"
UNIT = "Unit"
SPEC = "Spec"
PROMOTED_FROM = "Promoted-From"
TRIGGERED_BY = "Triggered-By"
DECISION = "Decision"

Bump = Literal["patch", "minor", "major"]

MAX_NAME = 255
"""Characters of a tag's name that is looked at; git's files allow no more."""

_REVISION = re.compile(r"(?:.*@sha1:)?(?P<commit>[0-9a-f]{40})")


@dataclass(frozen=True, slots=True)
class Trailers:
    """What a release tag says about itself. None: it does not say."""

    environment: str | None = None
    unit: str | None = None
    spec_revision: str | None = None
    """Commit id of the spec that the release runs with."""
    promoted_from: str | None = None
    """The tag it was promoted from."""
    triggered_by: str | None = None
    """Who or what asked for it: a pass says so in every tag that it makes."""
    decision: int = 0
    """The number of the operator's record that it answers; 0: it does not say."""


def parse_version(name: str, unit: Unit) -> Version | None:
    """The version in a tag's name; None: not a release tag of this unit."""
    if len(name) > MAX_NAME or not name.startswith(unit.tag_prefix):
        return None
    text = name[len(unit.tag_prefix) :].removeprefix("v")
    try:
        return Version.parse(text)
    except ValueError:
        return None


def tag_name(version: Version, unit: Unit) -> str:
    """The name that a new release of the unit gets."""
    return f"{unit.tag_prefix}v{version}"


def next_version(taken: Iterable[Version], bump: Bump) -> Version:
    """The number after the highest that any tag of the unit has, whoever made it and for whatever.

    A pre-release takes its number too: after 1.4.0-rc.1 comes 1.4.1, so that 1.4.0 stays what it is
    a candidate of. So a number never comes twice, and never goes backwards.
    """
    cores = [(each.major, each.minor, each.patch) for each in taken]
    if not cores:
        return Version(1) if bump == "major" else Version(0, 1)
    major, minor, patch = max(cores)
    match bump:
        case "major":
            return Version(major + 1)
        case "minor":
            return Version(major, minor + 1)
        case "patch":
            return Version(major, minor, patch + 1)


def is_release(version: Version) -> bool:
    """Whether it is a version that environments run: a pre-release such as `1.2.0-rc.1` is not."""
    return version.prerelease is None


def read_trailers(tag: Tag) -> Trailers:
    """The trailers of a tag; names count in any case, as git has it."""
    if not tag.annotated:
        return Trailers()
    given = {name.lower(): value.strip() for name, value in tag.trailers.items()}
    spec = _REVISION.fullmatch(given.get(SPEC.lower(), ""))
    return Trailers(
        environment=given.get(ENVIRONMENT.lower()) or None,
        unit=given.get(UNIT.lower()) or None,
        spec_revision=spec["commit"] if spec is not None else None,
        promoted_from=given.get(PROMOTED_FROM.lower()) or None,
        triggered_by=given.get(TRIGGERED_BY.lower()) or None,
        decision=int(number) if (number := given.get(DECISION.lower(), "")).isdecimal() else 0,
    )


def releases_of(tags: Iterable[Tag], unit: Unit) -> list[tuple[Version, Tag]]:
    """The unit's release tags, lowest first."""
    found = [
        (version, tag)
        for tag in tags
        if (version := parse_version(tag.name, unit)) is not None
        and is_release(version)
        and is_of_unit(unit, read_trailers(tag))
    ]
    # Versions that differ in their build metadata alone are equal; the name keeps the order stable.
    return sorted(found, key=lambda entry: (entry[0], entry[1].name))


def highest_release(tags: Iterable[Tag], *, unit: Unit, environment: str) -> Tag | None:
    """The highest release made for the environment.

    Where no release tag of the unit names an environment, the repository was not yet released by
    trueup, and its highest release is meant. None: there is no such tag.
    """
    releases = releases_of(tags, unit)
    meant = {tag.name: read_trailers(tag).environment for _, tag in releases}
    if any(name is not None for name in meant.values()):
        releases = [entry for entry in releases if meant[entry[1].name] == environment]
    return releases[-1][1] if releases else None


def is_of_unit(unit: Unit, trailers: Trailers) -> bool:
    """A trailer names the unit whole, or without its repository; no trailer: the prefix has decided."""
    return trailers.unit in (None, unit.name, unit.name.removeprefix(f"{unit.repository}/"))
