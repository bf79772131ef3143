"""Golden cases: what a pass plans in a small world, one file a case, several passes a case.

A case is a YAML file in tests/golden/ with `about` and `passes`. Each pass changes the world first (`now`,
`spec`, `commits`, `branches`, `tags`, `secrets`, `drift`, `control`) and then expects the lines of the plan.
Its steps then happen; those in `fails` end with that reason. Where a release is returned from, `back`
expects the plan of the pass that follows at once. After a pass in which nothing failed nothing is left to do,
unless `more` says so: what one environment has run, another one takes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden_world import GoldenWorld

CASES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "golden").glob("*.yaml"))}


@pytest.mark.parametrize("name", CASES)
async def test_golden_plan(name: str) -> None:
    case = yaml.safe_load(CASES[name])
    world = GoldenWorld()
    for number, each in enumerate(case["passes"], 1):
        where = f"{name}, pass {number}"
        change(world, each, f"spec-{number}")
        planned = world.plan(forced=tuple(each.get("forced", ())), force_prune=each.get("force_prune", False))
        assert planned.lines() == each["expect"], as_yaml(where, planned.lines())
        returned = await planned.apply(each.get("fails", {}))
        assert bool(returned) == ("back" in each), f"{where}: {returned}"
        if returned:
            planned = world.plan()
            assert planned.lines() == each["back"], as_yaml(f"{where}, the way back", planned.lines())
            assert not await planned.apply({}), where
        if not (each.get("fails") or each.get("more")):
            again = [line for line in world.plan().lines() if line.split(" ")[0].islower()]
            assert not again, f"{where}: a plan after a pass that applied everything has no steps"


def as_yaml(where: str, lines: list[str]) -> str:
    """What was planned, in the form that a case has it in."""
    return f"{where}; planned:\n{yaml.safe_dump(lines, width=1000, allow_unicode=True)}"


def change(world: GoldenWorld, each: dict[str, Any], spec_name: str) -> None:
    """The world as one pass of a case finds it."""
    if "now" in each:
        moment = each["now"]
        world.now = (
            moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else datetime.fromisoformat(moment)
        )
    if "spec" in each:
        world.set_spec(each["spec"], spec_name)
    for name, commit in each.get("commits", {}).items():
        world.commit(name, commit.get("parent"), commit.get("files", {}))
        world.picks[name] = tuple(commit.get("picks", ()))
    world.branches.update(each.get("branches", {}))
    for name, tag in each.get("tags", {}).items():
        if tag is None:
            del world.tags[name]
        else:
            world.tag(name, tag["commit"], tag.get("trailers"))
    world.secrets.update(each.get("secrets", {}))
    world.drift = each.get("drift", {})
    for record in each.get("control", ()):
        world.record(**record)
