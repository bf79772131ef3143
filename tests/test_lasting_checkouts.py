"""A node that comes later, and a step that is tried again, begin with what an earlier pass has hashed."""

from pathlib import Path

from tests.serving import serving
from tests.world import make_world, tree_of

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
nodes:
{nodes}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      retry: {{attempts: 1}}
      nodes:
        - {{node_id: web-1, target_path: "{hosts}/web-1/srv/site"}}
        - {{node_id: web-2, target_path: "{hosts}/web-2/srv/site"}}
"""


async def test_a_node_that_comes_later_needs_no_other_checkout(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/index.html": "hello\n", "site/css/a": "a\n"})
        world.commit_spec("version: 1\n")
        first = await world.add_host("web-1", relay.address)
        second = await world.add_host("web-2", relay.address)
        nodes = world.spec.read("trueup.yaml").decode().partition("nodes:\n")[2].rstrip()
        world.commit_spec(SPEC.format(app=world.app.url, hosts=hosts, nodes=nodes))

        def checkouts() -> dict[str, int]:
            found = (world.state / "checkouts").glob("tree-*")
            return {path.name: path.stat().st_ino for path in found}

        async with serving(world, options=["-v"]) as primary:
            await world.start_agent(first)
            await primary.said("step applied", action="sync")
            await primary.look()
            told = len(primary.lines)
            kept = checkouts()
            assert len(kept) == 1

            # One that joins, and one that is to be put right: both from what is there.
            await world.start_agent(second)
            await primary.said("step applied", after=told, action="sync")
            (hosts / "web-1/srv/site/index.html").write_text("edited\n")
            told = len(primary.lines)
            assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
            await primary.said("step applied", after=told, action="sync")
            for node in ("web-1", "web-2"):
                assert (hosts / node / "srv/site/index.html").read_text() == "hello\n"
            assert tree_of(hosts / "web-1/srv/site") == tree_of(hosts / "web-2/srv/site")
            assert checkouts() == kept

            # Another commit is made of what is there, and with the primary all go.
            told = len(primary.lines)
            world.app.commit({"site/index.html": "newer\n"})
            assert (await primary.ask_locally("POST", "/api/reconcile")).status_code == 202
            while {(hosts / node / "srv/site/index.html").read_text() for node in ("web-1", "web-2")} != {
                "newer\n"
            }:
                await primary.said("step applied", after=told, action="sync")
                told = len(primary.lines)
            assert checkouts() == kept
            assert await primary.end() == 0
        assert checkouts() == {}
