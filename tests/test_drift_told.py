"""A running primary that hears from an agent what drifted, and heals it long before its next pass is due."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.serving import Line, Serving, serving
from tests.specs import ONE_SITE
from tests.world import make_world

SPEC = (
    ONE_SITE
    + """\
      nodes: [{{node_id: web-1, target_path: "{root}/site"}}]
  notes:
    repository: app
    branch: main
    path: notes
    sync:
      on_drift: report
      nodes: [{{node_id: web-1, target_path: "{root}/notes"}}]
"""
)


async def applied(primary: Serving, project: str) -> str:
    """The resource of a project's only target, once it was placed."""

    def find() -> Line | None:
        steps = [line for line in primary.lines if line["event"] == "step applied"]
        return next((line for line in steps if line["resource"].split("/")[2] == project), None)

    return str((await primary.until(find, f"{project} applied"))["resource"])


async def test_what_is_edited_on_a_host_is_healed_though_nobody_asks(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/a.html": "one\n", "site/b.html": "two\n", "notes/n": "three\n"})
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(app=world.app.url, root=root))
        host = await world.add_host("web-1", relay.address)
        host.drift_interval = 0.5
        async with serving(world) as primary:
            agent = await world.start_agent(host)
            # The pass that found the node connected has placed both.
            site, _ = await applied(primary, "site"), await applied(primary, "notes")

            told = len(primary.lines)
            (root / "site/a.html").write_text("edited\n")
            (root / "site/b.html").unlink()
            await primary.said("a pass was asked for", after=told, why="drift on web-1")
            healed = await primary.said("step applied", after=told, resource=site)
            assert healed["reason"].startswith("drift: ")
            assert (root / "site/a.html").read_text() == "one\n"
            assert (root / "site/b.html").read_text() == "two\n"

            # What shall only be reported is: the pass looks, and leaves it alone.
            told = len(primary.lines)
            (root / "notes/n").write_text("edited\n")
            found = await primary.said("not in order", after=told, reason="DriftDetected")
            assert found["resource"].split("/")[2] == "notes"
            await primary.said("pass ended", after=told)
            assert (root / "notes/n").read_text() == "edited\n"
            [status] = [text for path, text in world.status().items() if "/notes/" in path]
            assert b"DriftDetected" in status

            with closing(sqlite3.connect(world.state / "journal.sqlite", timeout=60)) as journal:
                events = journal.execute(
                    "SELECT resource, reason, message FROM events WHERE kind = 'drift' ORDER BY id"
                ).fetchall()
            assert {resource.split("/")[2] for resource, _, _ in events} == {"site", "notes"}
            assert (site, "DriftDetected") in {(resource, reason) for resource, reason, _ in events}
            assert all(message.startswith("the agent of web-1 sees ") for _, _, message in events)
            assert "the agent of web-1 sees 1 entry that is not as placed" in {each[2] for each in events}
            assert agent.poll() is None
            assert await primary.end() == 0


async def test_what_is_edited_is_healed_long_before_the_agent_looks_by_itself(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/a.html": "one\n", "notes/n": "three\n"})
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(app=world.app.url, root=root))
        host = await world.add_host("web-1", relay.address)
        host.drift_interval = 86400.0
        async with serving(world) as primary:
            await world.start_agent(host)
            site = await applied(primary, "site")
            told = len(primary.lines)
            (root / "site/a.html").write_text("edited\n")
            await primary.said("a pass was asked for", after=told, why="drift on web-1")
            await primary.said("step applied", after=told, resource=site)
            assert (root / "site/a.html").read_text() == "one\n"
            assert await primary.end() == 0
