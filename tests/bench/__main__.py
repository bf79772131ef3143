"""`python3 tasks.py bench`: trueup against rsync over ssh, side by side in one run, and the cost of a pass.

Prints a table; nothing here passes or fails by its time. Each copy is compared with its source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import trees
from tests.bench.blocksync import BlockSync, block_sync
from tests.bench.deploys import bench_deploys
from tests.bench.fleets import bench_fleet
from tests.bench.passes import bench_pass
from tests.bench.report import MIB, Measurement, machine, print_table, write_json
from tests.bench.rsync import PeerMissing, RsyncOverSsh, rsync_over_ssh
from tests.bench.secrets import bench_secrets
from tests.bench.soaks import bench_soak
from tests.bench.webhooks import bench_webhook

OURS, PEER = "trueup", "rsync over ssh"
WORKS = ("large", "small", "pass", "secrets", "deploys", "fleet", "webhook", "soak")


@dataclass(frozen=True)
class TreeWork:
    """A kind of tree: how to make it, and how to change a hundredth of it."""

    name: str
    make: Callable[[Path], None]
    change: Callable[[Path, int], None]


def tree_works(*, quick: bool) -> dict[str, TreeWork]:
    size, count = (256 * MIB, 5_000) if quick else (2048 * MIB, 50_000)
    return {
        "large": TreeWork(
            f"one file of {size // MIB} MiB",
            lambda where: trees.make_large_file(where, size),
            lambda where, seed: trees.change_large_file(where, seed=seed),
        ),
        "small": TreeWork(
            f"{count:,} files of 0.2 to 16 KB",
            lambda where: trees.make_small_files(where, count),
            lambda where, seed: trees.change_small_files(where, seed=seed),
        ),
    }


class Rounds:
    """The runs of both peers on one tree, in turns, so that a slow moment of the machine meets both."""

    def __init__(self, where: Path, rsync: RsyncOverSsh | None, ours: BlockSync, durability: str) -> None:
        self._where = where
        self._rsync = rsync
        self._ours = ours
        self._durability = durability
        self.measured: dict[tuple[str, str], Measurement] = {}

    def run(self, work: TreeWork, runs: int) -> None:
        source = self._where / "source"
        work.make(source)
        for number in range(runs):
            print(f"{work.name}: run {number + 1} of {runs}", file=sys.stderr, flush=True)
            targets = {peer: self._where / f"target-{peer.split()[0]}" for peer in (PEER, OURS)}
            for target in targets.values():
                target.mkdir()
            self._both(f"{work.name}, first copy", source, targets)
            self._both(f"{work.name}, nothing changed", source, targets)
            work.change(source, number)
            self._both(f"{work.name}, 1 % changed", source, targets)
            for target in targets.values():
                shutil.rmtree(target)
        shutil.rmtree(source)

    def _both(self, work: str, source: Path, targets: dict[str, Path]) -> None:
        if self._rsync:
            os.sync()  # what was written before is not paid for by the next run
            copied = self._rsync.copy(source, targets[PEER])
            measured = self._at(work, PEER)
            measured.seconds.append(copied.seconds)
            measured.bytes_moved = copied.bytes_moved
            _verify(work, PEER, source, targets[PEER])
        os.sync()
        synced = self._ours.copy(source, targets[OURS], durability=self._durability)
        measured = self._at(work, OURS)
        measured.seconds.append(synced.seconds)
        measured.scan_seconds.append(synced.scan_seconds)
        measured.bytes_moved = synced.bytes_moved
        measured.note_memory(synced.peak_rss)
        _verify(work, OURS, source, targets[OURS])

    def _at(self, work: str, peer: str) -> Measurement:
        return self.measured.setdefault((work, peer), Measurement(work, peer))


def _verify(work: str, peer: str, source: Path, target: Path) -> None:
    if found := trees.differences(source, target):
        raise RuntimeError(f"{work}: {peer} left a wrong copy: {found}")


def main() -> int:
    parser = argparse.ArgumentParser("tasks.py bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run with an eighth of the sizes or less")
    parser.add_argument("--runs", type=int, help="how often each is repeated; the median counts (3)")
    parser.add_argument("--only", choices=WORKS, nargs="+", default=WORKS, help="not all of it")
    parser.add_argument("--directory", type=Path, help="where the trees are made: decides the file system")
    parser.add_argument(
        "--durability",
        choices=("none", "commit", "paced"),
        default="commit",
        help="of trueup's writes; the default is trueup's own, none is what rsync does",
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the soak lasts (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    runs = options.runs or (1 if options.quick else 3)
    measured: list[Measurement] = []
    with ExitStack() as resources:
        where = Path(
            resources.enter_context(
                tempfile.TemporaryDirectory(prefix="trueup-bench-", dir=options.directory)
            )
        ).resolve()
        facts = machine(where)
        works = [work for name, work in tree_works(quick=options.quick).items() if name in options.only]
        if works:
            rsync: RsyncOverSsh | None = None
            try:
                rsync = resources.enter_context(rsync_over_ssh(where / "ssh"))
            except PeerMissing as missing:
                print(f"No comparison with rsync over ssh: {missing}", file=sys.stderr)
            (where / "trees").mkdir()
            ours = resources.enter_context(block_sync(where / "private", where / "trees"))
            rounds = Rounds(where / "trees", rsync, ours, options.durability)
            for work in works:
                rounds.run(work, runs)
            measured += rounds.measured.values()
        if "pass" in options.only:
            services = 100 if options.quick else 1_000
            print(f"pass over {services} services", file=sys.stderr, flush=True)
            measured += bench_pass(where / "pass", services=services, runs=runs)
        if "secrets" in options.only:
            print("secrets of 1,000 services", file=sys.stderr, flush=True)
            measured += bench_secrets(runs=runs * 5)
        if "deploys" in options.only:
            services = 200 if options.quick else 1_000
            print(f"deploys of {services} services", file=sys.stderr, flush=True)
            measured += bench_deploys(where / "deploys", services=services, runs=max(runs, 2))
        if "fleet" in options.only:
            agents, returning = (200, 100) if options.quick else (2_000, 1_000)
            print(f"{agents:,} idle agents", file=sys.stderr, flush=True)
            measured += bench_fleet(where / "fleet", agents=agents, returning=returning, rest=30.0)
        if "webhook" in options.only:
            deliveries, commits = (50, 3) if options.quick else (500, 20)
            print(f"{deliveries} deliveries, {commits} commits", file=sys.stderr, flush=True)
            measured += bench_webhook(where / "webhook", deliveries=deliveries, commits=commits)
        soaked = ""
        if "soak" in options.only:
            print(f"soak of {options.minutes:g} minutes", file=sys.stderr, flush=True)
            soaked = bench_soak(where / "soak", minutes=options.minutes)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if soaked:
        print(f"\n{soaked}\n")
    if not measured:
        return 0
    print(
        f"durability of trueup's writes: {options.durability}; medians of {runs} runs; ratio: {PEER} is 1\n"
    )
    print_table(measured, against=PEER)
    if options.json:
        write_json(options.json, {**facts, "durability": options.durability}, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
