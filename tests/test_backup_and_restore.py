"""A state directory that is lost and restored: the primary carries on, and its agents do not notice."""

import shutil
from pathlib import Path

from tests.canaries import may_hold
from tests.serve_world import SYNCED
from tests.serving import Line, Serving, serving
from tests.world import make_world


async def test_a_restored_primary_carries_on_with_nothing_to_do(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        archive = may_hold(tmp_path / "backup.tar.gz")
        target = world.root / "hosts/web-1/srv/site"
        world.app.commit({"api/compose.yaml": "one\n"})
        world.commit_spec(SYNCED.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address, "group=web")
        async with serving(world, TRUEUP_INTERVAL="24h") as primary:
            await world.start_agent(host)
            await primary.applied(action="sync")
            made = await world.trueup("backup", "--with-key", str(archive))
            assert made.stdout.startswith("backed up journal.sqlite")
            assert await primary.end() == 0

        published = world.status_commits()
        shutil.rmtree(world.state)
        refused = await world.trueup("plan", expect=1)
        assert "there is no master key" in refused.stderr
        await world.trueup("restore", str(archive))
        async with serving(world, TRUEUP_INTERVAL="24h") as primary:
            # The agent, which was never stopped, comes back by itself: both certificates hold.
            await primary.until(lambda: connected(primary), "the agent's return")
            assert await primary.end() == 0
            assert not [line for line in primary.lines if line["event"] == "step applied"]
        assert world.status_commits() == published
        done = await world.reconcile()  # which asks the agent what is there
        assert (done["steps"], done["findings"]) == ([], [])
        assert (target / "compose.yaml").read_text() == "one\n"


def connected(primary: Serving) -> Line | None:
    return next((line for line in primary.lines if line["event"].startswith("node web-1 connected")), None)
