"""What both sides hold of a tree of very many small files: memory, which `max_entries` is to bound."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.bench.blocksync import BlockSync, block_sync
from tests.bench.report import MIB, Measurement
from tests.bench.trees import change_small_files, differences, make_small_files
from tests.bench.usage import measured, resident

LARGEST = 200
"""Bytes of a file: what is held of it does not depend on its content, and the disk is not the question."""


def bench_many(where: Path, *, files: int) -> list[Measurement]:
    """A first copy, a task where nothing changed and one where a hundredth did, by the same processes; before
    that, by others, a first copy of the tree while it is hashed."""
    where.mkdir()
    source, target = where / "source", where / "target"
    make_small_files(source, files, smallest=1, largest=LARGEST)
    rows = []
    with block_sync(where / "streaming", where) as sync:
        rows.append(_measure(sync.of_checkout(), f"{files:,} files, first copy while hashed", source, target))
    shutil.rmtree(target)
    with block_sync(where / "private", where) as sync:
        sync.prepare(source, target)
        rows.append(_measure(sync, f"{files:,} files, first copy", source, target))
        rows.append(_measure(sync, f"{files:,} files, nothing changed", source, target))
        change_small_files(source, seed=5, smallest=1, largest=LARGEST)
        rows.append(_measure(sync, f"{files:,} files, 1 % changed", source, target))
    if found := differences(source, target):
        raise RuntimeError(f"the copy is wrong: {found}")
    return rows


def _measure(sync: BlockSync, work: str, source: Path, target: Path) -> Measurement:
    print(work, file=sys.stderr, flush=True)
    names = ("primary", "agent")
    before = dict(zip(names, map(resident, sync.processes()), strict=True))
    with measured(sync.processes) as usage:
        copied = sync.copy(source, target)
    row = Measurement(work, sync.name, [copied.seconds], [copied.scan_seconds or 0.0], copied.bytes_moved)
    row.wire_bytes.append(usage.wire_bytes)
    row.cpu_seconds.append(usage.cpu_seconds)
    row.note_memory({name: usage.peaks[pid] for name, pid in zip(names, sync.processes(), strict=True)})
    row.note = ", ".join(f"{name} {held // MIB} MiB before" for name, held in before.items())
    return row
