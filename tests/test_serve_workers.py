"""`trueup serve` with worker processes: a real agent pairs, and syncs through one."""

import signal
from pathlib import Path

from tests.serving import Serving, serving
from tests.specs import ONE_SITE
from tests.world import make_world

SPEC = ONE_SITE + '      nodes: [{{node_id: web-1, target_path: "{target}"}}]\n'


def workers_of(primary: Serving) -> list[int]:
    """The worker processes among the children of a primary."""
    threads = Path(f"/proc/{primary.process.pid}/task").iterdir()  # each has the children that it started
    children = [pid for thread in threads for pid in read(thread / "children").split()]
    commands = {int(pid): read(Path(f"/proc/{pid}/cmdline")) for pid in children}
    return [pid for pid, command in commands.items() if "reconciler.sync.tls_worker" in command]


def read(path: Path) -> str:
    """Of a thread or process that may end at any time; of one that has: nothing."""
    try:
        return path.read_text()
    except OSError:
        return ""


async def test_a_primary_with_workers_syncs_through_them_and_ends_with_them(tmp_path: Path) -> None:
    large = "large\n" * 200_000
    async with make_world(tmp_path) as (world, relay):
        world.environment |= {"SYNC_WORKERS": "2", "TRUEUP_METRICS_OPEN": "1"}
        world.app.commit({"site/index.html": "hello\n", "site/large": large})
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        world.commit_spec(SPEC.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address)
        async with serving(world, options=["-v"]) as primary:
            joined = await world.join(host)
            assert joined.exit_code == 0, joined.stderr
            await world.start_agent(host, joined=True)

            def synced() -> dict[str, object] | None:
                applied = (line for line in primary.lines if line["event"] == "step applied")
                return next((line for line in applied if line["resource"].split("/")[2:3] == ["site"]), None)

            await primary.until(synced, "a sync")
            assert (target / "index.html").read_text() == "hello\n"
            assert (target / "large").read_text() == large
            assert len(workers_of(primary)) == 2
            metrics = await primary.ask("GET", "/metrics")
            assert "trueup_agent_workers 2" in metrics.text
            assert await primary.end(signal.SIGTERM) == 0
            assert not any("worker process" in str(line) for line in primary.lines)
