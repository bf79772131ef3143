"""Which release an environment should run, with tags as a real repository has them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from reconciler.git.mirror import Mirror
from reconciler.git.objects import Tag
from reconciler.release.choose import choose_release
from reconciler.release.current import NoReleaseYet, Release, TagDeleted, TagMoved
from reconciler.spec.model import Environment, ReleasePolicy, Unit
from tests.gitrepo import GitRepo

UNIT = Unit(name="infra", repository="infra")
STAGING = Environment(name="staging", release=ReleasePolicy(from_branch="main", cut="external"))
PRODUCTION = Environment(name="production", release=ReleasePolicy(promote_from="staging"))

Named = Mapping[str, Mapping[str, str] | None]
"""Tag names, each on a commit of its own, with trailers; None: a lightweight tag."""


async def tags_of(tmp_path: Path, named: Named) -> tuple[dict[str, str], Sequence[Tag]]:
    """Commits by tag name, and the tags as the mirror reads them."""
    remote = GitRepo.create(tmp_path / "remote.git")
    commits = {}
    for name, trailers in named.items():
        commits[name] = remote.commit({"file": name})
        if trailers is None:
            remote.tag(name, commits[name], message=None)
        else:
            remote.tag(name, commits[name], trailers=trailers)
    mirror = Mirror(remote.url, tmp_path / "mirror.git", allow_local=True)
    await mirror.refresh()
    return commits, await mirror.tags()


@pytest.mark.parametrize(
    ("named", "environment", "expected"),
    [
        ({"v1.9.0": None, "v1.10.0": {}, "v2.0.0-rc.1": {}, "nightly": None}, STAGING, "v1.10.0"),
        ({"v1.2.3": {"Environment": "staging"}, "v1.3.0": {"Environment": "production"}}, STAGING, "v1.2.3"),
        (
            {"v1.2.3": {"Environment": "staging"}, "v1.3.0": {"Environment": "production"}},
            PRODUCTION,
            "v1.3.0",
        ),
        ({"v1.0.0": {"Signed-off-by": "A <a@example.org>"}, "v0.9.0": None}, PRODUCTION, "v1.0.0"),
    ],
)
async def test_the_first_release(
    tmp_path: Path, named: Named, environment: Environment, expected: str
) -> None:
    commits, tags = await tags_of(tmp_path, named)
    assert choose_release(UNIT, environment, None, tags) == Release(expected, commits[expected])


async def test_the_command_that_the_hint_gives_makes_the_release(tmp_path: Path) -> None:
    _, tags = await tags_of(tmp_path, {"v1.2.3": {"Environment": "staging"}})
    found = choose_release(UNIT, PRODUCTION, None, tags)
    assert isinstance(found, NoReleaseYet)
    assert "git tag -a v1.3.0 -m 'Release' -m 'Environment: production'" in str(found)
    remote = GitRepo(tmp_path / "remote.git")
    remote.git("tag", "-a", "v1.3.0", "-m", "Release", "-m", "Environment: production", "main")
    mirror = Mirror(remote.url, tmp_path / "mirror.git", allow_local=True)
    await mirror.refresh()
    after = choose_release(UNIT, PRODUCTION, None, await mirror.tags())
    assert isinstance(after, Release)
    assert after.tag == "v1.3.0"


async def test_an_environment_that_follows_tags_goes_forwards_only(tmp_path: Path) -> None:
    commits, tags = await tags_of(tmp_path, {"v1.0.0": {}, "v1.1.0": {}})
    newer = Release("v1.1.0", commits["v1.1.0"])
    assert choose_release(UNIT, STAGING, Release("v1.0.0", commits["v1.0.0"]), tags) == newer
    assert choose_release(UNIT, STAGING, newer, [tag for tag in tags if tag.name != "v1.0.0"]) == newer
    gone = choose_release(UNIT, STAGING, newer, [tag for tag in tags if tag.name != "v1.1.0"])
    assert isinstance(gone, TagDeleted), "a vanished tag does not lead back to an older one"


async def test_an_environment_that_is_promoted_to_ignores_new_tags(tmp_path: Path) -> None:
    commits, tags = await tags_of(tmp_path, {"v1.0.0": {}, "v9.0.0": {"Environment": "production"}})
    recorded = Release("v1.0.0", commits["v1.0.0"], "5" * 40)
    assert choose_release(UNIT, PRODUCTION, recorded, tags) == recorded
    moved = choose_release(UNIT, PRODUCTION, Release("v1.0.0", "a" * 40), tags)
    assert isinstance(moved, TagMoved)
