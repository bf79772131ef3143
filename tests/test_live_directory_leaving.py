"""A project of a live directory that gets another name in the spec, and one that leaves it."""

import shutil
from pathlib import Path

import trio
import yaml

from tests.agent.test_task import inodes
from tests.serving import Line, Serving, serving
from tests.world import World, make_world, tree_of

SPEC = """\
version: 1
nodes: {{}}
projects:
  {name}:
    source: {{directory: "{live}", watch: true}}
    sync:
      retry: {{attempts: 1}}
      nodes: [{{node_id: web-1, target_path: "{root}/live"}}]
"""


async def step(primary: Serving, action: str, project: str, after: int = 0) -> Line:
    def find() -> Line | None:
        steps = [line for line in primary.lines[after:] if line.get("action") == action]
        named = [line for line in steps if line["resource"].split("/")[2] == project]
        return next((line for line in named if line["event"] == "step applied"), None)

    return await primary.until(find, f"{action} of {project}")


async def look(primary: Serving) -> int:
    """A whole pass; where the log was before it."""
    told = len(primary.lines)
    await primary.look()
    return told


def targets(world: World) -> list[str]:
    """The projects that have a target in the status."""
    return [path.split("/")[2] for path in world.status() if path.startswith("projects/")]


def without_projects(spec: str) -> str:
    document = yaml.safe_load(spec)
    del document["projects"]
    return yaml.safe_dump(document)


async def test_a_live_directory_is_renamed_and_then_taken_from_its_host(tmp_path: Path) -> None:
    live = tmp_path / "build" / "live"
    live.mkdir(parents=True)
    (live / "index.html").write_text("one\n")
    (live / "css").mkdir()
    (live / "css/a").write_text("a\n")
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(name="old", live=live, root=root))
        host = await world.add_host("web-1", relay.address)
        async with serving(world, options=["-v"]) as primary:
            assert (await world.join(host)).exit_code == 0
            await world.start_agent(host, joined=True)
            await step(primary, "sync", "old")
            await look(primary)
            placed = inodes(root / "live")
            assert targets(world) == ["old"]

            # The target is the same, and nothing at it is touched: not even written again.
            spec = world.spec.read("trueup.yaml").decode()
            moved = spec.replace("  old:\n", "  new:\n")
            world.commit_spec(f"{moved}moved: [{{from: projects/old, to: projects/new}}]\n")
            told = await look(primary)
            assert not [line for line in primary.lines[told:] if line.get("action") == "remove"]
            assert inodes(root / "live") == placed
            assert targets(world) == ["new"]

            # It is watched as before, by its new name.
            told = len(primary.lines)
            newer = tmp_path / "newer.html"
            newer.write_text("two\n")
            newer.rename(live / "index.html")  # no look finds it empty
            await step(primary, "sync", "new", told)
            assert (root / "live/index.html").read_text() == "two\n"
            await look(primary)

            # One that left the spec goes from the host, but for what somebody else put there; the directory
            # that it came from is nobody's to remove.
            (root / "live/theirs").write_text("mine\n")
            kept = tree_of(live)
            world.commit_spec(without_projects(moved))
            told = await look(primary)
            await step(primary, "remove", "new", told)
            assert tree_of(root) == {
                "live": ("directory", 0o755, b""),
                "live/theirs": ("file", 0o644, b"mine\n"),
            }
            assert tree_of(live) == kept
            assert targets(world) == []
            told = await look(primary)
            assert not [line for line in primary.lines[told:] if line["event"] == "step applied"]
            assert await primary.end() == 0


async def test_what_left_the_spec_goes_although_its_directory_is_gone(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    (live / "index.html").write_text("one\n")
    async with make_world(tmp_path) as (world, relay):
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(name="site", live=live, root=root))
        host = await world.add_host("web-1", relay.address)
        spec = world.spec.read("trueup.yaml").decode()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.start_agent, host)
            await world.reconcile("--wait-agents", "100s")
        assert tree_of(root / "live").keys() == {"index.html"}
        shutil.rmtree(live)
        assert (await world.reconcile("--wait-agents", "100s", expect=4))["steps"] == []
        assert tree_of(root / "live").keys() == {"index.html"}
        world.commit_spec(without_projects(spec))
        done = await world.reconcile("--wait-agents", "100s")
        assert [step["action"] for step in done["steps"]] == ["remove"]
        assert tree_of(root) == {}
