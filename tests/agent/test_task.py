"""Whole tasks, both ends real: what is on disk afterwards, what was said, and what was refused."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.blocks import MIN_BLOCK
from agent.index import STAGING
from agent.pieces import MIN_PIECE
from tests.agent.syncing import SITE, Host, Tree, modes, observe, read_tree, synchronise, write_tree


def rsync_sees(source: Path, target: Path) -> str:
    """What rsync would change, comparing contents, kinds, modes, times and owners."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    done = subprocess.run(
        ["rsync", "-anci", "--delete", f"{source}/", f"{target}/"], capture_output=True, check=True, text=True
    )
    return done.stdout


def inodes(root: Path) -> dict[str, tuple[int, int, int]]:
    """What any change to an entry would alter."""
    found = {str(path): path.lstat() for path in [root, *root.rglob("*")]}
    return {path: (it.st_ino, it.st_mtime_ns, it.st_ctime_ns) for path, it in found.items()}


async def test_a_fresh_copy_is_complete(source: Path, host: Host) -> None:
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS"
    assert read_tree(host.target) == SITE | {"static": None, "bin": None, "ü": None}
    assert modes(host.target) == modes(source)
    assert (host.target / "index.html").stat().st_mtime_ns == 1_500_000_000_250_000_000
    assert outcome.report.bytes_received == sum(len(c) for c in SITE.values() if isinstance(c, bytes))
    assert outcome.report.files_written == 7


async def test_rsync_finds_nothing_to_do(source: Path, host: Host) -> None:
    await synchronise(source, host)
    assert rsync_sees(source, host.target) == ""
    (source / "static/app.js").write_bytes(b"y" * MIN_BLOCK)
    (source / "ü/ß").unlink()
    await synchronise(source, host)
    assert rsync_sees(source, host.target) == ""


async def test_an_equal_tree_ends_in_one_round_trip(source: Path, host: Host) -> None:
    first = await synchronise(source, host)
    before = inodes(host.target)
    again = await synchronise(source, host)
    assert again.state == "SUCCESS"
    assert again.from_agent.messages == ["TaskReport"]
    assert again.from_primary.messages == []
    assert again.report.observed == again.report.established == first.report.established
    assert inodes(host.target) == before


async def test_an_observation_says_what_is_there_and_touches_nothing(source: Path, host: Host) -> None:
    nothing = await observe(host)
    assert (nothing.state, nothing.observed, nothing.after_done) == ("SUCCESS", b"", True)
    assert not host.target.exists()
    assert not host.state.exists()
    outcome = await synchronise(source, host)
    assert (await observe(host)).observed == outcome.report.established
    (host.target / "index.html").write_bytes(b"edited")
    state = read_tree(host.base)
    report = await observe(host)
    assert report.observed not in (b"", outcome.report.established)
    assert report.local_edits == 1
    assert read_tree(host.base) == state


async def test_one_changed_block_moves_only_a_piece_of_it(source: Path, host: Host) -> None:
    big = bytearray(os.urandom(40 * MIN_BLOCK + 5))
    (source / "big").write_bytes(big)
    await synchronise(source, host)
    big[7 * MIN_BLOCK + 3] ^= 1
    (source / "big").write_bytes(big)
    outcome = await synchronise(source, host)
    assert (host.target / "big").read_bytes() == big
    assert outcome.from_primary.payload_bytes == outcome.report.bytes_received == MIN_PIECE
    assert outcome.report.bytes_reused == len(big) - MIN_PIECE
    assert outcome.report.files_written == 1


async def test_a_renamed_file_moves_no_block(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (source / "static/app.js").rename(source / "bin/app.js")
    outcome = await synchronise(source, host)
    assert outcome.from_primary.payload_bytes == 0
    assert read_tree(host.target) == read_tree(source)


async def test_a_changed_mode_moves_no_block(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (source / "index.html").chmod(0o600)
    (source / "static").chmod(0o750)
    outcome = await synchronise(source, host)
    assert outcome.from_primary.payload_bytes == 0
    assert modes(host.target) == modes(source)
    assert (await synchronise(source, host)).from_agent.messages == ["TaskReport"]


async def test_a_file_that_was_edited_is_healed(source: Path, host: Host) -> None:
    await synchronise(source, host)
    edited = host.target / "index.html"
    times = edited.stat()
    edited.write_bytes(b"<h1>HELLO</h1>")
    os.utime(edited, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time, other content
    (host.target / "bin/run").unlink()
    (host.target / "current").unlink()
    (host.target / "current").symlink_to("elsewhere")
    outcome = await synchronise(source, host)
    assert outcome.report.local_edits == 2
    assert read_tree(host.target) == read_tree(source)


async def test_foreign_files_are_left_alone(source: Path, host: Host) -> None:
    write_tree(host.target, {"mine.txt": b"1", "static/mine.js": b"2", "data/deep/x": b"3"})
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS"
    assert outcome.report.foreign == 3  # mine.txt, static/mine.js and data, which is not entered
    (source / "static/app.js").unlink()
    await synchronise(source, host)
    assert read_tree(host.target) == read_tree(source) | {
        "mine.txt": b"1",
        "static/mine.js": b"2",
        "data": None,
        "data/deep": None,
        "data/deep/x": b"3",
    }


async def test_a_directory_stays_while_a_foreign_file_is_in_it(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (host.target / "static/mine.js").write_bytes(b"2")
    shutil.rmtree(source / "static")
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS"
    assert (host.target / "static/mine.js").read_bytes() == b"2"
    assert sorted(os.listdir(host.target / "static")) == ["mine.js"]
    assert (await synchronise(source, host)).from_agent.messages == ["TaskReport"]


async def test_delete_foreign_takes_all_but_ignored_and_rendered(source: Path, host: Host) -> None:
    write_tree(host.target, {"mine.txt": b"1", "data/deep/x": b"3", "logs/a.log": b"4", ".git/config": b"5"})
    os.mkfifo(host.target / "pipe")
    options: dict[str, Any] = {"delete_foreign": True, "ignore": ["*.log", ".git"]}
    outcome = await synchronise(source, host, **options)
    assert outcome.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source) | {
        "logs": None,
        "logs/a.log": b"4",
        ".git": None,
        ".git/config": b"5",
    }
    assert (await synchronise(source, host, **options)).from_agent.messages == ["TaskReport"]
    (host.target / "new").write_bytes(b"")
    assert (await synchronise(source, host, **options)).report.files_deleted == 1


async def test_an_equal_tree_without_a_record_is_adopted_with_delete_foreign(
    source: Path, host: Host
) -> None:
    await synchronise(source, host)
    shutil.rmtree(host.state)
    outcome = await synchronise(source, host, delete_foreign=True)
    assert outcome.from_agent.messages == ["TaskReport"]
    (source / "index.html").unlink()
    await synchronise(source, host)
    assert read_tree(host.target) == read_tree(source)


async def test_an_overlay_never_deletes(source: Path, host: Host) -> None:
    await synchronise(source, host, strategy="overlay")
    (source / "index.html").unlink()
    (source / "new").write_bytes(b"n")
    outcome = await synchronise(source, host, strategy="overlay", delete_foreign=True)
    assert outcome.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source) | {"index.html": SITE["index.html"]}
    assert (await synchronise(source, host, strategy="overlay")).from_agent.messages == ["TaskReport"]


async def test_kinds_change_both_ways(source: Path, host: Host) -> None:
    await synchronise(source, host)
    shutil.rmtree(source / "static")
    (source / "static").write_bytes(b"now a file")
    (source / "index.html").unlink()
    write_tree(source, {"index.html/a/b": b"now a directory"})
    (source / "bin/run").unlink()
    (source / "bin/run").symlink_to("/bin/true")
    (source / "current").unlink()
    (source / "current").mkdir()
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


async def test_a_directory_with_foreign_files_is_not_replaced_by_a_file(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (host.target / "static/mine").write_bytes(b"mine")
    before = read_tree(host.target)
    shutil.rmtree(source / "static")
    (source / "static").write_bytes(b"now a file")
    outcome = await synchronise(source, host)
    assert outcome.state == "FAILED ForeignFiles"
    assert "static/mine" in outcome.report.message
    assert read_tree(host.target) == before
    assert (await synchronise(source, host, delete_foreign=True)).state == "SUCCESS"
    assert (host.target / "static").read_bytes() == b"now a file"


async def test_what_is_ignored_from_now_on_is_left_and_forgotten(source: Path, host: Host) -> None:
    await synchronise(source, host)
    outcome = await synchronise(source, host, ignore=["static/"])
    assert outcome.state == "SUCCESS"
    assert (host.target / "static/app.js").exists()
    assert (await synchronise(source, host, ignore=["static/"])).from_agent.messages == ["TaskReport"]


async def test_permissions_may_be_ignored(source: Path, host: Host) -> None:
    write_tree(host.target, {"index.html": b"old"})
    (host.target / "index.html").chmod(0o640)
    assert (await synchronise(source, host, ignore_permissions=True)).state == "SUCCESS"
    umask = os.umask(0o022)
    os.umask(umask)
    found = modes(host.target)
    assert found["index.html"] == 0o640
    assert found["bin/run"] == 0o755 & ~umask
    assert found["static/empty.css"] == 0o644 & ~umask
    (host.target / "bin/run").chmod(0o700)
    assert (await synchronise(source, host, ignore_permissions=True)).from_agent.messages == ["TaskReport"]


async def test_no_special_bits_travel(source: Path, host: Host) -> None:
    (source / "bin/run").chmod(0o6755)
    (source / "static").chmod(0o1777)
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert modes(host.target)["bin/run"] == 0o755
    assert modes(host.target)["static"] == 0o777


async def test_hard_links_and_special_files_in_the_source(source: Path, host: Host) -> None:
    os.link(source / "index.html", source / "twin.html")
    os.mkfifo(source / "pipe")
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert (host.target / "twin.html").read_bytes() == (host.target / "index.html").read_bytes()
    assert (host.target / "twin.html").stat().st_nlink == 1
    assert not (host.target / "pipe").exists()


async def test_nested_targets_do_not_touch_each_other(source: Path, host: Host, tmp_path: Path) -> None:
    inner = Host(host.base, name="app/plugins/one")
    await synchronise(write_tree(tmp_path / "plugin", {"p": b"1"}), inner)
    assert (await synchronise(source, host, delete_foreign=True)).state == "SUCCESS"
    assert (inner.target / "p").read_bytes() == b"1"
    assert (await synchronise(source, host, delete_foreign=True)).from_agent.messages == ["TaskReport"]


async def test_nothing_is_left_in_staging(source: Path, host: Host) -> None:
    leftovers = host.target / STAGING / "deep"
    leftovers.mkdir(parents=True)
    (leftovers / "1").write_bytes(b"from a killed task")
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert not (host.target / STAGING).exists()
    leftovers.mkdir(parents=True)
    assert (await synchronise(source, host)).from_agent.messages == ["TaskReport"]
    assert not (host.target / STAGING).exists()


@pytest.mark.parametrize("durability", ["none", "commit", "paced"])
async def test_every_durability_gives_the_same_tree(source: Path, host: Host, durability: str) -> None:
    assert (await synchronise(source, host, durability=durability)).state == "SUCCESS"
    (source / "index.html").write_bytes(b"new")
    assert (await synchronise(source, host, durability=durability)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


async def test_many_small_and_many_large_files(host: Host, tmp_path: Path) -> None:
    tree: Tree = {f"s/{number:04}": bytes([number % 251]) * (number % 700) for number in range(3000)}
    tree |= {f"l/{number:03}": os.urandom(MIN_BLOCK + number) for number in range(300)}
    source = write_tree(tmp_path / "source", tree)
    first = await synchronise(source, host)
    assert first.state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)
    assert first.from_primary.count("BlockResponseBin") < 120
    for number in range(300):
        with (source / f"l/{number:03}").open("r+b") as file:
            file.seek(MIN_BLOCK)
            file.write(b"!")
    second = await synchronise(source, host)
    assert read_tree(host.target) == read_tree(source)
    assert second.report.bytes_received < 300 * 301


names = st.sampled_from(["a", "b", "c", "d e"])
contents = st.one_of(
    st.none(), st.binary(max_size=3), st.just(b"x" * (MIN_BLOCK + 1)), st.sampled_from(["a", "../x"])
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree: Tree = {}
    for path in sorted(draw(st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=7))):
        above = path.rpartition("/")[0]
        if not above or (above in tree and tree[above] is None):
            tree[path] = draw(contents) if draw(st.booleans()) else None
    return tree


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=st.lists(trees(), min_size=2, max_size=4), executable=st.booleans())
async def test_any_tree_after_any_other(tmp_path: Path, history: list[Tree], executable: bool) -> None:
    base = tmp_path / os.urandom(8).hex()
    host = Host(base / "host")
    for number, tree in enumerate(history):
        source = write_tree(base / f"source{number}", tree)
        for path in source.rglob("*"):
            if executable and path.is_file() and not path.is_symlink():
                path.chmod(0o755)
        outcome = await synchronise(source, host, allow_empty=True)
        assert outcome.state == "SUCCESS", outcome.report.message
        assert read_tree(host.target) == tree
        assert modes(host.target) == modes(source)
        assert (await synchronise(source, host, allow_empty=True)).from_agent.messages == ["TaskReport"]
