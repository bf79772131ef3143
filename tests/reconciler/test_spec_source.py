"""The spec of a repository: its head, what it includes, and the last good revision behind a broken head."""

from pathlib import Path

import pytest
import trio

from reconciler.errors import SpecInvalid, UnknownRevision
from reconciler.git.mirror import Mirror
from reconciler.spec_source import SpecAt, SpecCache, read_spec
from tests.gitrepo import GitRepo

GOOD = "version: 1\nenvironments: {staging: {}}\n"
BROKEN = "version: 1\nenvironments: [\n"


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.create(tmp_path / "spec.git")


async def look(remote: GitRepo, last_good: str | None = None, cache: SpecCache | None = None) -> SpecAt:
    mirror = Mirror(remote.url, remote.path.parent / "mirror.git", allow_local=True)
    await mirror.refresh()
    return await read_spec(mirror, "main", last_good=last_good, cache=cache)


async def test_the_head_with_what_it_includes(remote: GitRepo) -> None:
    files = {
        "trueup.yaml": GOOD + "include: [more/*.yaml]\n",
        "more/a.yaml": "environments: {production: {}}\n",
    }
    commit = remote.commit(files)
    found = await look(remote)
    assert sorted(found.spec.environments) == ["production", "staging"]
    assert (found.commit, found.head_commit, found.problems) == (commit, commit, ())
    assert found.revision == f"main@sha1:{commit}"


async def test_a_broken_head_leaves_the_last_good_one_in_force(remote: GitRepo) -> None:
    good = remote.commit({"trueup.yaml": GOOD})
    head = remote.commit({"trueup.yaml": BROKEN})
    found = await look(remote, last_good=good)
    assert (found.commit, found.head_commit) == (good, head)
    assert list(found.spec.environments) == ["staging"]
    assert found.problems


@pytest.mark.parametrize("last_good", [None, "f" * 40])
async def test_a_broken_head_with_nothing_behind_it_is_told_with_its_errors(
    remote: GitRepo, last_good: str | None
) -> None:
    """`f…` stands for a commit that a force-push took away."""
    remote.commit({"trueup.yaml": BROKEN})
    with pytest.raises(SpecInvalid, match=r"trueup\.yaml:"):
        await look(remote, last_good=last_good)


async def test_no_spec_and_no_branch(remote: GitRepo) -> None:
    remote.commit({"README": "nothing here\n"}, branch="other")
    with pytest.raises(UnknownRevision, match="has no branch 'main'"):
        await look(remote)
    remote.commit({"README": "nothing here\n"})
    with pytest.raises(SpecInvalid):
        await look(remote)


async def test_a_commit_is_loaded_once(remote: GitRepo) -> None:
    remote.commit({"trueup.yaml": GOOD})
    cache = SpecCache()
    assert (await look(remote, cache=cache)).spec is (await look(remote, cache=cache)).spec


async def test_the_spec_of_a_release_is_read_once_for_each_tip(remote: GitRepo) -> None:
    service = "services: {web: {repository: app, deploy: {kind: manual}, environments: [staging]}}\n"
    app = GOOD + "repositories: {app: {url: git@host:org/app.git}}\n"
    before = remote.commit({"trueup.yaml": app + "include: [more/*.yaml]\n", "more/a.yaml": service})
    remote.commit({"trueup.yaml": app})
    mirror = Mirror(remote.url, remote.path.parent / "mirror.git", allow_local=True)
    await mirror.refresh()
    cache = SpecCache()
    head = await read_spec(mirror, "main", last_good=None, cache=cache)
    assert head.spec.services == ()
    released = await cache.released(mirror, head, before)
    assert released.spec is not None
    assert [each.id for each in released.spec.services] == ["services/staging/web"]
    assert await cache.released(mirror, head, before) is released
    assert await cache.released(mirror, head, head.commit) is head.used
    with pytest.raises(UnknownRevision):
        await cache.released(mirror, head, "f" * 40)
    remote.commit({"trueup.yaml": GOOD})
    await mirror.refresh()
    later = await read_spec(mirror, "main", last_good=None, cache=cache)
    without = await cache.released(mirror, later, before)
    assert [each.file for each in without.problems] == [f"{before[:12]}:more/a.yaml"]


async def test_several_who_ask_at_once_for_a_new_commit_have_it_loaded_once(remote: GitRepo) -> None:
    commit = remote.commit({"trueup.yaml": GOOD})
    mirror = Mirror(remote.url, remote.path.parent / "mirror.git", allow_local=True)
    await mirror.refresh()
    cache, found = SpecCache(), []

    async def ask() -> None:
        found.append(await cache.load(mirror, commit))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask)
    first, second = found
    assert first is second
