"""Threat 8: a mirror that was damaged, or left half-written by a kill, mends itself from the remote."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from reconciler.errors import GitUnavailable, UnknownRevision
from reconciler.git.checkout import checkout
from reconciler.git.failures import GitFailed
from reconciler.git.locks import locked
from reconciler.git.mirror import Mirror
from tests.gitrepo import GitRepo
from tests.reconciler.git.conftest import Calls

PROJECT = Path(__file__).resolve().parents[3]
FILES = {f"d/f{n}": f"content {n}\n" * 50 for n in range(300)}


def packs(mirror: Mirror) -> list[Path]:
    return sorted((mirror.path / "objects" / "pack").glob("*.pack"))


def flip_bytes(mirror: Mirror) -> None:
    (pack,) = packs(mirror)
    raw = bytearray(pack.read_bytes())
    for at in range(len(raw) // 10, len(raw) - 20, max(1, len(raw) // 40)):
        raw[at] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(raw)


def lose_the_pack(mirror: Mirror) -> None:
    for file in (mirror.path / "objects" / "pack").iterdir():
        file.unlink()


def truncate_the_index(mirror: Mirror) -> None:
    (pack,) = packs(mirror)
    index = pack.with_suffix(".idx")
    index.chmod(0o600)
    index.write_bytes(index.read_bytes()[:100])


def empty_the_directory(mirror: Mirror) -> None:
    shutil.rmtree(mirror.path)
    mirror.path.mkdir()


def garble_the_config(mirror: Mirror) -> None:
    (mirror.path / "config").write_text("[core\nnonsense")


def garble_packed_refs(mirror: Mirror) -> None:
    (mirror.path / "packed-refs").write_text("nonsense\n")


def lose_the_objects(mirror: Mirror) -> None:
    shutil.rmtree(mirror.path / "objects")


DAMAGES = [
    flip_bytes,
    lose_the_pack,
    truncate_the_index,
    garble_the_config,
    garble_packed_refs,
    lose_the_objects,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_reading_mends_a_damaged_mirror(
    damage: Callable[[Mirror], None], remote: GitRepo, mirror: Mirror
) -> None:
    first = remote.commit(FILES)
    remote.commit({"more": "1"})
    await mirror.refresh()
    damage(mirror)
    again = Mirror(mirror.url, mirror.path, allow_local=True)
    assert await again.commit_of("main") == remote.log()[0]
    contents = await again.read_files(first, list(FILES), max_size=10_000)
    assert contents == {path: text.encode() for path, text in FILES.items()}
    assert GitRepo(mirror.path).git("fsck", "--full") == ""
    assert sorted(path.name for path in mirror.path.parent.iterdir()) == ["mirror.git", "mirror.git.lock"]


@pytest.mark.parametrize("damage", [*DAMAGES, empty_the_directory])
async def test_a_refresh_that_finds_something_moved_mends_a_damaged_mirror(
    damage: Callable[[Mirror], None], remote: GitRepo, mirror: Mirror
) -> None:
    remote.commit(FILES)
    await mirror.refresh()
    damage(mirror)
    second = remote.commit({"more": "1"})
    refs = await mirror.refresh()
    assert refs.heads == {"main": second}
    assert len(await mirror.read_files(second, [*FILES, "more"], max_size=10_000)) == len(FILES) + 1
    GitRepo(mirror.path).git("rev-list", "--objects", "--all", "--quiet")


@pytest.mark.parametrize("damage", [garble_the_config, lose_the_objects])
async def test_writing_mends_a_damaged_mirror(
    damage: Callable[[Mirror], None], remote: GitRepo, mirror: Mirror
) -> None:
    base = remote.commit(FILES)
    await mirror.refresh()
    await mirror.tree(base)
    damage(mirror)
    commit = await mirror.write_commit(await mirror.write_tree(base, {"more": b"1"}), [base], "m\n")
    assert await mirror.push("refs/heads/main", commit, expected=base)
    assert remote.files() == {path: text.encode() for path, text in FILES.items()} | {"more": b"1"}


@pytest.mark.parametrize("gone", [True, False])
async def test_a_refresh_makes_a_mirror_anew_that_was_deleted(
    gone: bool, remote: GitRepo, mirror: Mirror
) -> None:
    commit = remote.commit(FILES)
    await mirror.refresh()
    shutil.rmtree(mirror.path)
    if not gone:
        mirror.path.write_text("a file in its place")
    assert (await mirror.refresh()).heads == {"main": commit}
    assert len(await mirror.tree(commit)) == len(FILES)


async def test_a_damaged_mirror_under_a_work_tree_is_mended(
    remote: GitRepo, mirror: Mirror, tmp_path: Path
) -> None:
    commit = remote.commit(FILES)
    await mirror.refresh()
    await mirror.tree(commit)  # known already, so that only git itself meets the damage
    flip_bytes(mirror)
    async with checkout(mirror, commit, under=tmp_path / "trees") as path:
        assert {name: (path / name).read_text() for name in FILES} == FILES


async def test_a_damaged_mirror_of_a_remote_that_is_away_stays_unknown(
    remote: GitRepo, mirror: Mirror
) -> None:
    commit = remote.commit(FILES)
    await mirror.refresh()
    lose_the_pack(mirror)
    remote.path.rename(remote.path.with_name("away"))
    again = Mirror(mirror.url, mirror.path, allow_local=True)
    for _ in range(2):
        with pytest.raises(GitUnavailable):  # could not look, which is not the same as not there
            await again.tree(commit)
    remote.path.with_name("away").rename(remote.path)
    assert len(await again.tree(commit)) == len(FILES)


async def test_an_unknown_commit_is_no_damage(remote: GitRepo, mirror: Mirror, git_calls: Calls) -> None:
    remote.commit(FILES)
    await mirror.refresh()
    git_calls()
    with pytest.raises(UnknownRevision):
        await mirror.tree("a" * 40)
    assert "fetch" not in [call[0] for call in git_calls()]


async def test_locks_and_half_packs_of_a_killed_git_are_swept(remote: GitRepo, mirror: Mirror) -> None:
    remote.commit({"a": "1"})
    remote.tag("v1")
    await mirror.refresh()
    leftovers = [
        mirror.path / name
        for name in (
            "HEAD.lock",
            "packed-refs.lock",
            "shallow.lock",
            "config.lock",
            "refs/heads/main.lock",
            "refs/tags/v1.lock",
            "objects/info/commit-graph.lock",
            "objects/pack/tmp_pack_a1b2c3",
            "objects/tmp_objdir-incoming-x/pack/x",
        )
    ]
    for leftover in leftovers:
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_text("")
    second = remote.commit({"a": "2"})
    remote.tag("v1", second)
    refs = await mirror.refresh()
    assert (refs.heads, refs.tags) == ({"main": second}, {"v1": second})
    assert [leftover for leftover in leftovers if leftover.exists()] == []


async def test_a_first_copy_cut_short_leaves_no_half_mirror(
    remote: GitRepo, mirror: Mirror, tmp_path: Path
) -> None:
    commit = remote.commit({f"f{n}": os.urandom(20_000) for n in range(300)})
    for _ in range(3):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mirror.refresh)
                new = mirror.path.with_name("mirror.git.new")
                while not (new / "objects").is_dir() and not mirror.path.exists():
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert not new.exists()
        if mirror.path.exists():
            assert GitRepo(mirror.path).git("fsck", "--full") == ""
    assert (await mirror.refresh()).heads == {"main": commit}


async def test_killed_at_any_of_its_gits_the_next_process_carries_on(
    remote: GitRepo, mirror: Mirror, tmp_path: Path
) -> None:
    """SIGKILL while the n-th git runs, first copy and later fetch; git lives on and still holds our lock."""
    program = (
        "import trio\nfrom pathlib import Path\nfrom reconciler.git.mirror import Mirror\n"
        f"mirror = Mirror({mirror.url!r}, Path({str(mirror.path)!r}), allow_local=True)\n"
        "trio.run(mirror.refresh)\n"
    )
    killed = 0
    for nth in range(1, 11):
        commit = remote.commit({f"f{n}": os.urandom(20_000) for n in range(50)})
        count, spy = tmp_path / f"count-{nth}", tmp_path / f"spy-{nth}"
        spy.mkdir()
        (spy / "git").write_text(
            f"#!/bin/sh\necho >> {count}\n"
            f'[ "$(wc -l < {count})" -eq {(nth - 1) % 5 + 1} ] && kill -9 $PPID\n'
            f'exec {shutil.which("git")} "$@"\n'
        )
        (spy / "git").chmod(0o755)
        if nth % 5 == 1:
            shutil.rmtree(mirror.path, ignore_errors=True)
        environment = os.environ | {"PATH": f"{spy}:{os.environ['PATH']}"}
        done = await trio.run_process(
            [sys.executable, "-c", program], env=environment, check=False, cwd=PROJECT
        )
        assert done.returncode in (0, -signal.SIGKILL)
        killed += done.returncode != 0
        assert (await mirror.refresh()).heads == {"main": commit}
        assert len(await mirror.tree(commit)) == 50
        GitRepo(mirror.path).git("rev-list", "--objects", "--all", "--quiet")
    assert killed >= 8


async def test_a_lock_that_is_never_let_go_is_named(remote: GitRepo, mirror: Mirror, tmp_path: Path) -> None:
    remote.commit({"a": "1"})
    impatient = Mirror(mirror.url, mirror.path, allow_local=True, deadline=0.2)
    mirror.path.parent.mkdir()
    async with locked(mirror.path.with_name("mirror.git.lock"), wait=1):
        with pytest.raises(GitUnavailable, match=r"mirror\.git\.lock"):
            await impatient.refresh()
    await mirror.refresh()


async def test_many_readers_and_a_fetch_at_once(remote: GitRepo, mirror: Mirror) -> None:
    commits = [remote.commit({"a": f"{n}", **FILES}) for n in range(6)]
    await mirror.refresh()
    other = Mirror(mirror.url, mirror.path, allow_local=True)
    seen: list[bytes | None] = []

    async def read(reader: Mirror, commit: str) -> None:
        seen.append(await reader.read_file(commit, "a", max_size=9))

    async with trio.open_nursery() as nursery:
        for commit in commits:
            nursery.start_soon(read, mirror, commit)
            nursery.start_soon(read, other, commit)
        remote.commit({"a": "last"})
        nursery.start_soon(mirror.refresh)
        nursery.start_soon(other.refresh)
    assert sorted(text or b"" for text in seen) == sorted(b"%d" % n for n in range(6) for _ in (1, 2))


async def test_a_mirror_that_lives_long_is_repacked(remote: GitRepo, mirror: Mirror) -> None:
    commits = [remote.commit({"a": "0"})]
    await mirror.refresh()
    GitRepo(mirror.path).git("config", "fetch.unpackLimit", "1")  # each fetch leaves a pack, as large ones do
    for n in range(1, 60):
        commits.append(remote.commit({"a": f"{n}"}))
        await mirror.refresh()
    assert len(packs(mirror)) < 50
    assert [await mirror.read_file(commit, "a", max_size=9) for commit in commits] == [
        b"%d" % n for n in range(60)
    ]


async def test_a_state_directory_that_cannot_be_used_is_named(remote: GitRepo, tmp_path: Path) -> None:
    commit = remote.commit({"a": "1"})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GitFailed, match=r"file.*: .*state directory"):
        await Mirror(remote.url, tmp_path / "file" / "m.git", allow_local=True).refresh()
    mirror = Mirror(remote.url, tmp_path / "m.git", allow_local=True)
    await mirror.refresh()
    with pytest.raises(GitFailed, match=r"file.*: .*state directory"):
        async with checkout(mirror, commit, under=tmp_path / "file"):
            raise AssertionError("placed")


async def test_nothing_is_written_before_the_first_refresh(mirror: Mirror) -> None:
    with pytest.raises(GitUnavailable, match="not been fetched"):
        await mirror.write_tree(None, {"a": b"1"})
    with pytest.raises(GitUnavailable, match="not been fetched"):
        await mirror.push("refs/heads/x", "a" * 40, expected=None)
