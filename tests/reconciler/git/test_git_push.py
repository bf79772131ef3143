"""Threat 40: writing to a remote by compare-and-swap; a lost race is neither a refusal nor silence."""

from pathlib import Path

import pytest
import trio

from reconciler.errors import GitRefused, GitUnavailable, UnknownRevision
from reconciler.git.mirror import Mirror
from reconciler.git.process import GitResult
from reconciler.git.pushes import pushed
from tests.gitrepo import Executable, GitRepo, Link
from tests.reconciler.git.conftest import Calls

STATUS = "refs/heads/trueup/status"


async def commit_on(
    mirror: Mirror, base: str | None, changes: dict[str, bytes | None], message: str = "m\n"
) -> str:
    tree = await mirror.write_tree(base, changes)
    return await mirror.write_commit(tree, [base] if base else [], message)


async def test_a_tree_is_changed_in_one_process_and_no_ref_moves(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    base = remote.commit(
        {
            "keep/a": "a",
            "keep/run": Executable("#!"),
            "drop/b": "b",
            "link": Link("keep/a"),
            "run": Executable("old"),
        }
    )
    before = await mirror.refresh()
    await mirror.tree(base)
    git_calls()
    changes: dict[str, bytes | None] = {f"new/{n}.yaml": b"%d\n" % n for n in range(500)}
    changes |= {"drop/b": None, "never/was": None, "run": b"new", "link": b"a file now", "größe": b"\x00\xff"}
    tree = await mirror.write_tree(base, changes)
    assert [call[0] for call in git_calls()] == ["unpack-objects"]
    commit = await mirror.write_commit(
        tree, [base], "Change\n\nTrailer: yes\n", author="A Person <a@example.org>"
    )
    assert await mirror.refs() == before
    assert GitRepo(mirror.path).refs() == remote.refs()
    here = GitRepo(mirror.path)
    expected = {f"new/{n}.yaml": b"%d\n" % n for n in range(500)}
    expected |= {
        "keep/a": b"a",
        "keep/run": b"#!",
        "run": b"new",
        "link": b"a file now",
        "größe": b"\x00\xff",
    }
    assert here.files(commit) == expected
    assert here.git("ls-tree", commit, "run", "link").split()[::4] == ["100644", "100755"]
    read = await mirror.commit_object(commit)
    assert (read.tree, read.parents, read.author) == (tree, (base,), "A Person <a@example.org>")
    assert read.message == "Change\n\nTrailer: yes\n"
    assert here.git("fsck", "--strict", "--no-dangling") == ""


async def test_an_empty_tree_and_an_unchanged_one(remote: GitRepo, mirror: Mirror) -> None:
    base = remote.commit({"a": "1"})
    await mirror.refresh()
    assert await mirror.write_tree(None, {}) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert await mirror.write_tree(base, {"a": None}) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert await mirror.write_tree(base, {}) == remote.resolve(f"{base}^{{tree}}")


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", ".git/config", "a\nb", "a/file/below", "a", "\udcff", "a//b"]
)
async def test_a_path_that_cannot_be_placed_is_not_written(
    path: str, remote: GitRepo, mirror: Mirror
) -> None:
    base = remote.commit({"a/file": "1"})
    await mirror.refresh()
    with pytest.raises(GitRefused):
        await mirror.write_tree(base, {path: b"x"})
    with pytest.raises(UnknownRevision):
        await mirror.write_tree("f" * 40, {"x": b"x"})


async def test_a_push_takes_effect_only_from_the_expected_value(remote: GitRepo, mirror: Mirror) -> None:
    await mirror.refresh()
    first = await commit_on(mirror, None, {"s": b"1"})
    assert await mirror.push(STATUS, first, expected=None)
    assert remote.resolve(STATUS) == first
    assert (await mirror.refs()).heads == {"trueup/status": first}
    second = await commit_on(mirror, first, {"s": b"2"}, "second\n")
    unrelated = await commit_on(mirror, None, {"s": b"3"}, "unrelated\n")
    assert not await mirror.push(STATUS, unrelated, expected=None)  # create only
    assert not await mirror.push(STATUS, second, expected=unrelated)
    assert remote.resolve(STATUS) == first
    assert await mirror.push(STATUS, second, expected=first)
    assert await mirror.push(STATUS, second, expected=first)  # as after an answer that was lost
    assert await mirror.push(STATUS, unrelated, expected=second)  # the lease is all that guards a ref
    assert remote.resolve(STATUS) == unrelated
    assert await mirror.commit_of("trueup/status") == unrelated


async def test_a_pushed_ref_costs_no_fetch_afterwards(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    await mirror.refresh()
    commit = await commit_on(mirror, None, {"s": b"1"})
    assert await mirror.push(STATUS, commit, expected=None)
    assert await mirror.push("refs/heads/other", commit, expected=None)
    expected = remote.refs()
    git_calls()
    assert (await mirror.refresh()).all == expected
    assert [call[0] for call in git_calls()] == ["ls-remote", "for-each-ref"]


async def test_a_tag_object_can_be_claimed_once(remote: GitRepo, mirror: Mirror) -> None:
    remote.commit({"a": "1"})
    ours = remote.tag("draft", message="ours")
    theirs = remote.tag("v1", message="theirs")
    await mirror.refresh()
    assert not await mirror.push("refs/tags/v1", ours, expected=None)
    assert await mirror.push("refs/tags/v2", ours, expected=None)
    assert (remote.resolve("refs/tags/v1"), remote.resolve("refs/tags/v2")) == (theirs, ours)


async def test_eight_writers_lose_nothing(remote: GitRepo, tmp_path: Path) -> None:
    writers, rounds = 8, 3
    lost = 0
    looked = 0
    all_looked = trio.Event()

    async def write(number: int) -> None:
        nonlocal lost, looked
        mirror = Mirror(remote.url, tmp_path / "writers" / f"{number}.git", allow_local=True)
        for turn in range(rounds):
            while True:
                tip = (await mirror.refresh()).heads.get("trueup/status")
                if turn == 0 and not all_looked.is_set():  # at first everybody builds on the same tip
                    looked += 1
                    if looked == writers:
                        all_looked.set()
                    await all_looked.wait()
                commit = await commit_on(mirror, tip, {f"{number}/{turn}": b"x"}, f"{number}/{turn}\n")
                if await mirror.push(STATUS, commit, expected=tip):
                    break
                lost += 1

    with trio.fail_after(240):
        async with trio.open_nursery() as nursery:
            for number in range(writers):
                nursery.start_soon(write, number)
    assert set(remote.files(STATUS)) == {f"{n}/{turn}" for n in range(writers) for turn in range(rounds)}
    assert len(remote.log(STATUS)) == writers * rounds
    assert lost >= writers - 1


async def test_writers_of_one_mirror_take_turns(remote: GitRepo, mirror: Mirror, tmp_path: Path) -> None:
    await mirror.refresh()
    commits = [await commit_on(mirror, None, {"n": b"%d" % n}, f"{n}\n") for n in range(5)]
    won = []

    async def push(commit: str) -> None:
        if await mirror.push(STATUS, commit, expected=None):
            won.append(commit)

    async with trio.open_nursery() as nursery:
        for commit in commits:
            nursery.start_soon(push, commit)
    assert won == [remote.resolve(STATUS)]
    assert await mirror.commit_of("trueup/status") == won[0]


@pytest.mark.parametrize("hook", ["pre-receive", "update"])
async def test_a_refusal_carries_the_servers_words(hook: str, remote: GitRepo, mirror: Mirror) -> None:
    await mirror.refresh()
    script = remote.path / "hooks" / hook
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho 'protected: ask the release team' >&2\nexit 1\n")
    script.chmod(0o755)
    commit = await commit_on(mirror, None, {"s": b"1"})
    with pytest.raises(GitRefused, match="ask the release team") as refused:
        await mirror.push(STATUS, commit, expected=None)
    assert len(str(refused.value).splitlines()) == 1
    assert remote.resolve(STATUS) is None
    assert (await mirror.refs()).heads == {}


async def test_a_branch_in_the_way_is_no_race(remote: GitRepo, mirror: Mirror) -> None:
    remote.commit({"a": "1"}, branch="trueup")
    await mirror.refresh()
    commit = await commit_on(mirror, None, {"s": b"1"})
    with pytest.raises(GitRefused, match="refs/heads/trueup"):
        await mirror.push(STATUS, commit, expected=None)


async def test_a_server_that_is_busy_with_the_ref_is_a_race(remote: GitRepo, mirror: Mirror) -> None:
    await mirror.refresh()
    commit = await commit_on(mirror, None, {"s": b"1"})
    lock = remote.path / f"{STATUS}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert not await mirror.push(STATUS, commit, expected=None)
    lock.unlink()
    assert await mirror.push(STATUS, commit, expected=None)


async def test_a_remote_that_is_away_is_neither(remote: GitRepo, mirror: Mirror) -> None:
    await mirror.refresh()
    commit = await commit_on(mirror, None, {"s": b"1"})
    remote.path.rename(remote.path.with_name("away"))
    with pytest.raises(GitUnavailable):
        await mirror.push(STATUS, commit, expected=None)


@pytest.mark.parametrize(
    "ref", ["main", "--mirror", "refs/heads/a..b", "refs/heads/x:refs/heads/y", "+refs/heads/x"]
)
async def test_an_odd_ref_is_refused_before_git_is_started(
    ref: str, remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    with pytest.raises(GitRefused):
        await mirror.push(ref, "a" * 40, expected=None)
    with pytest.raises(GitRefused):
        await mirror.push(STATUS, "HEAD", expected=None)
    with pytest.raises(GitRefused):
        await mirror.write_commit("a" * 40, [], "m", author="no address")
    assert git_calls() == []


@pytest.mark.parametrize(
    ("summary", "stderr", "expected"),
    [
        ("[rejected] (stale info)", "", False),
        ("[rejected] (fetch first)", "", False),
        ("[rejected] (already exists)", "", False),
        (f"[remote rejected] (cannot lock ref 'x': is at {'a' * 40} but expected {'b' * 40})", "", False),
        ("[remote rejected] (incorrect old value provided)", "", False),
        ("[remote rejected] (failed to update ref)", "remote: cannot lock ref 'x': reference exists", False),
        ("[remote rejected] (failed to update ref)", "remote: error: disk", GitUnavailable),
        ("[remote failure] (remote failed to report status)", "", GitUnavailable),
        ("[remote rejected] (protected branch hook declined)", "remote: error: GH006: Protected", GitRefused),
        ("[remote rejected] (push declined due to repository rule violations)", "remote: GH013", GitRefused),
        ("[remote rejected] (branch is currently checked out)", "", GitRefused),
    ],
)
def test_what_servers_say(summary: str, stderr: str, expected: bool | type[Exception]) -> None:
    result = GitResult(1, f"To u\n!\t{'c' * 40}:{STATUS}\t{summary}\nDone\n".encode(), stderr)
    if isinstance(expected, bool):
        assert pushed(result, "https://h/r", STATUS) is expected
        return
    with pytest.raises(expected) as raised:
        pushed(result, "https://h/r", STATUS)
    assert stderr.removeprefix("remote: ") in str(raised.value)
