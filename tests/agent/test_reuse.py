"""Whole tasks where the target has most of what is wanted already: how much still travels."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.syncing import Host, read_tree, synchronise, write_tree

MIB = 1024 * 1024


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


OLD = noise(10 * MIB + 12_345)

EDITS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "a-byte-at-the-front": (lambda old: b"!" + old, 4096 + 1),
    "a-byte-less-at-the-front": (lambda old: old[1:], 4096),
    "some-at-the-front": (lambda old: noise(100_000, 2) + old, 110_000),
    "a-byte-in-the-middle": (lambda old: old[:5_000_000] + b"!" + old[5_000_000:], 2 * 4096),
    "a-cut-in-the-middle": (lambda old: old[:5_000_000] + old[5_300_000:], 2 * 4096),
    "appended": (lambda old: old + b"more", 12_349),
    "cut-at-the-end": (lambda old: old[:-70_000], 4096),
    "one-byte-changed": (lambda old: old[:5_000_000] + b"!" + old[5_000_001:], 4096),
    "insertions-everywhere": (
        lambda old: b"1" + old[:3_000_000] + b"22" + old[3_000_000:7_000_000] + b"333" + old[7_000_000:],
        6 * 4096,
    ),
    "an-insertion-and-a-cut-of-the-same-size": (
        lambda old: b"12345" + old[:6_000_000] + old[6_000_005:],
        5 * 4096,
    ),
    "halves-swapped": (lambda old: old[5_000_000:] + old[:5_000_000], 12 * MIB),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_sends_little_more_than_itself(host: Host, tmp_path: Path, edit: str) -> None:
    change, most = EDITS[edit]
    source = write_tree(tmp_path / "source", {"file": OLD})
    assert (await synchronise(source, host)).state == "SUCCESS"
    (source / "file").write_bytes(change(OLD))
    outcome = await synchronise(source, host)
    assert outcome.state == "SUCCESS", outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    assert outcome.report.bytes_received <= most
