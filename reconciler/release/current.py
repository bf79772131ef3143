"""The release that is recorded for a unit in an environment, and the highest one that there is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from semver import Version

from reconciler.errors import TrueupError, UnknownRevision
from reconciler.git.objects import Tag
from reconciler.release.versions import ENVIRONMENT, highest_release, read_trailers, releases_of, tag_name
from reconciler.spec.model import Environment, Unit


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


class NothingPromotedYet(NoReleaseYet):
    """The same where releases are promoted to: that may be so for long, and is no failure."""


ReleaseProblem = TagMoved | TagDeleted | NoReleaseYet
"""Given back, not raised: it concerns one unit in one environment, and travels with it."""


def newest_release(unit: Unit, environment: str, tags: Sequence[Tag]) -> Release | None:
    """The highest release that was made for the environment; None: there is none."""
    tag = highest_release(tags, unit=unit, environment=environment)
    return Release(tag.name, tag.commit, read_trailers(tag).spec_revision) if tag is not None else None


def still_there(
    unit: Unit, environment: str, recorded: Release, tags: Sequence[Tag]
) -> Release | ReleaseProblem:
    """The recorded release, which stays until another one is recorded; its tag must not have moved."""
    found = next((tag for tag in tags if tag.name == recorded.tag), None)
    where = f"{unit.name} in {environment}"
    target = f"origin {recorded.commit}:refs/tags/{recorded.tag}"
    if found is None:
        return TagDeleted(
            f"{where}: the tag {recorded.tag} of the recorded release is gone from the repository",
            hint=f"put it back from a clone that has it with `git push origin {recorded.tag}`, or else with "
            f"`git push {target}`",
        )
    if found.commit != recorded.commit:
        return TagMoved(
            f"{where}: the tag {recorded.tag} was moved from {recorded.commit[:12]} to {found.commit[:12]} "
            "after its release was recorded",
            hint=f"put it back with `git push --force {target}`, and give the other commit a tag of its own",
        )
    return recorded


def none_yet(unit: Unit, environment: Environment, tags: Sequence[Tag]) -> NoReleaseYet:
    """That nothing was ever released there, and how to change that."""
    name, source = environment.name, environment.release.promote_from
    if source is not None:
        return NothingPromotedYet(
            f"nothing of {unit.name} was promoted to {name} yet",
            hint=f"`trueup promote {source} {name} --confirm deploy`, or take over what runs there with "
            f"`trueup release {name} --tag TAG`",
        )
    releases = releases_of(tags, unit)
    if releases:
        # The others are for other environments, so this one has to say which it is for.
        tag, trailer = tag_name(releases[-1][0].bump_minor(), unit), f" -m '{ENVIRONMENT}: {name}'"
    else:
        tag, trailer = tag_name(Version(0, 1, 0), unit), ""
    return NoReleaseYet(
        f"{unit.name} has no release for {name} yet",
        hint=f"make one: `git tag -a {tag} -m 'Release'{trailer} && git push origin {tag}`",
    )
