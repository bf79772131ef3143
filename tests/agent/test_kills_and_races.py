"""Kills, cancels and races: each path has its old or its new content, and the next task mends."""

import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest
import trio

from agent.index import STAGING
from agent.wire.messages import AnyMessage
from tests.agent.killed_task import Helper
from tests.agent.syncing import AFTER, BEFORE, Host, Tree, read_tree, sync, synchronise, write_tree
from tests.channelpair import MemoryChannel

OLD: Tree = BEFORE
NEW: Tree = {**AFTER, "taken": b"new here"}
FOREIGN: Tree = {"mine": b"mine", "taken": b"somebody else's", "fresh/mine": b"mine too", "fresh": None}


@pytest.mark.parametrize("then", ["again", "empty"])
def test_killed_at_every_change_of_the_file_system(helper: Helper, tmp_path: Path, then: str) -> None:
    """For each N, killed at the N-th change. Then either the same task again, which must complete; or an
    empty tree, which must remove all that was placed and nothing else."""
    old = write_tree(tmp_path / "old", OLD)
    new = write_tree(tmp_path / "new", NEW)
    empty = tmp_path / "empty"
    empty.mkdir()
    kills = 0
    for number in range(1, 400):
        host = Host(tmp_path / f"host{number}")
        assert sync(old, host) == "SUCCESS"
        write_tree(host.target, FOREIGN)
        killed, _ = helper.run(host.base, new, number)
        if not killed:
            break
        kills += 1
        found = read_tree(host.target)
        for path, content in found.items():
            if not path.startswith(STAGING):
                allowed = [tree[path] for tree in (OLD, NEW, FOREIGN) if path in tree]
                assert content in allowed or content is None, (number, path)
        assert found["mine"] == b"mine"
        assert found["fresh/mine"] == b"mine too"
        assert {"changed", "big", "link", "taken"} <= found.keys(), number
        if then == "again":
            host.allow(commands={"note": ("/bin/sh", "-c", "echo x >> ../ran")})
            assert sync(new, host, after=("note",)) == "SUCCESS"
            assert read_tree(host.target) == read_tree(new) | {"mine": b"mine", "fresh/mine": b"mine too"}
            assert (host.base / "srv/ran").exists(), number
        else:
            assert sync(empty, host, allow_empty=True) == "SUCCESS"
            left = read_tree(host.target)
            assert left.pop("taken", b"somebody else's") == b"somebody else's", number
            assert left == {"mine": b"mine", "fresh/mine": b"mine too", "fresh": None}, number
        shutil.rmtree(host.base)
    assert kills > 30


# --- races ---------------------------------------------------------------------------------------


def test_a_parent_swapped_for_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    """Threat 33: somebody with rights in the target swaps directories for symlinks while we write."""
    outside = write_tree(tmp_path / "outside", {f"f{number}": b"theirs" for number in range(40)})
    outside_before = read_tree(outside)
    host = Host(tmp_path / "host")
    trees = [
        write_tree(
            tmp_path / f"source{turn}",
            {f"d/f{number}": f"{turn} {number}".encode() for number in range(40)} | {"d/sub/x": b"%d" % turn},
        )
        for turn in range(2)
    ]
    assert sync(trees[0], host) == "SUCCESS"
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        folder, aside = host.target / "d", host.target / "aside"
        while not stop.is_set():
            try:
                folder.rename(aside)
                folder.symlink_to(outside)
                folder.unlink()
                aside.rename(folder)
            except OSError:
                # A task took something away or put it back: start over from whatever there is.
                if folder.is_symlink():
                    folder.unlink()
            swaps += 1

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        states = {sync(trees[turn % 2], host, on_local_edit="overwrite") for turn in range(40)}
    finally:
        stop.set()
        racer.join()
    assert swaps > 100
    assert states
    assert read_tree(outside) == outside_before
    for path in (host.target / "d", host.target / "aside"):
        if path.is_symlink():
            path.unlink()
    shutil.rmtree(host.target)
    assert sync(trees[0], host) == "SUCCESS"
    assert read_tree(host.target) == read_tree(trees[0])


@pytest.mark.parametrize(
    ("policy", "expected"), [("overwrite", b"new"), ("keep", b"late"), ("backup", b"new")]
)
async def test_an_edit_while_the_task_runs_is_a_local_edit(
    tmp_path: Path, policy: str, expected: bytes
) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"old"})
    await synchronise(source, host)
    (source / "a").write_bytes(b"new")

    def edit_when_blocks_come(primary: MemoryChannel, _agent: MemoryChannel) -> None:
        def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
            if payload is not None:
                (host.target / "a").write_bytes(b"late")
            return [(message, payload)]

        primary.alter = alter

    outcome = await synchronise(source, host, on_local_edit=policy, prepare=edit_when_blocks_come)
    assert outcome.state == "SUCCESS"
    assert (host.target / "a").read_bytes() == expected
    others = [path.read_bytes() for path in host.target.iterdir() if path.name != "a"]
    assert others == ([b"late"] if policy == "backup" else [])
    again = await synchronise(source, host, on_local_edit=policy)
    assert again.from_agent.messages == ["TaskReport"]


async def test_two_tasks_on_one_target_take_turns(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    sources = [write_tree(tmp_path / f"s{n}", {"a": b"%d" % n, f"b{n}": b"x"}) for n in range(2)]
    host.target.mkdir()
    async with trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(synchronise, source, host)
    assert read_tree(host.target) in [read_tree(source) for source in sources]


async def test_a_target_that_stays_busy_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.target.LOCK_DEADLINE", 0.2)
    host = Host(tmp_path / "host")
    host.target.mkdir()
    fd = os.open(host.target, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    outcome = await synchronise(write_tree(tmp_path / "s", {"a": b"1"}), host)
    os.close(fd)
    assert outcome.state == "FAILED TargetBusy"


async def test_a_cancelled_task_leaves_no_descriptor_and_what_it_staged_alone(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a": b"1", "big": os.urandom(3_000_000)})
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(1, 8):
        with trio.CancelScope() as scope:

            def cancel(
                primary: MemoryChannel,
                _agent: MemoryChannel,
                number: int = number,
                scope: trio.CancelScope = scope,
            ) -> None:
                def alter(
                    message: AnyMessage, payload: bytes | None
                ) -> list[tuple[AnyMessage, bytes | None]]:
                    if len(primary.sent.messages) == number - 1:
                        scope.cancel()
                    return [(message, payload)]

                primary.alter = alter

            await synchronise(source, host, prepare=cancel)
        if host.target.exists():
            assert {path.name for path in host.target.iterdir()} <= {STAGING, "a", "big"}
            assert all(
                path.read_bytes() == (source / path.name).read_bytes() for path in host.target.glob("[!.]*")
            )
        shutil.rmtree(host.target, ignore_errors=True)
    assert len(os.listdir("/proc/self/fd")) == descriptors
