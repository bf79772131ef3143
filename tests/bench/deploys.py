"""Deploys of many services of one repository: what a commit costs to plan, and what apply costs by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.passes import make_world, run_command
from tests.bench.report import Measurement


def bench_deploys(where: Path, *, services: int, runs: int) -> list[Measurement]:
    """The plan after a commit of one file, a pass that deploys everything with a driver that does nothing,
    and the same where 5 % of the targets hang until the others are done."""
    environment = make_world(where, services)
    run_command([sys.executable, "-m", "reconciler", "key", "new"], environment)
    said = run_command(
        [sys.executable, "-m", "tests.bench.running_deploys", str(where), str(runs)], environment
    )
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    planning = Measurement(f"plan of a one-file commit, {services} services", "trueup", told["planning"])
    planning.note = "one service planned; goal: under 1 s"
    planning.note_memory({"primary": told["peak_rss"]})
    deploys = Measurement(
        f"{services} deploys that do nothing", "trueup", [one["apply"] for one in told["none"]]
    )
    deploys.note = f"{services / deploys.median:.0f} a second; goal: at least 50"
    whole = Measurement(
        f"{services} deploys that do nothing, whole pass", "trueup", [one["pass"] for one in told["none"]]
    )
    whole.note = f"{services / whole.median:.0f} a second; goal: at least 50"
    none = Measurement("95 % of the others done, none hangs", "trueup", [one["p95"] for one in told["none"]])
    some = Measurement("95 % of the others done, 5 % hang", "trueup", [one["p95"] for one in told["some"]])
    # Run in turns, so that each pair met the same machine; the best of each shows how far chance goes.
    ratio = median(one / other for one, other in zip(some.seconds, none.seconds, strict=True))
    best = min(some.seconds) / min(none.seconds)
    some.note = (
        f"{(ratio - 1) * 100:+.1f} % (median of pairs; best of each {(best - 1) * 100:+.1f} %); "
        "goal: at most +10 %"
    )
    return [planning, deploys, whole, none, some]
