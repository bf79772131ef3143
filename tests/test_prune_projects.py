"""Projects that leave the spec: the agent takes away what it placed, and nothing else."""

from pathlib import Path

import trio

from tests.world import World, make_world

HEAD = 'version: 1\nrepositories:\n  app: {{url: "{app}", branch: main}}\nnodes: {{}}\nprojects:\n'
PROJECT = (
    "  {name}:\n    repository: app\n    branch: main\n    path: {name}\n"
    '    sync: {{retry: {{attempts: 1}}, nodes: [{{node_id: web-1, target_path: "{target}"}}]}}\n'
)


def files_of(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()
    }


async def test_a_project_that_left_the_spec_is_taken_from_its_host(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.app.commit({"site/index.html": "hello\n", "site/css/a": "a\n", "docs/b": "b\n"})
        srv = tmp_path / "hosts" / "web-1" / "srv"
        site = PROJECT.format(name="site", target=srv / "site")
        docs = PROJECT.format(name="docs", target=srv / "docs")
        world.commit_spec(HEAD.format(app=world.app.url) + site + docs)
        host = await world.add_host("web-1", relay.address)
        spec = world.spec.read("trueup.yaml").decode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.start_agent, host)
            await world.reconcile("--wait-agents", "100s")
        assert files_of(srv) == {"site/index.html": "hello\n", "site/css/a": "a\n", "docs/b": "b\n"}
        (srv / "site" / "foreign").write_text("mine\n")
        (srv / "site" / "css" / "a").write_text("edited\n")

        # Of what stays at the same path nothing is taken.
        moved = spec.replace(site, PROJECT.format(name="site", target=srv / "site" / "css"))
        assert moved != spec
        planned = await plan_of(world, moved)
        assert [(action, "is there now" in reason) for action, reason in planned if action == "forget"] == [
            ("forget", True)
        ]

        # A host that is away: the removal waits, and what is known of it stays.
        world.commit_spec(spec.replace(site, ""))
        await world.stop_agents()
        done = await world.reconcile("--wait-agents", "2s", expect=4)
        [id] = [step["resource"] for step in done["steps"] if step["action"] == "remove"]
        assert done["outcomes"][id]["reason"] == "AgentUnreachable"
        assert f"{id}.yaml" in world.status()

        await world.start_agent(host, joined=True)
        done = await world.reconcile("--wait-agents", "100s")
        assert done["outcomes"][id]["details"] == {
            "files_deleted": 1,
            "warnings": ["'css/a' was changed since it was placed and stays"],
        }
        assert files_of(srv) == {"site/foreign": "mine\n", "site/css/a": "edited\n", "docs/b": "b\n"}
        assert f"{id}.yaml" not in world.status()
        assert (await world.reconcile("--wait-agents", "100s"))["steps"] == []


async def plan_of(world: World, spec: str) -> list[tuple[str, str]]:
    world.commit_spec(spec)
    ran = await world.trueup("plan", "-o", "json")
    return [(step["action"], step["reason"]) for step in ran.document["steps"]]
