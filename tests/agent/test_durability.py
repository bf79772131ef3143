"""What each durability really does: when data goes to the disk, and that it does so before its name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import apply, libc, task, transfer
from tests.agent.syncing import Host, read_tree, synchronise, write_tree


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that concern the disk, in their order; each is made as well."""
    made: list[str] = []

    def recording(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            # Of names those of the tree's files alone: the record of them is replaced by renames too.
            if name != "rename" or str(arguments[1]).isdigit():
                made.append(name)
            return real(*arguments, **named)

        return call

    flush = recording("flush", libc.sync_file_system)
    for module in (apply, task, transfer):
        monkeypatch.setattr(module, "sync_file_system", flush)
    monkeypatch.setattr(os, "rename", recording("rename", os.rename))
    monkeypatch.setattr(os, "fsync", recording("fsync", os.fsync))
    return made


@pytest.mark.parametrize(
    ("durability", "expected"),
    [("none", ["rename"]), ("commit", ["flush", "rename", "flush"]), ("paced", ["flush", "rename", "flush"])],
)
async def test_what_replaces_a_file_is_on_the_disk_first(
    tmp_path: Path, calls: list[str], durability: str, expected: list[str]
) -> None:
    host = Host(tmp_path / "host")
    await synchronise(write_tree(tmp_path / "old", {f"{n}": b"old" for n in range(40)}), host)
    new = write_tree(tmp_path / "new", {f"{n}": b"new" * 5 for n in range(40)})
    calls.clear()
    assert (await synchronise(new, host, durability=durability)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(new)
    # One flush for all of them, not one for each; the manifest has its own.
    order = [call for call in calls if call != "fsync"]
    assert [call for at, call in enumerate(order) if at == 0 or order[at - 1] != call] == expected
    assert order.count("flush") == expected.count("flush")
    assert order.count("rename") == 40
    assert bool(calls.count("fsync")) == (durability != "none")


async def test_paced_goes_to_the_disk_as_it_comes(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PACE_BYTES", 500_000)
    source = write_tree(tmp_path / "source", {"big": os.urandom(5_000_000)})
    counts = {}
    for durability in ("none", "commit", "paced"):
        calls.clear()
        host = Host(tmp_path / durability)
        assert (await synchronise(source, host, durability=durability)).state == "SUCCESS"
        counts[durability] = calls.count("flush")
    assert counts["none"] == 0
    assert counts["commit"] == 1
    assert counts["paced"] >= 4
