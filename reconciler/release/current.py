"""The release that a unit runs in an environment: the recorded one, else the highest. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from semver import Version

from reconciler.errors import TrueupError, UnknownRevision
from reconciler.git.objects import Tag
from reconciler.release.versions import ENVIRONMENT, highest_release, read_trailers, releases_of, tag_name
from reconciler.spec.model import Unit


@dataclass(frozen=True, slots=True)
class Release:
    """A tag of a unit, the commit it stands for, and the spec revision it runs with.

    `spec_revision` is a commit id of the spec repository; None where the tag does not name one.
    """

    tag: str
    commit: str
    spec_revision: str | None = None

    def __str__(self) -> str:
        return f"{self.tag}@sha1:{self.commit}"


class TagMoved(TrueupError):
    """A recorded release's tag now stands for another commit. Never followed silently."""

    reason = "TagMoved"


class TagDeleted(UnknownRevision):
    """A recorded release's tag is no longer in the repository."""


class NoReleaseYet(TrueupError):
    """The unit has no release tag for the environment: somebody has to make the first one."""

    reason = "AwaitingRelease"


ReleaseProblem = TagMoved | TagDeleted | NoReleaseYet
"""Given back, not raised: it concerns one unit in one environment, and travels with it."""


def current_release(
    unit: Unit, environment: str, recorded: Release | None, tags: Sequence[Tag]
) -> Release | ReleaseProblem:
    """What `unit` runs in `environment`, given the tags that its repository has now.

    A recorded release stays until another one is recorded, whatever tags appear; its tag must still be
    there, at the same commit.
    """
    if recorded is not None:
        return _still_there(unit, environment, recorded, tags)
    tag = highest_release(tags, unit=unit, environment=environment)
    if tag is None:
        return _none_yet(unit, environment, tags)
    return Release(tag.name, tag.commit, read_trailers(tag).spec_revision)


def _still_there(
    unit: Unit, environment: str, recorded: Release, tags: Sequence[Tag]
) -> Release | ReleaseProblem:
    found = next((tag for tag in tags if tag.name == recorded.tag), None)
    where = f"{unit.name} in {environment}"
    target = f"origin {recorded.commit}:refs/tags/{recorded.tag}"
    if found is None:
        return TagDeleted(
            f"{where}: the tag {recorded.tag} of the recorded release is gone from the repository",
            hint=f"put it back with `git push {target}`",
        )
    if found.commit != recorded.commit:
        return TagMoved(
            f"{where}: the tag {recorded.tag} was moved from {recorded.commit[:12]} to {found.commit[:12]} "
            "after its release was recorded",
            hint=f"put it back with `git push --force {target}`, and give the other commit a tag of its own",
        )
    return recorded


def _none_yet(unit: Unit, environment: str, tags: Sequence[Tag]) -> NoReleaseYet:
    releases = releases_of(tags, unit)
    if releases:
        # The others are for other environments, so this one has to say which it is for.
        name, trailer = tag_name(releases[-1][0].bump_minor(), unit), f" -m '{ENVIRONMENT}: {environment}'"
    else:
        name, trailer = tag_name(Version(0, 1, 0), unit), ""
    return NoReleaseYet(
        f"{unit.name} has no release for {environment} yet",
        hint=f"make one: `git tag -a {name} -m 'Release'{trailer} && git push origin {name}`",
    )
