"""What a release has in common with any that is kept is taken from there, and verified."""

import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.blocks import MIN_BLOCK
from agent.changes import Write
from agent.index import file_entry
from agent.kept import MAX_SHELVES, Contents
from agent.manifest import Manifest, Placed, manifest_path, save
from agent.pieces import MIN_PIECE
from agent.reuse import Shelf, Source, find_sources
from agent.versions import version_path, versions_state
from agent.wire.messages import TaskReport
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.agent.test_itemise import foreseen

LARGE = os.urandom(5 * MIN_BLOCK + 77)
SMALL = {f"small/{number}": os.urandom(2_000) for number in range(20)}


async def release(host: Host, source: Path, **changes: Any) -> TaskReport:
    outcome = await synchronise(source, host, strategy="release", **changes)
    assert outcome.state == "SUCCESS", outcome.report.message
    link = (host.target / "current").resolve(strict=True)
    assert read_tree(link) == read_tree(source)
    return outcome.report


async def test_a_file_of_an_earlier_release_comes_back_from_there(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    await release(host, write_tree(tmp_path / "a", {"large": LARGE, **SMALL, "v": b"a"}))
    await release(host, write_tree(tmp_path / "b", {"large": b"another", "v": b"b"}))
    # The same file at its path, others elsewhere, and one that is not quite as it was.
    third = {"large": LARGE, "moved/7": SMALL["small/7"], "edited": LARGE[:-40] + b"x" * 40, "v": b"c!"}
    report = await release(host, write_tree(tmp_path / "c", third))
    assert report.bytes_reused >= len(LARGE) + 2_000 + 5 * MIN_BLOCK
    assert report.bytes_received <= len(b"c!") + 77
    assert len(report.kept) == 3


async def test_what_no_longer_is_what_was_placed_is_sent(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first = await release(host, write_tree(tmp_path / "a", {"large": LARGE, "other": SMALL["small/1"]}))
    await release(host, write_tree(tmp_path / "b", {"v": b"b"}))
    placed = host.target / "releases" / first.current
    with (placed / "large").open("r+b") as file:
        file.seek(MIN_BLOCK + 5)
        file.write(b"!!!")
    (placed / "other").unlink()
    (placed / "other").symlink_to("large")
    report = await release(
        host, write_tree(tmp_path / "c", {"large": LARGE, "other": SMALL["small/1"]} | {"v": b"c"})
    )
    assert report.bytes_received == MIN_PIECE + 2_000 + 1
    assert report.bytes_reused == len(LARGE) - MIN_PIECE


async def test_a_release_without_its_manifest_or_directory_only_costs_its_blocks(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first = await release(host, write_tree(tmp_path / "a", {"large": LARGE}), keep=5)
    await release(host, write_tree(tmp_path / "b", {"small": SMALL["small/2"]}), keep=5)
    gone = await release(host, write_tree(tmp_path / "c", {"third": SMALL["small/3"]}), keep=5)
    await release(host, write_tree(tmp_path / "d", {"v": b"d"}), keep=5)
    inner = versions_state(host.state, str(host.target))
    manifest_path(inner, version_path(str(host.target), first.current)).unlink()
    shutil.rmtree(host.target / "releases" / gone.current)
    report = await release(
        host,
        write_tree(tmp_path / "e", {"large": LARGE, "small": SMALL["small/2"], "third": SMALL["small/3"]}),
        keep=5,
    )
    assert (report.bytes_received, report.bytes_reused) == (len(LARGE) + 2_000, 2_000)


async def test_a_damaged_current_release_is_mended_from_the_others(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "a", {"large": LARGE, "v": b"a"})
    await release(host, source)
    (source / "v").write_bytes(b"b")
    await release(host, source)
    (host.target / "current/large").write_bytes(b"damaged")
    report = await release(host, source)
    assert (report.bytes_received, report.bytes_reused) == (0, len(LARGE))


async def test_a_dry_run_counts_on_kept_releases(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    await release(host, write_tree(tmp_path / "a", {"large": LARGE}))
    await release(host, write_tree(tmp_path / "b", {"v": b"b"}))
    source = write_tree(tmp_path / "c", {"large": LARGE, "v": b"c"})
    sums = await foreseen(source, host, strategy="release")
    assert (sums.bytes_requested, sums.bytes_reused) == (1, len(LARGE))


def test_many_large_releases_take_no_memory_but_for_what_is_wanted(tmp_path: Path) -> None:
    def placed(release: int) -> Iterator[Placed]:
        for number in range(5_000):
            digest = release.to_bytes(16) + number.to_bytes(16)
            name = f"a/rather/long/name/{number}"
            yield Placed(file_entry(name, mode=0o644, size=9, mtime_ns=1, blocks=digest))

    paths = [tmp_path / f"{number}.manifest" for number in range(MAX_SHELVES)]
    for number, path in enumerate(paths):
        manifest = Manifest(project="p", target="/srv/app", root=(1, 2, 3), placed=tuple(placed(number)))
        save(path, manifest, durable=False)
    del manifest
    digest = (MAX_SHELVES - 1).to_bytes(16) + (17).to_bytes(16)
    wanted = [
        Write(file_entry("x", mode=0o644, size=9, mtime_ns=1, blocks=blocks))
        for blocks in (digest, bytes(32))
    ]
    one = 0
    for count in (1, MAX_SHELVES):
        tracemalloc.start()
        sources = find_sources(wanted, [Shelf(-1, Contents(path)) for path in paths[-count:]])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sources.blocks[digest] == Source(count - 1, "a/rather/long/name/17", 0)
        one = one or peak
    assert peak < 1.5 * one
