"""`trueup get -w` tells how far running tasks are: on a terminal, as documents, and as lines."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import trio

from tests.serving import serving
from tests.specs import ONE_SITE
from tests.watching import watching
from tests.world import PATIENCE, World, make_world

SPEC = (
    ONE_SITE
    + """\
      retry: {{attempts: 1}}
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
      after: [wait]
"""
)


async def on_a_terminal(world: World, wanted: str, *arguments: str) -> str:
    """What a command draws on a terminal until it has drawn what is wanted, without what moves the cursor."""
    terminal, end = pty.openpty()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "reconciler", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=end,
        env={**world.environment, "TERM": "xterm", "COLUMNS": "300"},
        cwd=world.root,
    )
    os.close(end)
    raw, drawn = b"", ""
    try:
        with trio.fail_after(PATIENCE), suppress(OSError):
            while wanted not in drawn:
                await trio.lowlevel.wait_readable(terminal)
                raw += os.read(terminal, 65536)  # which may end within a character
                drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw.decode(errors="ignore"))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(terminal)
    return drawn


async def test_get_says_how_far_a_sync_is(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/index.html": "hello\n", "site/css": "body {}\n"})
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        world.commit_spec(SPEC.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address)
        host.extra += ["--allow", f"wait=sh -c 'exit $(cat {gate})'"]
        async with serving(world) as primary:
            await world.start_agent(host)
            # Its command waits for a word: the task is under way for as long as this test wants.
            opened = await trio.to_thread.run_sync(lambda: gate.open("w"), abandon_on_cancel=True)
            with opened:
                async with (
                    watching(world, "get", "-w", "--progress", "-o", "json") as documents,
                    watching(world, "get", "project/site", "-w", "--progress") as lines,
                    watching(world, "get", "service", "-w", "--progress", "-o", "json") as others,
                    watching(world, "get", "-w", "-o", "json") as silent,
                ):
                    await documents.until(lambda: '"phase":"command"' in documents.out.replace(" ", ""))
                    told = [each for each in documents.documents if "progress" in each][-1]
                    assert told["id"].startswith("projects/branch/site/web-1/")
                    assert told["progress"]["phase"] == "command"
                    assert told["progress"]["attempt"] == 1
                    task = (await world.trueup("logs", "-o", "json")).document["tasks"][0]
                    assert (told["task"], task["state"]) == (task["id"], "RUNNING")
                    await lines.until(lambda: "runs commands" in lines.err)
                    assert lines.err.startswith("no status of project/site yet\nprojects/branch/site/web-1/")
                    drawn = await on_a_terminal(world, "runs commands", "get", "-w")
                    [line, *_] = [each for each in re.split(r"[\r\n]+", drawn) if "runs commands" in each]
                    assert line.startswith("projects/branch/site/web-1/")

                    # It ends, and the status files say so; whoever did not ask heard of nothing else.
                    opened.write("0")
                    opened.close()
                    await primary.said("step applied", action="sync")
                    await documents.until(lambda: "ReconciliationSucceeded" in documents.out)
                    await silent.until(lambda: "ReconciliationSucceeded" in silent.out)
                    assert [one for one in silent.documents if "progress" in one] == []
                    assert [one for one in others.documents if "progress" in one] == []
                    assert await documents.interrupt() == 130
            refused = await world.trueup("get", "--progress", expect=1)
            assert "--progress goes with -w" in refused.stderr
            assert await primary.end() == 0
