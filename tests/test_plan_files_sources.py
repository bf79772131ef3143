"""`trueup plan --files` of what is no plain checkout: a build's output, a live directory, and releases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agent.blocks import MIN_BLOCK
from tests.agent.test_task import inodes
from tests.serving import Line, Serving, serving
from tests.specs import ONE_SITE
from tests.world import World, make_world, tree_of

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
nodes: {{}}
projects:
  built:
    repository: app
    branch: main
    path: out
    build: build
    sync:
      on_drift: report
      nodes: [{{node_id: web-1, target_path: "{root}/built"}}]
  live:
    source: {{directory: "{live}"}}
    sync:
      on_drift: report
      ignore_patterns: ["*.part"]
      nodes: [{{node_id: web-1, target_path: "{root}/live"}}]
"""

TASKS = """\
from pathlib import Path
from invoke import task

@task
def build(c):
    out = Path("out")
    out.mkdir()
    (out / "index.html").write_text(Path("source.txt").read_text().upper())
    if "broken" in Path("source.txt").read_text():
        raise SystemExit(7)
    with open({log!r}, "a") as log:
        log.write("built\\n")
"""

RELEASED = (
    ONE_SITE
    + """\
      strategy: release
      keep: 3
      max_delete: 100%
      on_drift: report
      retry: {{attempts: 1}}
      nodes: [{{node_id: web-1, target_path: "{root}/site"}}]
      after: [note]
"""
)


async def synced(primary: Serving, project: str, after: int = 0) -> None:
    def find() -> Line | None:
        steps = [line for line in primary.lines[after:] if line.get("action") == "sync"]
        return next(
            (
                line
                for line in steps
                if line["event"] == "step applied" and line["resource"].split("/")[2] == project
            ),
            None,
        )

    await primary.until(find, f"{project} synced")


async def files_of(world: World, project: str, *, expect: int = 0) -> Any:
    """The one target of a project, as a machine reads it."""
    ran = await world.trueup("plan", "--files", project, "-o", "json", expect=expect)
    [target] = ran.document["targets"]
    return target


def deeds(target: Any) -> dict[str, str]:
    return {item["path"]: item["deed"] for item in target["items"]}


async def test_what_a_build_and_a_live_directory_would_change(tmp_path: Path) -> None:
    live, log = tmp_path / "assets", tmp_path / "built"
    live.mkdir()
    (live / "a.css").write_text("one\n")
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"tasks.py": TASKS.format(log=str(log)), "source.txt": "hello\n"})
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(app=world.app.url, live=live, root=root))
        host = await world.add_host("web-1", relay.address)
        async with serving(world) as primary:
            assert (await world.join(host)).exit_code == 0
            await world.start_agent(host, joined=True)
            await synced(primary, "built")
            await synced(primary, "live")
            assert (root / "built/index.html").read_text() == "HELLO\n"
            assert log.read_text() == "built\n"
            before = inodes(root)

            # A build runs for it, once, and what it would leave is what counts: not what is in the commit.
            world.app.commit({"source.txt": "hello there\n"})
            ran = await world.trueup("plan", "--files", "built", "--detailed-exitcode", expect=2)
            head, *lines = ran.stdout.splitlines()
            assert f": web-1:{root}/built to main@" in head
            assert lines == [
                "  update  index.html  (at most 12 B to send)",
                "  1 update; at most 12 B to send",
            ]
            assert log.read_text() == "built\n" * 2

            # A directory is looked at as it is now, and by its rules.
            (live / "a.css").write_text("three\n")
            (live / "b.css").write_text("four\n")
            (live / "c.part").write_text("not yet\n")
            target = await files_of(world, "live")
            assert deeds(target) == {"a.css": "update", "b.css": "create"}
            assert (target["requestedBytes"], target["filesWritten"], target["state"]) == (11, 2, "changes")
            assert target["revision"].startswith("dir@sha256:")

            # What cannot be known is no plan without changes.
            world.app.commit({"source.txt": "broken\n"})
            target = await files_of(world, "built", expect=1)
            assert (target["state"], target["reason"], target["items"]) == ("unknown", "BuildFailed", [])
            live.rename(tmp_path / "away")
            target = await files_of(world, "live", expect=1)
            assert (target["state"], target["items"]) == ("unknown", [])
            assert str(live) in target["message"]
            (tmp_path / "away").rename(live)

            assert inodes(root) == before
            assert [path.name for path in (world.state / "checkouts").iterdir()] == [".lock"]
            assert await primary.end() == 0

        # Where no primary runs, the same is said by the agents that come to this one.
        world.app.commit({"source.txt": "hello there\n"})
        built = await files_of(world, "built")
        assert (deeds(built), built["requestedBytes"]) == ({"index.html": "update"}, 12)
        assert deeds(await files_of(world, "live")) == {"a.css": "update", "b.css": "create"}
        assert inodes(root) == before


async def test_what_another_release_would_change(tmp_path: Path) -> None:
    large, small = os.urandom(3 * MIN_BLOCK + 5).hex(), "s" * 3000
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(RELEASED.format(app=world.app.url, root=root))
        world.app.commit({"site/index.html": "one\n", "site/large": large, "site/old/css": small})
        host = await world.add_host("web-1", relay.address)
        host.extra += ["--allow", "note=sh -c 'true'"]
        async with serving(world) as primary:
            assert (await world.join(host)).exit_code == 0

            async def passes() -> None:
                after = len(primary.lines)
                assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
                await synced(primary, "site", after)

            # Of one that is the first, all travels.
            await world.start_agent(host, joined=True)
            await synced(primary, "site")
            world.app.commit({"site/index.html": "two\n", "site/large": None, "site/old/css": None})
            await passes()
            assert tree_of(root / "site/current").keys() == {"index.html"}
            assert len(list((root / "site/releases").iterdir())) == 2
            before = inodes(root)

            # A file that only an earlier release has comes from there, and what is current stays as it is.
            world.app.commit({"site/index.html": "three\n", "site/large": large, "site/new/css": small})
            ran = await world.trueup("plan", "--files", "site", "--detailed-exitcode", expect=2)
            _, *lines = ran.stdout.splitlines()
            assert lines == [
                "  update  index.html  (at most 6 B to send)",
                f"  create  large  (nothing to send, {len(large) / 1024:.1f} KiB is there)",
                "  create  new/",
                "  create  new/css  (nothing to send, 2.9 KiB is there)",
                "  3 create, 1 update; at most 6 B to send, "
                f"{(len(large) + len(small)) / 1024:.1f} KiB is there; then note",
            ]
            assert inodes(root) == before
            relayed = relay.to_agent
            await passes()
            assert relay.to_agent - relayed < len(large)
            assert (root / "site/current/large").read_text() == large

            # Nothing is left to do, and nothing would run.
            target = await files_of(world, "site")
            assert (target["state"], target["items"], target["after"]) == ("equal", [], [])

            # A node that somebody switched back stays there: nothing of a newer tree would come.
            world.app.commit({"site/index.html": "four\n"})
            assert [*deeds(await files_of(world, "site"))] == ["index.html"]
            after = len(primary.lines)
            await world.trueup("node", "rollback", "web-1", "site", "--reason", "slow")
            await synced(primary, "site", after)
            assert (root / "site/current/index.html").read_text() == "two\n"
            before = inodes(root)
            target = await files_of(world, "site")
            assert (target["state"], target["reason"], target["items"]) == ("left", "RolledBack", [])
            assert target["message"].startswith("rolled back to main@sha1:")
            assert target["message"].endswith("slow; nothing is sent there until that is lifted")
            assert inodes(root) == before
            assert await primary.end() == 0
