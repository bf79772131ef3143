"""Threat 33: another process swaps directories for symlinks while a task writes; nothing outside changes."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.agent.syncing import Host, Tree, read_tree, synchronise, write_tree

WRITES = 10_000
SWAPS = 100_000
FILES = 150


def tree_of(turn: int) -> Tree:
    """Files that all change from turn to turn, and some that come and go."""
    tree: Tree = {f"d/f{number}": f"{turn} {number}".encode() for number in range(FILES)}
    tree |= {f"d/sub/f{number}": f"{turn} {number}".encode() for number in range(FILES)}
    return tree | {f"d/turn{turn}/x": b"1", "d/link": f"f{turn}", "beside": b"%d" % turn}


@contextmanager
def swapping(folder: Path, aside: Path, outside: Path) -> Iterator[Callable[[], int]]:
    """A process that swaps while the block lasts; gives how often it did so far, in whole thousands."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.agent.swapper", str(folder), str(aside), str(outside)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        said = process.stdout.fileno()
        os.set_blocking(said, False)
        thousands = 0

        def swaps() -> int:
            nonlocal thousands
            with suppress(BlockingIOError):
                dots = os.read(said, 4096)
                assert dots, "the process that swaps has ended"
                thousands += len(dots)
            return 1000 * thousands

        try:
            yield swaps
        finally:
            process.communicate()


async def test_nothing_outside_changes_in_ten_thousand_writes(tmp_path: Path) -> None:
    # What lies outside has the same names, for whoever follows a link.
    outside = write_tree(tmp_path / "outside", {path[2:]: b"theirs" for path in tree_of(0) if "d/f" in path})
    write_tree(outside, {"sub/f1": b"theirs", "turn0/x": b"theirs", "turn1/x": b"theirs"})
    before = read_tree(outside)
    host = Host(tmp_path / "host")
    sources = [write_tree(tmp_path / f"source{turn}", tree_of(turn)) for turn in range(2)]
    assert (await synchronise(sources[0], host)).state == "SUCCESS"
    ends: Counter[str] = Counter()
    written = turn = 0
    with swapping(host.target / "d", host.target / "aside", outside) as swaps:
        while written < WRITES or swaps() < SWAPS:
            turn += 1
            outcome = await synchronise(sources[turn % 2], host, ignore=("/aside",))
            ends[outcome.state] += 1
            written += outcome.report.files_written
            assert read_tree(outside) == before
    assert ends["SUCCESS"] > 0
    # Each of the others is one that somebody is told the reason of, and of those that are tried again.
    reasons = ("TargetChanged", "VerificationFailed", "PathRefused", "ForeignFiles")
    assert ends.keys() <= {"SUCCESS", *(f"FAILED {reason}" for reason in reasons)}
    assert read_tree(outside) == before
    allowed = [tree_of(turn) for turn in range(2)]
    for path, content in read_tree(host.target).items():
        if content is not None and path.startswith("d/f"):
            assert content in [tree[path] for tree in allowed], path
    for left in (host.target / "aside", host.target / "d"):
        if left.is_symlink():
            left.unlink()
        else:
            shutil.rmtree(left, ignore_errors=True)
    outcome = await synchronise(sources[0], host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(sources[0])
