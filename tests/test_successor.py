"""An agent whose primary is cut off from git alone, as real processes: it finds the one that leads by now."""

from pathlib import Path

from tests.ports import free_port
from tests.serving import Serving, serving
from tests.specs import ONE_SITE
from tests.test_two_primaries import leads
from tests.world import Host, World, beside, make_world

RENEW = {"TRUEUP_LEASE_RENEW": "5s", "TRUEUP_INTERVAL": "24h"}

SPEC = ONE_SITE + '      nodes: [{{node_id: web-1, target_path: "{target}"}}]\n'


async def connects(primary: Serving, after: int = 0) -> None:
    def find() -> dict[str, object] | None:
        lines = primary.lines[after:]
        return next((e for e in lines if str(e["event"]).startswith("node web-1 connected")), None)

    await primary.until(find, "node web-1 connected")


async def placed(primary: Serving, world: World, host: Host, content: str) -> None:
    """Once the next commit has come to the host, through this primary."""
    told = len(primary.lines)
    world.app.commit({"site/index.html": content})
    assert (await primary.ask_locally("POST", "/sync", content=b'{"all": true}')).status_code == 202
    await primary.said("step applied", after=told, action="sync")
    assert (host.srv / "site/index.html").read_text() == content


async def test_an_agent_leaves_a_leader_that_was_cut_off_and_one_that_ends(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        world.app.commit({"site/index.html": "zero\n"})
        world.commit_spec(SPEC.format(app=world.app.url, target=tmp_path / "hosts/web-1/srv/site"))
        host = await world.add_host("web-1", f"127.0.0.1:{world.port}")
        other = beside(world, "other")
        port = free_port()
        other.environment["SYNC_TCP_ADDR"] = f"127.0.0.1:{port}"
        host.extra += ["--primary", f"127.0.0.1:{port}"]
        # The first one's way to the repository, which is going to be cut.
        way = tmp_path / "way.git"
        way.symlink_to(world.spec.path)
        async with serving(world, **{**RENEW, "TRUEUP_SPEC_REPO": str(way)}) as first:
            await leads(first)
            await world.start_agent(host)
            await connects(first)
            await first.said("step applied", action="sync")
            async with serving(other, **RENEW) as second:
                way.unlink()
                await leads(second)
                await connects(second)
                assert (await first.ask("GET", "/health")).json()["role"] == "unsure"
                await placed(second, world, host, "one\n")

                # It sees git again, and that it was succeeded; the agent stays where it is.
                way.symlink_to(world.spec.path)
                await first.until(
                    lambda: next((e for e in first.lines if "no longer leading" in str(e["event"])), None),
                    "no longer leading",
                )
                told = len(first.lines)
                await placed(second, world, host, "two\n")
                assert await second.end() == 0
                # The agent was told, and is let in by the next one as soon as that leads.
                await leads(first, told)
                await connects(first, told)
                await placed(first, world, host, "three\n")
                log = (host.root / "agent.log").read_text()
                assert "has taken over" in log
                assert "the primary goes away" in log
            assert await first.end() == 0
