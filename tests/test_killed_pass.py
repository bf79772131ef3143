"""A pass that is killed with SIGKILL, at points spread over all of it: the next pass completes."""

from pathlib import Path

import trio

from tests.canaries import canary, may_hold
from tests.specs import STAGING
from tests.world import Host, World, make_world, tree_of

SPEC = (
    STAGING
    + """\
secret_sources:
  local: {{kind: env_file, file: "{env_file}"}}
services:
  first:
    repository: app
    paths: [version, tasks.py]
    secrets: [local]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
  second:
    repository: app
    paths: [version, tasks.py]
    deploy: {{kind: invoke, task: deploy}}
    depends_on: [first, project/site]
    environments: [staging]
projects:
  site:
    repository: app
    environment: staging
    path: site
    sync:
      retry: {{attempts: 2, backoff: 100ms}}
      nodes:
        - {{node_id: web-1, target_path: "{target}"}}
      files:
        - {{path: .env, format: dotenv, secrets: [local]}}
nodes: {{}}
"""
)

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    version = Path("version").read_text()
    staged = Path({deployed!r}) / (".staged-" + os.environ["TRUEUP_SERVICE"])
    staged.write_text(version)
    staged.rename(Path({deployed!r}) / os.environ["TRUEUP_SERVICE"])
"""

POINTS = 10


def site(version: int) -> dict[str, str]:
    """The site at a version: files that change, one that stays, one that moves."""
    body = f"version {version}\n" * 20_000
    return {
        "site/page.html": body,
        "site/assets/large.txt": body * 4,
        "site/same.txt": "always the same\n",
        f"site/only-in-{version}.txt": "new\n",
    }


def release(world: World, version: int) -> None:
    gone = {f"site/only-in-{version - 1}.txt": None} if version > 1 else {}
    tasks = {"tasks.py": TASKS.format(deployed=str(world.deployed))}
    world.app.commit({**site(version), **gone, **tasks, "version": str(version)})
    world.app.tag(f"v1.0.{version}")


def _looked_at(target: Path) -> dict[str, tuple[str, int, bytes]]:
    """The target while its agent, which nobody killed, may still be removing what it had begun."""
    while True:
        try:
            return tree_of(target, skip=(".trueup-staging",))
        except FileNotFoundError:
            continue


def check_nothing_half_written(host: Host, version: int) -> None:
    """Every name in the target has the whole content of this version or of the one before."""
    for name, (kind, _, content) in _looked_at(host.srv / "site").items():
        if kind != "file" or name == ".env" or name.startswith(".trueup"):
            continue
        allowed = {site(v).get(f"site/{name}") for v in (version, version - 1)}
        assert content.decode() in allowed, name


async def check_complete(world: World, host: Host, version: int) -> None:
    found = tree_of(host.srv / "site")
    assert f"DB_PASSWORD={canary('db-password')}" in found.pop(".env")[2].decode().replace("'", "").replace(
        '"', ""
    )
    files = {name: content for name, (kind, _, content) in found.items() if kind == "file"}
    assert files == {path.removeprefix("site/"): text.encode() for path, text in site(version).items()}
    assert {path.name: path.read_text() for path in world.deployed.iterdir() if path.name[0] != "."} == {
        "first": str(version),
        "second": str(version),
    }
    plan = await world.trueup("plan", "-o", "json", "--detailed-exitcode")
    assert (plan.document["steps"], plan.document["findings"]) == ([], [])
    for leftovers in ("checkouts", "homes"):
        directory = world.state / leftovers
        assert not directory.exists() or not [p for p in directory.iterdir() if p.is_dir()], leftovers


async def killed_at(world: World, point: int) -> int:
    """Run a pass that is killed at a point (0: nowhere); returns how many points it passed."""
    count = world.root / "points"
    ran = await world.run(["-m", "tests.killer", str(point), str(count), "reconcile"])
    assert ran.exit_code == (0 if point == 0 else -9), ran.stderr
    return int(count.read_text()) if point == 0 else point


async def test_the_next_pass_completes_what_a_killed_one_left(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        env_file = may_hold(tmp_path / "local.env")
        env_file.write_text(f"DB_PASSWORD={canary('db-password')}\n")
        env_file.chmod(0o600)
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        may_hold(target / ".env")
        world.commit_spec(SPEC.format(app=world.app.url, env_file=env_file, target=target))
        release(world, 1)
        host = await world.add_host("web-1", relay.address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.reconcile)
            await world.start_agent(host)
        await check_complete(world, host, 1)
        release(world, 2)
        total = await killed_at(world, 0)
        await check_complete(world, host, 2)
        assert total > POINTS
        for number in range(POINTS):
            version = 3 + number
            release(world, version)
            # Spread over the pass; the last one is its very last point.
            await killed_at(world, 1 + number * (total - 1) // (POINTS - 1))
            check_nothing_half_written(host, version)
            await world.reconcile()
            await check_complete(world, host, version)
