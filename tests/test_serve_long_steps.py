"""A running primary whose steps last, fail or are interrupted: nothing else waits for them."""

import os
import signal
from pathlib import Path
from typing import Any

import trio
import yaml

from tests.serve_world import deploys, reader_of
from tests.serving import Serving, serving
from tests.specs import STAGING
from tests.world import PATIENCE, World, make_world

SERVICES = {"slow": "", "behind": ", depends_on: [slow]", "quick": ""}
SPEC = (
    STAGING
    + """\
services:
"""
    + "".join(
        f'  {name}: {{{{repository: app, paths: ["{name}/**", tasks.py], environments: [staging],'
        f" deploy: {{{{kind: invoke, task: deploy}}}}{more}}}}}\n"
        for name, more in SERVICES.items()
    )
)

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    name, tag, root = os.environ["TRUEUP_SERVICE"], os.environ["TRUEUP_TAG"], Path({root!r})
    with (root / ("tried-" + name)).open("a") as log:
        log.write(tag + "\\n")
    if (root / ("hold-" + name)).exists():
        (root / ("hold-" + name)).read_bytes()
    if (root / ("break-" + name)).exists():
        raise SystemExit(1)
    with (root / name).open("a") as log:
        log.write(tag + "\\n")
"""


def fill(world: World) -> None:
    world.environment["TRUEUP_INTERVAL"] = "24h"
    world.app.commit({"tasks.py": TASKS.format(root=str(world.deployed))})
    release(world, "v1.0.0", *SERVICES)
    world.commit_spec(SPEC.format(app=world.app.url))


def release(world: World, tag: str, *services: str) -> None:
    """A tag at which these services differ from before."""
    world.app.commit({f"{name}/compose.yaml": tag for name in services})
    world.app.tag(tag)


def recorded(world: World, service: str) -> dict[str, Any]:
    if "refs/heads/trueup/status" not in world.spec.refs():
        return {}
    text = world.status().get(f"services/staging/{service}.yaml")
    return dict(yaml.safe_load(text)) if text is not None else {}


def conditions(world: World, service: str) -> dict[str, Any]:
    return {each["type"]: each for each in recorded(world, service).get("conditions", ())}


async def until(primary: Serving, true: Any, what: str) -> None:
    """Looked at whenever the primary has said something, as it does after each pass."""
    await primary.until(lambda: {} if true() else None, what)


async def look(primary: Serving) -> None:
    assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202


async def in_order(primary: Serving, world: World, service: str, tag: str) -> None:
    def is_so() -> bool:
        known, revision = conditions(world, service), recorded(world, service).get("lastAppliedRevision", "")
        ready = "Ready" in known and known["Ready"]["status"] == "True"
        return ready and revision.startswith(f"{tag}@") and "Reconciling" not in known

    await until(primary, is_so, f"{service} in order with {tag}")


async def held(world: World, service: str, primary: Serving, tag: str) -> int:
    """A release of which the deploy of one service is under way; what to close for it to go on."""
    fifo = world.deployed / f"hold-{service}"
    os.mkfifo(fifo)
    release(world, tag, service)
    await look(primary)
    running = await reader_of(fifo)
    fifo.unlink()
    return running


async def test_a_deploy_that_lasts_holds_back_what_depends_on_it_alone(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world)
        async with serving(world) as primary:
            for name in SERVICES:
                await in_order(primary, world, name, "v1.0.0")
            running = await held(world, "slow", primary, "v1.1.0")
            release(world, "v1.2.0", "slow", "behind", "quick")
            await look(primary)
            await in_order(primary, world, "quick", "v1.2.0")
            known = conditions(world, "slow")
            assert (known["Ready"]["status"], known["Reconciling"]["reason"]) == ("True", "Progressing")
            assert "path slow/**" in known["Reconciling"]["message"]
            # Later commits are seen to as well, and no resource has two steps at a time.
            release(world, "v1.3.0", "quick")
            await look(primary)
            await in_order(primary, world, "quick", "v1.3.0")
            assert deploys(world, "tried-slow") == ["v1.0.0", "v1.1.0"]
            assert deploys(world, "tried-behind") == ["v1.0.0"]

            os.close(running)
            await in_order(primary, world, "slow", "v1.3.0")
            await in_order(primary, world, "behind", "v1.3.0")
            assert deploys(world, "slow") == ["v1.0.0", "v1.1.0", "v1.3.0"]
            assert deploys(world, "behind") == ["v1.0.0", "v1.3.0"]
            assert deploys(world, "quick") == ["v1.0.0", "v1.2.0", "v1.3.0"]
            told = len(primary.lines)

            # One that goes on when the primary is told to end may end, and nothing else begins.
            running = await held(world, "slow", primary, "v1.4.0")
            release(world, "v1.5.0", "quick", "behind")
            await look(primary)
            await in_order(primary, world, "quick", "v1.5.0")
            primary.process.send_signal(signal.SIGTERM)
            await primary.said("stopping")
            os.close(running)
            with trio.fail_after(PATIENCE):
                assert await primary.process.wait() == 0
            assert not [line for line in primary.lines[told:] if line.get("level") == "error"]
        assert deploys(world, "slow")[3:] == ["v1.4.0"]
        assert deploys(world, "tried-behind") == ["v1.0.0", "v1.3.0"]
        async with serving(world) as primary:
            await in_order(primary, world, "slow", "v1.5.0")
            await in_order(primary, world, "behind", "v1.5.0")
            assert deploys(world, "tried-slow")[3:] == ["v1.4.0"], "its end was in the journal"
            assert await primary.end() == 0


async def test_what_fails_is_tried_again_by_itself_and_alone(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        fill(world)
        broken = world.deployed / "break-quick"
        broken.touch()
        async with serving(world) as primary:
            await in_order(primary, world, "behind", "v1.0.0")
            again = await primary.said("to be tried again", resource="services/staging/quick")
            await until(primary, lambda: len(deploys(world, "tried-quick")) > 1, "a second try")
            assert conditions(world, "quick")["Ready"]["reason"] == "DeployFailed"
            assert deploys(world, "tried-slow") == deploys(world, "tried-behind") == ["v1.0.0"]
            # A pass that looks meanwhile tells nothing else of it.
            await primary.said("to be tried again", after=primary.lines.index(again) + 1)
            commits = len(world.status_commits())
            release(world, "v1.1.0", "slow")
            await look(primary)
            await in_order(primary, world, "slow", "v1.1.0")
            assert conditions(world, "quick")["Ready"]["reason"] == "DeployFailed"
            assert len(world.status_commits()) > commits
            broken.unlink()
            await in_order(primary, world, "quick", "v1.1.0")

            # One that fails when nobody waits for it any more is told all the same, and tried again.
            broken = world.deployed / "break-slow"
            broken.touch()
            running = await held(world, "slow", primary, "v1.2.0")
            release(world, "v1.3.0", "quick")
            await look(primary)
            await in_order(primary, world, "quick", "v1.3.0")
            os.close(running)
            await until(
                primary, lambda: conditions(world, "slow")["Ready"]["reason"] == "DeployFailed", "its failure"
            )
            assert "Reconciling" not in conditions(world, "slow")
            broken.unlink()
            await in_order(primary, world, "slow", "v1.3.0")
            assert await primary.end() == 0
