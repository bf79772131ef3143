"""The record of what was placed: kept atomically, and believed only as far as the disk bears it out."""

import hashlib
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.changes import Write
from agent.failures import TaskFailed
from agent.index import directory_entry, file_entry
from agent.manifest import (
    Manifest,
    Placed,
    Stamp,
    doubtful,
    load,
    manifest_path,
    other_targets,
    save,
    settle_doubts,
    torn,
)
from agent.reuse import Shelf, Source, find_sources
from agent.scan import Found
from agent.wire.messages import Entry

ROOT = (1, 2, 3)


def a_file(path: str, content: bytes) -> Entry:
    return file_entry(
        path,
        mode=0o644,
        size=len(content),
        mtime_ns=int.from_bytes(content),
        blocks=hashlib.sha256(content).digest(),
    )


def manifest(target: str = "/srv/app", **changes: object) -> Manifest:
    return Manifest(project="web", target=target, root=ROOT, **changes)  # type: ignore[arg-type]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = manifest_path(tmp_path / "state", "/srv/app")
    assert load(path) is None
    saved = manifest(
        placed=(
            Placed(a_file("a", b"1"), Stamp(1, 2, 3, 4, 5)),
            Placed(directory_entry("d", mode=0o755, mtime_ns=0), None, True),
        ),
        pending=(a_file("b", b"2"),),
        deleting=("c",),
        after=("restart",),
        after_due=True,
        tree=b"t" * 32,
    )
    save(path, saved, durable=True)
    assert load(path) == saved
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_targets_have_records_of_their_own(tmp_path: Path) -> None:
    assert manifest_path(tmp_path, "/srv/a") != manifest_path(tmp_path, "/srv/b")
    for target in ("/srv/a", "/srv/a/b", "/srv/a/c/d", "/srv/ab", "/srv"):
        save(manifest_path(tmp_path, target), manifest(target), durable=False)
    assert sorted(other_targets(tmp_path, "/srv/a")) == ["b", "c/d"]
    assert other_targets(tmp_path / "none", "/srv/a") == []


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", b"\x81\xa7version\x02"])
def test_a_record_that_is_no_use_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.manifest"
    path.write_bytes(content)
    with pytest.raises(TaskFailed, match="damaged or newer"):
        load(path)


def test_a_record_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        load(tmp_path)


def found_with(values: dict[str, int]) -> Found:
    return Found(
        kind="file",
        mode=0o644,
        size=values["size"],
        dev=values["dev"],
        ino=values["ino"],
        mtime_ns=values["mtime_ns"],
        ctime_ns=values["ctime_ns"],
    )


@pytest.mark.parametrize("field", ["dev", "ino", "size", "mtime_ns", "ctime_ns"])
def test_a_stamp_fits_only_what_was_not_touched(field: str) -> None:
    values = {"dev": 1, "ino": 2, "size": 3, "mtime_ns": 4, "ctime_ns": 5}
    stamp = Stamp(*values.values())
    assert stamp.fits(found_with(values))
    assert not stamp.fits(found_with(values | {field: 9}))


# Content 0 stands for nothing there.
OLD, NEXT, OTHER = b"old", b"next", b"other"


@pytest.mark.parametrize(
    ("listed", "pending", "deleting", "on_disk", "ours"),
    [
        (None, NEXT, False, NEXT, NEXT),  # killed after it was placed
        (None, NEXT, False, None, None),  # killed before
        (None, NEXT, False, OTHER, None),  # somebody else's file is there
        (OLD, NEXT, False, OLD, OLD),  # not yet replaced
        (OLD, NEXT, False, NEXT, NEXT),  # replaced
        (OLD, NEXT, False, OTHER, OLD),  # a local edit of ours
        (OLD, None, True, OLD, OLD),  # not yet deleted
        (OLD, None, True, None, None),  # deleted
        (OLD, None, True, OTHER, None),  # deleted, and a new file there since
    ],
)
def test_what_a_killed_task_left(
    listed: bytes | None, pending: bytes | None, deleting: bool, on_disk: bytes | None, ours: bytes | None
) -> None:
    left = manifest(
        placed=(Placed(a_file("a", listed)),) if listed else (),
        pending=(a_file("a", pending),) if pending else (),
        deleting=("a",) if deleting else (),
    )
    assert doubtful(left, ROOT) == {"a"}
    found = {"a": a_file("a", on_disk)} if on_disk else {}
    settled = settle_doubts(left, ROOT, found)
    assert {path: placed.entry for path, placed in settled.items()} == (
        {"a": a_file("a", ours)} if ours else {}
    )


contents = st.sampled_from([None, OLD, NEXT, OTHER])


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(contents, contents, st.booleans(), contents)),
    st.booleans(),
)
def test_nothing_foreign_is_ever_ours(
    cases: dict[str, tuple[bytes | None, bytes | None, bool, bytes | None]], replaced: bool
) -> None:
    left = manifest(
        placed=tuple(Placed(a_file(path, case[0])) for path, case in cases.items() if case[0]),
        pending=tuple(a_file(path, case[1]) for path, case in cases.items() if case[1]),
        deleting=tuple(path for path, case in cases.items() if case[2]),
    )
    root = (9, 9, 9) if replaced else ROOT
    doubts = doubtful(left, root)
    on_disk = {path: a_file(path, case[3]) for path, case in cases.items() if case[3] and path in doubts}
    settled = settle_doubts(left, root, on_disk)
    for path, (listed, pending, deleting, now) in cases.items():
        if now is not None and now == pending:
            assert settled[path].entry == a_file(path, now)
        elif path in settled:
            assert listed is not None
            assert now == listed or not (deleting or replaced)


def test_sources_are_found_for_wanted_blocks_only() -> None:
    wanted, other = a_file("new", b"1"), a_file("other", b"3")
    sources = find_sources(
        [Write(wanted), Write(other)],
        [
            Shelf(7, [("x", 1, a_file("x", b"2").blocks), ("y", 1, wanted.blocks), ("z", 1, wanted.blocks)]),
            Shelf(8, [("y", 1, other.blocks), ("z", 1, wanted.blocks)]),
        ],
    )
    assert sources.shelves == (7, 8)
    assert sources.blocks == {wanted.blocks: Source(0, "y", 0), other.blocks: Source(1, "y", 0)}
    assert not find_sources([], [Shelf(7, [("y", 1, wanted.blocks)])])


def test_an_interrupted_save_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest_path(tmp_path, "/srv/app")
    save(path, manifest(), durable=True)

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save(path, manifest(deleting=("x",)), durable=True)
    assert load(path) == manifest()


def test_a_record_that_cannot_be_read_may_be_of_a_target_inside(tmp_path: Path) -> None:
    inner = manifest_path(tmp_path, "/srv/app/inner")
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"\xff damaged")
    with pytest.raises(TaskFailed) as caught:
        other_targets(tmp_path, "/srv/app")
    assert caught.value.code == "ManifestUnreadable"
    assert str(inner) in str(caught.value)


def test_a_file_that_a_crash_cut_short_is_ours() -> None:
    whole = a_file("a", b"next")
    cut = file_entry("a", mode=0o644, size=2, mtime_ns=whole.mtime_ns, blocks=hashlib.sha256(b"ne").digest())
    touched = msgspec.structs.replace(cut, mtime_ns=whole.mtime_ns + 1)
    left = manifest(pending=(whole,))
    assert settle_doubts(left, ROOT, {"a": cut}) == {"a": Placed(whole)}
    assert torn(left, ROOT, {"a": cut}) == {"a"}
    for root, now in ((ROOT, touched), ((9, 9, 9), cut), (ROOT, whole)):
        assert torn(left, root, {"a": now}) == set()
    assert settle_doubts(left, ROOT, {"a": touched}) == {}
    replacing = manifest(placed=(Placed(cut),), pending=(whole,))
    assert settle_doubts(replacing, ROOT, {"a": cut}) == {"a": Placed(cut)}
