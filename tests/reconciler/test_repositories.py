"""The mirrors of a state directory: one look a pass, errors included, and digests that are kept."""

from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from reconciler.errors import GitRefused, GitUnavailable
from reconciler.git.process import GitOptions
from reconciler.repositories import KEPT_COMMITS, Repositories
from tests.gitrepo import GitRepo


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    (tmp_path / "mirrors").mkdir()
    return Repositories(tmp_path / "mirrors", GitOptions(allow_local=True))


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.create(tmp_path / "remote.git")


async def test_one_look_a_pass_however_many_ask(repositories: Repositories, remote: GitRepo) -> None:
    first = remote.commit({"a": "1"})
    found: list[str] = []

    async def look() -> None:
        found.append((await repositories.refresh(remote.url)).heads["main"])

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(look)
    second = remote.commit({"a": "2"})
    await look()
    assert found == [first] * 6
    repositories.begin_pass()
    await look()
    assert found[-1] == second


async def test_a_repository_that_is_away_is_asked_once_a_pass(
    repositories: Repositories, remote: GitRepo
) -> None:
    remote.commit({"a": "1"})
    away = remote.path.rename(remote.path.with_name("away.git"))
    errors: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(GitUnavailable) as caught:
            await repositories.refresh(remote.url)
        errors.append(caught.value)
        if len(errors) == 1:
            away.rename(remote.path)
    # Both users of the repository get the same answer in one pass; the next pass looks again.
    assert errors[0] is errors[1]
    repositories.begin_pass()
    assert "main" in (await repositories.refresh(remote.url)).heads


async def test_a_force_push_is_said_once(repositories: Repositories, remote: GitRepo) -> None:
    first = remote.commit({"a": "1"})
    remote.commit({"a": "2"})
    await repositories.refresh(remote.url)
    remote.git("update-ref", "refs/heads/main", first)
    said = []
    for _ in range(2):
        repositories.begin_pass()
        with capture_logs() as logs:
            await repositories.refresh(remote.url)
        said += [(each["log_level"], each["branch"]) for each in logs]
    assert said == [("warning", "main")]


def test_a_url_that_may_not_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GitRefused):
        Repositories(tmp_path, GitOptions()).mirror("ext::sh -c id")
    with pytest.raises(GitRefused):
        Repositories(tmp_path, GitOptions()).mirror(str(tmp_path))


async def test_the_paths_of_the_last_commits_are_kept(repositories: Repositories, remote: GitRepo) -> None:
    commits = [remote.commit({"a": str(number)}) for number in range(KEPT_COMMITS + 1)]
    await repositories.refresh(remote.url)
    kept = [await repositories.commit_paths(remote.url, commit) for commit in commits]
    assert await repositories.commit_paths(remote.url, commits[-1]) is kept[-1]
    assert await repositories.commit_paths(remote.url, commits[0]) is not kept[0]
