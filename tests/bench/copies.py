"""All peers at the same trees, in turns, so that a slow moment of the machine meets each of them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import trees
from tests.bench.blocksync import FLUSHED, block_sync
from tests.bench.ceiling import Ceiling
from tests.bench.peers import Copied, Peer, PeerMissing
from tests.bench.report import MIB, Measurement
from tests.bench.rsync import rsync_daemon, rsync_over_ssh
from tests.bench.syncthing import syncthing
from tests.bench.usage import Usage, measured

CHANGES = 100
"""Seeds of changes begin here: one that a tree was made from would bring contents that it has already."""


@dataclass(frozen=True)
class Change:
    """What happens to the tree between two copies; `number` is that of the run."""

    name: str
    make: Callable[[Path, int], None]


@dataclass(frozen=True)
class TreeWork:
    """A kind of tree: how to make it, and what follows the first copy."""

    name: str
    make: Callable[[Path], None]
    then: tuple[Change, ...]
    file: str = ""
    """Where all of it is one file: its name. Then the first copy is set against the machine's ceiling."""
    has_many: bool = False
    """Whether it has files enough to be sent while the rest is hashed."""


def nothing(_where: Path, _number: int) -> None:
    """No change: what it costs to find that out."""


def tree_works(*, quick: bool) -> dict[str, TreeWork]:
    large, inserted, count = (256 * MIB, 128 * MIB, 5_000) if quick else (2048 * MIB, 1024 * MIB, 50_000)
    unchanged = Change("nothing changed", nothing)
    return {
        "large": TreeWork(
            f"one file of {large // MIB} MiB",
            lambda where: trees.make_large_file(where, large),
            (
                unchanged,
                Change("1 % changed", lambda where, number: trees.change_large_file(where, seed=number)),
            ),
            file="large.bin",
        ),
        "insertion": TreeWork(
            f"one file of {inserted // MIB} MiB",
            lambda where: trees.make_large_file(where, inserted, seed=3),
            (
                Change(
                    "a byte inserted at the front",
                    lambda where, number: trees.insert_at_front(where, seed=number),
                ),
            ),
        ),
        "small": TreeWork(
            f"{count:,} files of 0.2 to 16 KB",
            lambda where: trees.make_small_files(where, count),
            (
                unchanged,
                Change("one changed", lambda where, number: trees.change_one_file(where, seed=number)),
                Change(
                    "one more changed", lambda where, number: trees.change_one_file(where, seed=number + 999)
                ),
                Change("1 % changed", lambda where, number: trees.change_small_files(where, seed=number)),
            ),
            has_many=True,
        ),
    }


@contextmanager
def all_peers(where: Path, place: Path) -> Iterator[list[Peer]]:
    """Every peer that can run here, ours last; `place` is where the trees are.

    Ours comes twice: as rsync does it, which leaves to the system when the disk gets what was written, and as
    it is without a setting, when all is on the disk before a task is a success. And once more, for first
    copies alone, as it brings a repository's tree: that is sent while it is hashed.
    """
    with ExitStack() as resources:
        peers: list[Peer] = []
        makers: Sequence[Callable[[], object]] = (
            lambda: resources.enter_context(rsync_over_ssh(where / "ssh")),
            lambda: resources.enter_context(rsync_daemon(where / "rsyncd", place)),
            lambda: resources.enter_context(syncthing(where / "syncthing")),
        )
        for make in makers:
            try:
                peers.append(make())  # type: ignore[arg-type]
            except PeerMissing as missing:
                print(f"One peer less: {missing}", file=sys.stderr)
        own = resources.enter_context(block_sync(where / "private", place))
        peers += [own, own.with_durability(FLUSHED), own.of_checkout()]
        yield peers


def use_memory(place: Path, size: int) -> None:
    """Fills so much of the file system and frees it again, before each copy: memory that a virtual machine
    has not used lately costs several times as much, which nobody should pay for more than others."""
    piece = os.urandom(MIB)
    filling = place / "filling"
    with filling.open("wb") as file:
        for _ in range(min(size, shutil.disk_usage(place).free // 2) // MIB):
            file.write(piece)
    filling.unlink()


class Rounds:
    def __init__(self, place: Path, peers: Sequence[Peer]) -> None:
        self._place = place
        self._peers = peers
        self.measured: dict[tuple[str, str], Measurement] = {}

    def run(self, work: TreeWork, runs: int) -> None:
        source = self._place / "source"
        work.make(source)
        for number in range(runs):
            # Who comes later finds memory and caches as the others left them: each run another one begins.
            first = number % len(self._peers)
            peers = [*self._peers[first:], *self._peers[:first]]
            print(f"{work.name}: run {number + 1} of {runs}", file=sys.stderr, flush=True)
            targets = {peer.name: self._place / f"target-{at}" for at, peer in enumerate(peers)}
            for peer in peers:
                targets[peer.name].mkdir()
                peer.prepare(source, targets[peer.name])
            lasting = [peer for peer in peers if not peer.first_copies_only]
            self._all(f"{work.name}, first copy", source, targets, peers if work.has_many else lasting)
            if work.file:
                self._measure_ceiling(f"{work.name}, first copy", source / work.file)
            for change in work.then:
                change.make(source, CHANGES + number)
                self._all(f"{work.name}, {change.name}", source, targets, lasting)
            for peer in peers:
                peer.forget(source, targets[peer.name])
                shutil.rmtree(targets[peer.name])
        shutil.rmtree(source)

    def _measure_ceiling(self, work: str, file: Path) -> None:
        ceiling = Ceiling(self._place.parent / "ceiling")
        target = self._place / "ceiling"
        use_memory(self._place, file.stat().st_size)
        os.sync()
        with measured(ceiling.processes) as usage:
            copied = ceiling.copy(file, target)
        target.unlink()
        self._note(work, ceiling.name, copied, usage)

    def _all(self, work: str, source: Path, targets: Mapping[str, Path], peers: Iterable[Peer]) -> None:
        size = trees.size_of(source)
        for peer in peers:
            use_memory(self._place, size)
            os.sync()  # what was written before is not paid for by the next run
            target = targets[peer.name]
            with measured(peer.processes) as usage:
                copied = peer.copy(source, target)
            self._note(work, peer.name, copied, usage)
            if found := trees.differences(source, target, peer.compare_options):
                raise RuntimeError(f"{work}: {peer.name} left a wrong copy: {found}")

    def _note(self, work: str, name: str, copied: Copied, usage: Usage) -> None:
        row = self.measured.setdefault((work, name), Measurement(work, name))
        row.seconds.append(copied.seconds)
        if copied.scan_seconds is not None:
            row.scan_seconds.append(copied.scan_seconds)
        row.bytes_moved = copied.bytes_moved
        row.wire_bytes.append(usage.wire_bytes)
        row.cpu_seconds.append(usage.cpu_seconds)
        row.note_memory({"": usage.peak_rss})
