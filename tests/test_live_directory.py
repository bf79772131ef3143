"""A directory on the primary that is synced as it changes: no commit, a real agent, and real inotify."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.serving import Line, Serving, serving
from tests.world import World, make_world, tree_of

SPEC = """\
version: 1
nodes: {{}}
projects:
  live:
    source: {{directory: "{live}", watch: true}}
    sync:
      ignore_patterns: ["*.part"]
      nodes: [{{node_id: web-1, target_path: "{root}/live"}}]
  still:
    source: {{directory: "{still}"}}
    sync:
      nodes: [{{node_id: web-1, target_path: "{root}/still"}}]
"""


def rows(world: World, query: str, *given: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(world.state / "journal.sqlite", timeout=60)) as journal:
        return journal.execute(query, given).fetchall()


async def applied(primary: Serving, project: str, after: int = 0) -> Line:
    def find() -> Line | None:
        steps = [line for line in primary.lines[after:] if line["event"] == "step applied"]
        return next((line for line in steps if line["resource"].split("/")[2] == project), None)

    return await primary.until(find, f"{project} applied")


async def watched(primary: Serving, live: Path, after: int = 0) -> None:
    """Once the kernel tells of changes, and the pass that is asked for then has begun to look."""
    await primary.said("a directory is watched", after=after, directory=str(live))


async def test_a_file_that_changes_in_a_directory_appears_on_the_host(tmp_path: Path) -> None:
    live, still = tmp_path / "build/live", tmp_path / "build/still"
    for directory in (live, still):
        directory.mkdir(parents=True)
        (directory / "index.html").write_text("one\n")
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(live=live, still=still, root=root))
        host = await world.add_host("web-1", relay.address)
        async with serving(world, options=["-v"]) as primary:
            joined = await world.join(host)
            assert joined.exit_code == 0, joined.stderr
            await world.start_agent(host, joined=True)
            first, _ = await applied(primary, "live"), await applied(primary, "still")
            await watched(primary, live)
            commits = len(world.spec.log("refs/heads/main"))

            # A change is there without a commit, and everything it caused has one trace id.
            told = len(primary.lines)
            (live / "new").mkdir()
            (live / "new/page.html").write_text("two\n")
            (live / "index.html").write_text("changed\n")
            (live / "download.part").write_text("ignored\n")
            while (
                not (root / "live/new/page.html").exists()
                or "changed" not in (root / "live/index.html").read_text()
            ):
                told_now = len(primary.lines)
                await applied(primary, "live", told)
                told = told_now
            # Whichever pass brought it has ended once one more is over.
            await primary.look()
            assert tree_of(root / "live", skip=[".trueup-staging"]) == tree_of(live, skip=["download.part"])
            assert len(world.spec.log("refs/heads/main")) == commits
            events = rows(world, "SELECT resource, message, trace FROM events WHERE kind = 'source'")
            assert {resource for resource, _, _ in events} == {"projects/branch/live"}
            assert any("index.html" in message for _, message, _ in events)
            for _, _, trace in events:
                caused = "SELECT resource FROM {} WHERE trace = ?"
                assert rows(world, caused.format("steps"), trace) == [(first["resource"],)]
                assert rows(world, caused.format("tasks"), trace) == [(first["resource"],)]

            # What nobody watches is found by the next pass, whoever asks for it.
            told = len(primary.lines)
            (still / "index.html").write_text("later\n")
            assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
            await applied(primary, "still", told)
            assert (root / "still/index.html").read_text() == "later\n"
            # And what cannot be sent is told, though nothing follows from it.
            told = len(primary.lines)
            os.mkfifo(still / "pipe")
            assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
            warning = "note: projects.still: 'pipe' is a FIFO, socket or device and is not sent"
            await primary.said(warning, after=told)

            # A directory that is taken away leaves the host as it is, and is no success.
            told = len(primary.lines)
            shutil.move(live, tmp_path / "away")
            found = await primary.said("not in order", after=told, reason="ObservationFailed")
            assert found["resource"] == first["resource"]
            await primary.looked(told)
            assert (root / "live/new/page.html").read_text() == "two\n"

            # Another one at its place is watched in turn.
            told = len(primary.lines)
            replacement = tmp_path / "replacement"
            replacement.mkdir()
            (replacement / "index.html").write_text("again\n")
            replacement.rename(live)  # at once: no look finds it half made
            await watched(primary, live, told)
            await applied(primary, "live", told)
            assert tree_of(root / "live", skip=[".trueup-staging"]) == tree_of(live)
            told = len(primary.lines)
            newer = tmp_path / "newer.html"
            newer.write_text("and again\n")
            newer.rename(live / "index.html")  # nor the file empty
            await applied(primary, "live", told)
            assert (root / "live/index.html").read_text() == "and again\n"

            [status] = [text.decode() for path, text in world.status().items() if "/live/" in path]
            assert "lastAppliedRevision: dir@sha256:" in status
            assert await primary.end() == 0
