"""Primaries that are killed while they make a release, and two of them at once: one tag, one record."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.canaries import may_hold
from tests.releasing import Life, begin_life
from tests.world import World


@asynccontextmanager
async def life_at(root: Path) -> AsyncIterator[Life]:
    """A world where staging runs v0.1.0, and a second machine that has the same key."""
    async with begin_life(root) as life:
        world = life.world
        await world.reconcile()
        other = other_machine(world)
        other.mkdir(mode=0o700)
        shutil.copy(world.state / "master.key", may_hold(other / "master.key"))
        yield life


def other_machine(world: World) -> Path:
    return world.root / "other"


def stop_at_tags(world: World, state: str) -> Path:
    """A pipe that a push of a tag waits at: before the tag is there (`prepared`) or after (`committed`)."""
    pipe = world.root / "pipe"
    os.mkfifo(pipe)
    hook = world.app.path / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    waits = f"[ -p '{pipe}' ] && {{ read -r _ < '{pipe}' || exit 1; }}"
    hook.write_text(f'#!/bin/sh\n[ "$1" = {state} ] && grep -q refs/tags/ && {waits}\nexit 0\n')
    hook.chmod(0o755)
    return pipe


@pytest.mark.parametrize("state", ["prepared", "committed"])
@pytest.mark.parametrize("machine", ["state", "other"])
async def test_a_pass_that_was_killed_while_it_made_a_tag(tmp_path: Path, state: str, machine: str) -> None:
    async with life_at(tmp_path) as life:
        world = life.world
        commit = life.change("1")
        pipe = stop_at_tags(world, state)
        held: list[int] = []
        await world.kill_during(lambda: held.append(os.open(pipe, os.O_WRONLY)), "reconcile")
        pipe.unlink()
        os.close(held[0])
        assert ("v0.1.1" in life.tags()) is (state == "committed")
        assert life.runs("staging")[0] == "v0.1.0"
        done = await world.trueup("reconcile", "-o", "json", TRUEUP_STATE_DIR=str(world.root / machine))
        assert sorted(done.document["outcomes"]) == ["releases/staging/app", "services/staging/web"]
        assert life.runs("staging") == ("v0.1.1", commit, "cut", "succeeded")
        assert sorted(life.tags()) == ["v0.1.0", "v0.1.1"]
        assert life.deploys("staging") == ["v0.1.0 0 one", "v0.1.1 1 one"]
        [before] = life.environment("staging")["units"]["app"]["history"]
        assert before["tag"] == "v0.1.0"
        assert (await world.reconcile())["steps"] == []


async def test_two_primaries_at_once_make_one_release_and_record_it_once(tmp_path: Path) -> None:
    async with life_at(tmp_path) as life:
        world = life.world
        for number in range(1, 5):
            commit = life.change(str(number))
            async with trio.open_nursery() as nursery:
                for machine in (world.state, other_machine(world)):
                    nursery.start_soon(reconcile_on, world, machine)
            assert life.runs("staging") == (f"v0.1.{number}", commit, "cut", "succeeded")
        assert sorted(life.tags()) == [f"v0.1.{number}" for number in range(5)]
        history = life.environment("staging")["units"]["app"]["history"]
        assert [each["tag"] for each in history] == [f"v0.1.{number}" for number in (3, 2, 1, 0)]
        assert set(life.deploys("staging")) == {f"v0.1.{number} {number} one" for number in range(5)}
        assert (await world.reconcile())["steps"] == []


async def reconcile_on(world: World, machine: Path) -> None:
    await world.trueup("reconcile", TRUEUP_STATE_DIR=str(machine))
