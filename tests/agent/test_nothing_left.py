"""A first copy that is refused or cut leaves nothing where nothing was, but what the next one takes up."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.errors import TransferFailed
from agent.manifest import load, manifest_path
from agent.wire.messages import AnyMessage, IndexFile
from tests.agent.streams import begin, first_copy
from tests.agent.syncing import Host, Tree, read_tree, synchronise, write_tree

TREE: Tree = {"a/first": b"first" * 1000, "c/big": os.urandom(700_000), "link": "a/first", "none": None}


@pytest.mark.parametrize("streams", [True, False])
async def test_where_there_is_no_room_no_directory_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, streams: bool
) -> None:
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host", name="above/app")
    full = SimpleNamespace(f_bfree=0, f_bavail=0, f_frsize=4096)
    growing = await begin(source)
    await growing.run()

    async def reason() -> str:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fstatvfs", lambda _: full)
            if streams:
                return (await first_copy(growing, host)).reason
            return (await synchronise(source, host)).report.reason

    assert await reason() == "DiskFull"
    assert list((host.base / "srv").iterdir()) == list(host.state.glob("targets/*")) == []
    # What somebody made stays, and so does the record of what was there.
    (host.base / "srv/above").mkdir()
    assert await reason() == "DiskFull"
    assert [path.name for path in (host.base / "srv").rglob("*")] == ["above"]
    host.target.mkdir()
    assert await reason() == "DiskFull"
    assert list(host.target.iterdir()) == []
    assert (await synchronise(source, host)).state == "SUCCESS"
    shutil.rmtree(host.target)
    record = manifest_path(host.state, str(host.target))
    streams = False  # what has a record is not streamed
    assert await reason() == "DiskFull"
    assert not host.target.exists()
    assert load(record) is not None
    assert (await synchronise(source, host)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)


async def test_a_cut_before_anything_came_leaves_no_directory(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", TREE)
    host = Host(tmp_path / "host")
    growing = await begin(source)
    await growing.run()

    def alter(message: AnyMessage, payload: bytes | None) -> list[tuple[AnyMessage, bytes | None]]:
        if isinstance(message, IndexFile):
            raise TransferFailed("cut")
        return [(message, payload)]

    with pytest.raises((TransferFailed, BaseExceptionGroup)):
        await first_copy(growing, host, alter=alter)
    assert list((host.base / "srv").iterdir()) == list(host.state.glob("targets/*")) == []
