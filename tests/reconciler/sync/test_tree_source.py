"""Trees on the primary: what is taken in, and what is refused."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from agent.errors import PathRefused
from agent.index_check import IndexCheck
from reconciler.errors import LookFailed
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import write_tree


def paths(source: TreeSource) -> list[str]:
    return [entry.path for entry in source.entries]


async def test_a_tree_is_taken_in_whole(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "s", {"b": b"12", "a/x": b"", "a/empty": None, "l": "b", "a-b": b"order"})
    os.mkfifo(root / "pipe")
    source = await TreeSource.build(root)
    assert paths(source) == ["a", "a-b", "a/empty", "a/x", "b", "l"]
    assert (source.files, source.bytes) == (3, 7)
    assert source.warnings == ("'pipe' is a FIFO, socket or device and is not sent",)
    by_path = {entry.path: entry for entry in source.entries}
    assert by_path["b"].blocks == hashlib.sha256(b"12").digest()
    assert by_path["l"].link == "b"
    check = IndexCheck(entries=6, total_bytes=7, max_entries=6, max_file_size=7, max_total_size=7)
    check.add(source.entries)
    assert check.finish(source.tree, ignore_permissions=False) == source.entries


async def test_a_disk_that_gives_errors_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "s", {"a/x": b"1", "b": b"2"})

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(LookFailed, match=rf"^cannot read {root}/a/x: Input/output error$"):
        await TreeSource.build(root)


async def test_the_same_tree_elsewhere_has_the_same_digest(tmp_path: Path) -> None:
    tree = {"a/x": b"1", "l": "a/x"}
    one = await TreeSource.build(write_tree(tmp_path / "one", tree))
    other = await TreeSource.build(write_tree(tmp_path / "other", tree))
    assert one.tree == other.tree
    (tmp_path / "other/a/x").chmod(0o600)
    assert (await TreeSource.build(tmp_path / "other")).tree != one.tree
    loose = [await TreeSource.build(tmp_path / name, ignore_permissions=True) for name in ("one", "other")]
    assert loose[0].tree == loose[1].tree


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"ignore": [".git", "*.log"]},
            ["dist", "dist/app.js", "dist/deep", "dist/deep/x", "src", "src/app.ts"],
        ),
        ({"include": ["dist/**"]}, ["dist", "dist/a.log", "dist/app.js", "dist/deep", "dist/deep/x"]),
        ({"include": ["dist/deep/x"]}, ["dist", "dist/deep", "dist/deep/x"]),
        ({"include": ["dist/**"], "exclude": ["*.log", "deep/"]}, ["dist", "dist/app.js"]),
        ({"include": ["*.ts"]}, ["src", "src/app.ts"]),
        (
            {"ignore": [".git", "*.log"], "reserved": ["dist/deep/x", "src/app.ts/below"]},
            ["dist", "dist/app.js", "dist/deep", "src"],
        ),
        ({"ignore": [".git", "*.log"], "reserved": ["dist"]}, ["src", "src/app.ts"]),
    ],
)
async def test_what_is_selected(tmp_path: Path, options: dict[str, list[str]], expected: list[str]) -> None:
    root = write_tree(
        tmp_path / "s",
        {".git/x": b"", "dist/app.js": b"", "dist/a.log": b"", "dist/deep/x": b"", "src/app.ts": b""},
    )
    assert paths(await TreeSource.build(root, **options)) == expected  # type: ignore[arg-type]


async def test_names_that_cannot_be_sent(tmp_path: Path) -> None:
    root = tmp_path / "s"
    root.mkdir()
    (root / "caf\udce9").write_bytes(b"")
    with pytest.raises(PathRefused, match=r"^path 'caf\\xe9' is not valid UTF-8: rename or ignore it"):
        await TreeSource.build(root)
    assert paths(await TreeSource.build(root, ignore=["caf*"])) == []
    (root / "caf\udce9").rename(root / "caf\udce9.trueup-backup-1")
    warnings = (await TreeSource.build(root)).warnings
    assert warnings == (r"'caf\xe9.trueup-backup-1' has a name that only trueup gives and is not sent",)
    (root / "caf\udce9.trueup-backup-1").unlink()
    write_tree(root, {"README": b"", "readme": b""})
    with pytest.raises(PathRefused, match=r"'README' and 'readme' differ only.*rename one.*ignore_patterns"):
        await TreeSource.build(root)
    assert paths(await TreeSource.build(root, ignore=["/readme"])) == ["README"]
    (root / "readme").unlink()
    (root / "l").symlink_to("caf\udce9")
    with pytest.raises(PathRefused, match="leads"):
        await TreeSource.build(root)


async def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LookFailed, match="No such file"):
        await TreeSource.build(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LookFailed, match="Not a directory"):
        await TreeSource.build(tmp_path / "file")


async def test_symlinks_in_the_source_are_not_followed(tmp_path: Path) -> None:
    write_tree(tmp_path / "outside", {"secret": b"s"})
    root = write_tree(tmp_path / "s", {"up": "../outside", "abs": "/etc"})
    assert [(entry.path, entry.kind) for entry in (await TreeSource.build(root)).entries] == [
        ("abs", "symlink"),
        ("up", "symlink"),
    ]
