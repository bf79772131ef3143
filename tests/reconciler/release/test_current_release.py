"""The release a unit runs: the recorded one wins, and its tag may neither move nor go."""

import pytest

from reconciler.git.objects import Tag
from reconciler.release.current import (
    NoReleaseYet,
    Release,
    TagDeleted,
    TagMoved,
    newest_release,
    none_yet,
    still_there,
)
from reconciler.spec.model import Environment, Unit

UNIT = Unit(name="infra", repository="infra")
PLATFORM = Unit(name="infra/platform", repository="infra", tag_prefix="platform/")
OLD, NEW, SPEC = "a" * 40, "b" * 40, "5" * 40


def plain(name: str, commit: str = OLD) -> Tag:
    return Tag(name=name, commit=commit, annotated=False, trailers={})


def test_none_recorded_means_the_highest() -> None:
    found = newest_release(UNIT, "staging", [plain("v1.0.0"), plain("v1.1.0", NEW)])
    assert found == Release("v1.1.0", NEW)
    assert str(found) == f"v1.1.0@sha1:{NEW}"


def test_the_spec_revision_comes_from_the_tag() -> None:
    trailers = {"Environment": "production", "Spec": SPEC}
    tag = Tag(name="v1.0.0", commit=OLD, annotated=True, trailers=trailers)
    assert newest_release(UNIT, "production", [tag]) == Release("v1.0.0", OLD, SPEC)


def test_the_recorded_release_stays_when_a_higher_tag_appears() -> None:
    recorded = Release("v1.0.0", OLD, SPEC)
    tags = [plain("v1.0.0"), plain("v2.0.0", NEW)]
    assert still_there(UNIT, "production", recorded, tags) == recorded


def test_a_moved_tag_is_a_problem_and_not_another_release() -> None:
    found = still_there(UNIT, "production", Release("v1.0.0", OLD), [plain("v1.0.0", NEW), plain("v2.0.0")])
    assert isinstance(found, TagMoved)
    assert found.reason == "TagMoved"
    assert not found.retryable
    for part in ("infra in production", "v1.0.0", OLD[:12], NEW[:12], f"{OLD}:refs/tags/v1.0.0"):
        assert part in str(found)


def test_a_deleted_tag_is_a_problem_and_not_another_release() -> None:
    found = still_there(UNIT, "production", Release("v1.0.0", OLD), [plain("v0.9.0"), plain("v2.0.0")])
    assert isinstance(found, TagDeleted)
    assert found.reason == "RevisionNotFound"
    assert f"git push origin {OLD}:refs/tags/v1.0.0" in str(found)


@pytest.mark.parametrize(
    ("unit", "tags", "command"),
    [
        (UNIT, [], "git tag -a v0.1.0 -m 'Release' && git push origin v0.1.0"),
        (PLATFORM, [plain("v3.0.0")], "git tag -a platform/v0.1.0 -m 'Release' &&"),
        (
            UNIT,
            [Tag(name="v1.2.3", commit=OLD, annotated=True, trailers={"Environment": "staging"})],
            "git tag -a v1.3.0 -m 'Release' -m 'Environment: production' &&",
        ),
    ],
)
def test_no_release_yet_says_how_to_make_one(unit: Unit, tags: list[Tag], command: str) -> None:
    found = none_yet(unit, Environment(name="production"), tags)
    assert isinstance(found, NoReleaseYet)
    assert found.reason == "AwaitingRelease"
    assert command in str(found)
    assert "\n" not in str(found)
