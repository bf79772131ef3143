"""Kills at every change, and a reader all the while: the whole old tree or the whole new."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

from agent.blocks import MIN_BLOCK
from agent.versions import BUILDING
from tests.agent.killed_task import Helper
from tests.agent.syncing import Host, Tree, read_tree, sync, write_tree

OLD: Tree = {"a": b"old", "big": b"o" * (MIN_BLOCK + 10), "gone/deep": b"gone", "same": b"same", "link": "a"}
NEW: Tree = {
    "a": b"new",
    "big": b"o" * MIN_BLOCK + b"n" * 10,
    "fresh/x": b"f",
    "same": b"same",
    "link": "big",
}
OLDEST: Tree = {"a": b"oldest"}


def release(source: Path, host: Host, **options: Any) -> str:
    return sync(source, host, strategy="release", keep=2, **options)


def test_killed_at_every_change_of_the_file_system(helper: Helper, tmp_path: Path) -> None:
    """For each N, killed at the N-th change: a whole tree is current, and the next task mends."""
    oldest, old, new = (
        write_tree(tmp_path / name, tree) for name, tree in (("s0", OLDEST), ("s1", OLD), ("s2", NEW))
    )
    whole = [read_tree(old), read_tree(new)]
    switched: list[bool] = []
    for number in range(1, 400):
        host = Host(tmp_path / "host")
        for source in (oldest, old):
            assert release(source, host) == "SUCCESS"
        (host.target / "mine").mkdir()
        killed, _ = helper.run(host.base, new, number, strategy="release", keep=2)
        found = read_tree((host.target / "current").resolve(strict=True))
        assert found in whole, number
        switched.append(found == whole[1])
        if not killed:
            break
        host.allow(commands={"note": ("/bin/sh", "-c", "echo x >> $TRUEUP_TARGET/../ran")})
        assert release(new, host, after=("note",)) == "SUCCESS"
        assert (host.base / "srv/ran").exists(), number
        versions = os.listdir(host.target / "releases")
        assert len(versions) == 2
        assert BUILDING not in versions
        assert sorted(os.listdir(host.target)) == ["current", "mine", "releases"], number
        assert read_tree((host.target / "current").resolve(strict=True)) == whole[1]
        # One version more and back to two: what was left behind would not be removed, being nobody's.
        assert release(oldest, host) == "SUCCESS"
        assert len(os.listdir(host.target / "releases")) == 2, number
        assert len(list((host.state / "releases").rglob("*.manifest"))) == 2, number
        shutil.rmtree(host.base)
    assert len(switched) > 40
    # Old up to one moment, new from then on.
    assert switched == sorted(switched)
    assert True in switched[:-1]


def test_a_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    sources = [write_tree(tmp_path / f"s{n}", {f"d/{k}": b"%d" % n for k in range(30)}) for n in range(2)]
    whole = [read_tree(source) for source in sources]
    assert release(sources[0], host) == "SUCCESS"
    stop = threading.Event()
    wrong: list[Tree] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            found = read_tree((host.target / "current").resolve(strict=True))
            if found not in whole:
                wrong.append(found)
            reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(1, 12):
            # Half of them build, half of them switch to what is kept.
            source = write_tree(sources[turn % 2], {f"d/{k}": b"%d" % (turn % 2) for k in range(30)})
            assert release(source, host) == "SUCCESS"
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert reads > 10
