"""A first copy that begins while its tree is hashed, by a real primary and agent, and what comes after it."""

from pathlib import Path

from reconciler.sync.streamed import PORTION_FILES
from tests.serving import Serving, serving
from tests.specs import ONE_SITE
from tests.world import make_world, tree_of

SPEC = (
    ONE_SITE
    + """\
      nodes:
        - {{node_id: web-1, target_path: "{root}/site"}}
        - {{node_id: web-1, target_path: "{root}/again"}}
"""
)
FILES = {f"site/{number % 40:02}/{number:05}": f"{number}\n" * 9 for number in range(PORTION_FILES + 500)}


async def pass_of(primary: Serving) -> list[str]:
    """The events of one pass, from when it is asked for to its end."""
    told = len(primary.lines)
    await primary.look()
    return [str(line.get("event")) for line in primary.lines[told:]]


async def test_a_first_copy_is_sent_while_its_tree_is_hashed(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit(FILES)
        root = tmp_path / "hosts" / "web-1" / "srv"
        world.commit_spec(SPEC.format(app=world.app.url, root=root))
        host = await world.add_host("web-1", relay.address)
        async with serving(world, options=["-v"]) as primary:
            await world.start_agent(host)
            applied = 0
            for _ in range(2):
                line = await primary.said("step applied", after=applied)
                applied = primary.lines.index(line, applied) + 1
            await primary.looked(after=applied)
            events = [line["event"] for line in primary.lines]
            assert "sent while the tree was hashed" in events
            contents = {path.removeprefix("site/"): text.encode() for path, text in FILES.items()}
            for name in ("site", "again"):
                found = {path: item[2] for path, item in tree_of(root / name).items() if item[0] == "file"}
                assert found == contents

            inodes = {path: path.stat() for path in root.rglob("*")}
            assert "step applied" not in await pass_of(primary)
            assert {path: path.stat() for path in root.rglob("*")} == inodes

            # A change goes the ordinary way.
            world.app.commit({"site/00/00000": "changed\n"})
            events = await pass_of(primary)
            assert events.count("step applied") == 2
            assert "sent while the tree was hashed" not in events
            assert (root / "site/00/00000").read_text() == "changed\n"
            assert not [line for line in primary.lines if line.get("level") == "error"]
            assert await primary.end() == 0
