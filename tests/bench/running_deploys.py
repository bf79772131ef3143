"""Passes in one process with a driver that does nothing, or hangs; started by `deploys.py`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import trio

from reconciler.apply import Outcome
from reconciler.deploy import driver
from reconciler.deploy.request import DeployOutcome, DeployRequest, Driver, TaskTimeout
from reconciler.plan import Plan, Step
from reconciler.primary import Primary, open_primary
from reconciler.reconcile import prepare, reconcile
from reconciler.settings import load_settings

HANGING = 20
"""One of so many targets."""


class Idle(Driver):
    """Does nothing, at once; targets that hang do so until all others are done."""

    needs_checkout = False

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        self.others_done = trio.Event()

    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        await trio.lowlevel.checkpoint()
        if request.service.id in self.hanging:
            await self.others_done.wait()
            raise TaskTimeout("it hung until the others were done")
        return DeployOutcome(0, "", 0.0)


async def deploy_all(primary: Primary, idle: Idle, *, hanging: bool = False) -> Mapping[str, float]:
    """One pass that deploys everything: its seconds, those of apply, and when 95 % of the others ended."""
    spec = (await prepare(primary, patience=None)).spec.spec
    ids = [service.id for service in spec.services]
    idle.hanging = set(ids[HANGING // 2 :: HANGING])
    others = set(ids) - idle.hanging
    if not hanging:
        idle.hanging = set()
    idle.others_done = trio.Event()
    planned = ended = 0.0
    at: list[float] = []

    def on_plan(plan: Plan) -> None:
        nonlocal planned
        planned = time.perf_counter()
        if len(plan.steps) != len(ids):
            raise RuntimeError(f"{len(plan.steps)} steps for {len(ids)} services")

    def on_change(step: Step, outcome: Outcome | None) -> None:
        nonlocal ended
        if outcome is None:
            return
        ended = time.perf_counter()
        if step.resource in others:
            at.append(ended - planned)
            if len(at) == len(others):
                idle.others_done.set()

    begin = time.perf_counter()
    await reconcile(primary, patience=0, forced=ids, on_plan=on_plan, on_change=on_change)
    whole = time.perf_counter() - begin
    return {"pass": whole, "apply": ended - planned, "p95": sorted(at)[len(at) * 95 // 100]}


def push_a_commit(where: Path, number: int) -> None:
    """One file of one service is another, and released."""
    (where / "app" / f"service-{number:04}" / "compose.yaml").write_text(f"# again {number}\n")
    git = ["git", "-C", str(where / "app")]
    for command in (
        ["commit", "--quiet", "--all", "--message=One file"],
        ["tag", "--annotate", "--message=Next", f"v1.0.{number + 1}"],
        ["push", "--quiet", str(where / "app.git"), "main", f"v1.0.{number + 1}"],
    ):
        subprocess.run([*git, *command], check=True)


async def main(where: Path, runs: int) -> None:
    idle = Idle()
    # Only here: what ships knows no such driver.
    driver.DRIVERS = MappingProxyType({"invoke": idle})
    told: dict[str, list[Mapping[str, float]]] = {"first": [], "none": [], "some": []}
    planning: list[float] = []
    async with open_primary(load_settings(os.environ, {})) as primary:
        told["first"].append(await deploy_all(primary, idle))
        for number in range(runs + 2):
            # In turns, and each first as often: a slow moment of the machine meets both.
            for some in (True, False) if number % 2 else (False, True):
                told["some" if some else "none"].append(await deploy_all(primary, idle, hanging=some))
        await deploy_all(primary, idle)
        for number in range(runs):
            push_a_commit(where, number)
            begin = time.perf_counter()
            prepared = await prepare(primary, patience=None)
            planning.append(time.perf_counter() - begin)
            steps = [step.resource for step in prepared.plan.steps]
            if steps != [f"services/production/service-{number:04}"]:
                raise RuntimeError(f"a commit for one service plans {steps[:10]}")
            await reconcile(primary, patience=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**told, "planning": planning, "peak_rss": peak}))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
