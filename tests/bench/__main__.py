"""`python3 tasks.py bench`: trueup against rsync and Syncthing, side by side in one run, and what else costs.

Prints a table; nothing here passes or fails by its time. Each copy is compared with its source.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench.copies import Rounds, all_peers, tree_works
from tests.bench.crowds import FILES, bench_crowds
from tests.bench.deploys import bench_deploys
from tests.bench.document import write_section
from tests.bench.fans import AGENTS, bench_fanout, bench_real_crowds
from tests.bench.fleets import bench_fleet
from tests.bench.many import bench_many
from tests.bench.passes import bench_pass
from tests.bench.report import MIB, Measurement, machine, print_table, write_json
from tests.bench.secrets import bench_secrets
from tests.bench.soaks import bench_soak
from tests.bench.webhooks import bench_webhook

PEER = "rsync over ssh"
PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
COPIES = ("large", "insertion", "small")
WORKS = (*COPIES, "many", "pass", "secrets", "deploys", "agents", "fanout", "fleet", "webhook", "soak")


def main() -> int:
    parser = argparse.ArgumentParser("tasks.py bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run with an eighth of the sizes or less")
    parser.add_argument("--runs", type=int, help="how often each is repeated; the median counts (3)")
    parser.add_argument("--only", choices=WORKS, nargs="+", help="not all of it")
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the comparison of copies into docs/benchmarks.md, as a whole run with all sizes does",
    )
    parser.add_argument("--directory", type=Path, help="where the trees are made: decides the file system")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the soak lasts (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()
    whole = options.only is None and not options.quick
    chosen = WORKS if options.only is None else options.only
    runs = options.runs or (1 if options.quick else 3)
    measured: list[Measurement] = []
    with ExitStack() as resources:
        where = Path(
            resources.enter_context(
                tempfile.TemporaryDirectory(prefix="trueup-bench-", dir=options.directory)
            )
        ).resolve()
        facts = machine(where)
        works = [work for name, work in tree_works(quick=options.quick).items() if name in chosen]
        if works:
            (where / "trees").mkdir()
            with all_peers(where, where / "trees") as peers:
                rounds = Rounds(where / "trees", peers)
                for work in works:
                    rounds.run(work, runs)
            copies = list(rounds.measured.values())
            measured += copies
            if options.write or whole:
                write_section(PAGE, facts, copies, runs=runs, against=PEER)
        if "many" in chosen:
            measured += bench_many(where / "many", files=20_000 if options.quick else 500_000)
        if "pass" in chosen:
            services = 100 if options.quick else 1_000
            print(f"pass over {services} services", file=sys.stderr, flush=True)
            measured += bench_pass(where / "pass", services=services, runs=runs)
        if "secrets" in chosen:
            print("secrets of 1,000 services", file=sys.stderr, flush=True)
            measured += bench_secrets(runs=runs * 5)
        if "deploys" in chosen:
            services = 200 if options.quick else 1_000
            print(f"deploys of {services} services", file=sys.stderr, flush=True)
            measured += bench_deploys(where / "deploys", services=services, runs=max(runs, 2))
        if "agents" in chosen:
            print("1 to 200 agents and one tree", file=sys.stderr, flush=True)
            (where / "crowds").mkdir()
            measured += bench_crowds(where / "crowds", most=20 if options.quick else 200)
            print("1 to 20 real agents and one tree", file=sys.stderr, flush=True)
            (where / "real").mkdir()
            measured += bench_real_crowds(where / "real", most=5 if options.quick else AGENTS, files=FILES)
        if "fanout" in chosen:
            size = (25 if options.quick else 200) * MIB
            (where / "fanout").mkdir()
            fanned = bench_fanout(where / "fanout", size=size, runs=runs)
            measured += fanned
            if options.write or whole:
                write_section(PAGE, facts, fanned, runs=runs, against=PEER, name="fanout")
        if "fleet" in chosen:
            agents, returning = (200, 100) if options.quick else (2_000, 1_000)
            print(f"{agents:,} idle agents", file=sys.stderr, flush=True)
            measured += bench_fleet(where / "fleet", agents=agents, returning=returning, rest=30.0)
        if "webhook" in chosen:
            deliveries, commits = (50, 3) if options.quick else (500, 20)
            print(f"{deliveries} deliveries, {commits} commits", file=sys.stderr, flush=True)
            measured += bench_webhook(where / "webhook", deliveries=deliveries, commits=commits)
        soaked = ""
        if "soak" in chosen:
            print(f"soak of {options.minutes:g} minutes", file=sys.stderr, flush=True)
            soaked = bench_soak(where / "soak", minutes=options.minutes)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if soaked:
        print(f"\n{soaked}\n")
    if not measured:
        return 0
    print(f"medians of {runs} runs; ratio: {PEER} is 1\n")
    print_table(measured, against=PEER)
    if options.json:
        write_json(options.json, facts, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
