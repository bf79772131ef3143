"""`trueup events`, `logs` and `get -w`: at a running primary, over its restart, and where none runs."""

import os
from datetime import timedelta
from itertools import groupby
from pathlib import Path

import pytest
import trio

from reconciler.event_source import open_source
from reconciler.primary import utc_now
from reconciler.selecting import Selection
from reconciler.settings import Settings, load_settings
from reconciler.watch_events import Asked, newest
from tests.canaries import canary, may_hold
from tests.serving import Serving, serving
from tests.specs import STAGING
from tests.watching import Watching, watching
from tests.world import World, make_world, tree_of

SPEC = (
    STAGING
    + """\
secret_sources:
  local: {{kind: env_file, file: "{env_file}"}}
services:
  api:
    repository: app
    paths: ["api/**"]
    env: {{LEVEL: "{level}"}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
projects:
  site:
    name: The site
    repository: app
    branch: main
    path: site
    sync:
      nodes:
        - {{node_id: web-1, target_path: "{target}"}}
      files:
        - {{path: .env, format: dotenv, mode: "0600", secrets: [local]}}
      after: [show]
nodes:
{nodes}"""
)

TASKS = """\
import os
from invoke import task

@task
def deploy(c):
    if os.environ["LEVEL"] == "bad":
        raise SystemExit(3)
"""

DAY = "24h"


def settings_of(world: World) -> Settings:
    return load_settings({"HOME": str(world.root), **world.environment}, root=False)


class Site:
    """The world of these tests, and the spec that it has."""

    def __init__(self, world: World, text: str) -> None:
        self.world = world
        self.text = text

    def level(self, level: str) -> None:
        """Makes the next pass deploy the service, which fails with the level `bad`."""
        self.world.commit_spec(self.text.replace('LEVEL: "good"', f'LEVEL: "{level}"'))

    async def deploy(self, primary: Serving, level: str) -> None:
        self.level(level)
        seen = len(primary.lines)
        assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
        await primary.said("pass ended", after=seen)


async def test_what_happens_is_watched(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        env_file = may_hold(tmp_path / "local.env")
        env_file.write_text(f"PASSWORD={canary('watched-password')}\n")
        env_file.chmod(0o600)
        world.app.commit({"tasks.py": TASKS, "api/a": "1", "site/index.html": "<h1>hello</h1>\n"})
        world.app.tag("v1.0.0")
        world.commit_spec("version: 1\n")
        host = await world.add_host("web-1", relay.address)
        may_hold(host.srv / "site" / ".env")
        script = tmp_path / "show.sh"
        script.write_text(
            f"cat {host.srv}/site/.env\nprintf 'a\\033]0;owned\\007b\\n'\n"
            f"[ ! -p {tmp_path}/gate ] || exit $(cat {tmp_path}/gate)\n"
        )
        host.extra += ["--allow", f"show=sh {script}"]
        nodes = world.spec.read("trueup.yaml").decode().partition("nodes:\n")[2]
        text = SPEC.format(
            app=world.app.url, env_file=env_file, level="good", target=host.srv / "site", nodes=nodes
        )
        world.commit_spec(text)
        site = Site(world, text)
        async with serving(world, TRUEUP_INTERVAL=DAY) as primary:
            await world.start_agent(host)
            await primary.applied(action="sync")
            await check_events(world)
            await check_logs(site, primary)
            async with (
                watching(world, "events", "-w", "-o", "json") as events,
                watching(world, "get", "service/api", "-w", "-o", "json") as status,
            ):
                await follow_over_a_restart(site, primary, events, status)
        await check_without_a_primary(world)


async def check_events(world: World) -> None:
    everything = (await world.trueup("events", "-o", "json")).document["events"]
    assert [event["id"] for event in everything] == list(range(1, len(everything) + 1))
    [paired] = [event for event in everything if event["kind"] == "paired"]
    source = await open_source(settings_of(world), pytest.fail)
    now = utc_now()
    for asked, found in (
        (Asked(None, "paired", None, 50), [paired]),
        (Asked(Selection("nodes", "web-1"), "", None, 50), [paired]),
        (Asked(None, "", None, 1), everything[-1:]),
        (Asked(None, "", now - timedelta(hours=24), None), everything),
        (Asked(None, "", now, None), []),
        (Asked(Selection("services", "none"), "", None, 50), []),
    ):
        assert await newest(source, asked) == (found, everything[-1]["id"]), asked
    table = (await world.trueup("events", "--kind", "paired", "--for", "node/web-1")).stdout.splitlines()
    assert table[0].split() == ["AT", "KIND", "RESOURCE", "REASON", "MESSAGE"]
    assert table[2].split() == [f"{paired['at'][:19]}Z", "paired", "nodes/web-1", paired["reason"]]
    refused = await world.trueup("events", "--for", "servces/web", expect=1)
    assert refused.stderr == "error: servces/web: there is no kind servces; did you mean services?\n"


async def check_logs(site: Site, primary: Serving) -> None:
    world = site.world
    listed = (await world.trueup("logs")).stdout.splitlines()
    assert listed[0].split() == ["TASK", "STATE", "CREATED", "NODE", "RESOURCE"]
    short, state, _, node, _ = listed[2].split()
    assert (len(short), state, node) == (8, "SUCCESS", "web-1")
    printed = (await world.trueup("logs", short, "-f")).stdout
    head, *lines = printed.splitlines()
    assert head.startswith("attempt 1: SUCCESS at ")
    assert lines == ["$ show", "***", "a\ufffd]0;owned\ufffdb", "exit code 0"]

    # One that runs is followed to its end, which is the end of the command.
    gate = world.root / "gate"
    os.mkfifo(gate)
    world.app.commit({"site/index.html": "<h1>again</h1>\n"})
    assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
    opened = await trio.to_thread.run_sync(lambda: gate.open("w"), abandon_on_cancel=True)
    gate.unlink()  # whatever tries it again is not held up
    with opened:
        async with watching(world, "logs", "-f", "projects/site", "-o", "json") as logs:
            await logs.until(lambda: "attempt 1 is under way" in logs.err)
            assert logs.out == ""
            opened.write("3")
            opened.close()
            assert await logs.end() == 1
    [attempt] = logs.documents
    assert (attempt["number"], attempt["state"], attempt["reason"]) == (1, "FAILED", "CommandFailed")
    assert logs.err.splitlines()[-1].endswith(": FAILED")
    failed = await primary.said("step failed")
    assert logs.err.splitlines()[-1] == f"task {failed['task'][:8]}: FAILED"


async def follow_over_a_restart(site: Site, primary: Serving, events: Watching, status: Watching) -> None:
    """Whatever happens to the primary, each event is there once, and each state of a status file too."""
    world = site.world

    def told(kind: str, times: int = 1) -> bool:
        found = [each for each in events.documents if each["resource"] == "services/staging/api"]
        return [each["kind"] for each in found].count(kind) == times

    def states() -> list[str]:
        """Whether it was ready, each time that this changed."""
        conditions = [document["conditions"] for document in status.documents]
        all_states = [each["status"] for found in conditions for each in found if each["type"] == "Ready"]
        return [state for state, _ in groupby(all_states)]

    await status.until(lambda: states() == ["True"])
    await site.deploy(primary, "bad")
    await events.until(lambda: told("failed"))
    await status.until(lambda: states()[1:] == ["False"])
    assert await primary.end() == 0
    await events.until(lambda: "trying again" in events.err)
    # What is not heard of while it happens is heard of later.
    site.level("good")
    await world.reconcile("--wait-agents", "0", expect=None)
    async with serving(world, TRUEUP_INTERVAL=DAY) as again:
        await events.until(lambda: "the primary is there again" in events.err)
        await events.until(lambda: told("recovered"))
        await status.until(lambda: states()[-1] == "True")
        await site.deploy(again, "bad")
        await events.until(lambda: told("failed", 2))
        recorded = (await world.trueup("events", "--since", "24h", "-o", "json")).document["events"]
        await events.until(lambda: len(events.documents) >= len(recorded))
        assert events.documents[: len(recorded)] == recorded
        await status.until(lambda: states()[-1] == "False")
        assert {document["id"] for document in status.documents} == {"services/staging/api"}
        for watched in (events, status):
            assert await watched.interrupt() == 130
            assert "Traceback" not in watched.err and "internal error" not in watched.err
        assert await again.end() == 0


async def check_without_a_primary(world: World) -> None:
    """The journal is read where nothing serves, and stays as it is."""
    before = tree_of(world.state)
    ran = await world.trueup("events", "--kind", "paired", "-o", "json")
    assert [event["resource"] for event in ran.document["events"]] == ["nodes/web-1"]
    assert ran.stderr == f"no primary is running here: this is from the journal in {world.state}\n"
    after = tree_of(world.state)
    # What SQLite keeps beside a file that it reads holds nothing.
    assert after.keys() - before.keys() <= {"journal.sqlite-shm", "journal.sqlite-wal"}
    assert {name: after[name] for name in before} == before
    nowhere = await world.trueup("events", expect=1, TRUEUP_STATE_DIR=str(world.root / "nowhere"))
    assert (nowhere.stdout, nowhere.stderr.count("\n")) == ("", 1)
    assert nowhere.stderr.startswith("error: no primary is running on ")
    assert not (world.root / "nowhere").exists()
