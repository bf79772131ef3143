"""`trueup node install` against a real sshd: a host with nothing becomes one that files are synced to."""

import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.installing import InstallHost, install_host, wheels_of_this_environment
from tests.processlist import ProcessList
from tests.serving import Line, Serving, serving
from tests.sshd import IS_THERE
from tests.test_serve import SYNCED
from tests.world import Ran, World, make_world

pytestmark = pytest.mark.skipif(not IS_THERE, reason="sshd and ssh are not installed (openssh-server)")

TOKEN = "trueup-token-1:"

LOGS = (
    "SELECT a.log FROM tasks t JOIN attempts a ON a.task = t.id"
    " WHERE t.state = 'SUCCESS' AND t.resource = 'nodes/web-1'"
)


async def install(
    world: World, host: InstallHost, *options: str, expect: int | None = 0, pip: Mapping[str, str] = {}
) -> Ran:
    address = f"127.0.0.1:{world.port}"
    return await world.trueup(
        *("node", "install", "web-1", "--primary", address, *host.options(*options)),
        expect=expect,
        **pip,
    )


def in_journal(world: World, statement: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(world.state / "journal.sqlite")) as journal:
        return journal.execute(statement).fetchall()


def alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


async def test_from_nothing_to_a_synced_host_and_an_upgrade(
    tmp_path: Path, process_list: ProcessList
) -> None:
    wheels = wheels_of_this_environment(tmp_path / "wheels")
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    async with make_world(tmp_path / "world") as (world, _):
        with install_host(tmp_path / "there") as host:
            target = host.root / "srv/site"
            world.app.commit({"api/compose.yaml": "one\n"})
            world.commit_spec(SYNCED.format(app=world.app.url, target=target))
            async with serving(world, TRUEUP_INTERVAL="24h") as primary:
                before = host.tree()
                shown = await install(world, host, "--dry-run", "--label", "group=web")
                assert "-m venv" in shown.stdout and "# taken back by: rm -rf" in shown.stdout
                assert host.tree() == before

                done = await install(world, host, "--offline", "--label", "group=web", pip=pip)
                assert "the agent of web-1 runs on" in done.stdout
                await primary.said("step applied", action="sync")
                assert (target / "compose.yaml").read_text() == "one\n"

                tree = host.tree()
                link = host.root / "opt/trueup/agent"
                environment = link.readlink()
                assert sorted(os.listdir(link.parent)) == ["agent", str(environment)]
                packages = [name for name in tree if name.endswith("site-packages/agent/session.py")]
                assert packages and not [name for name in tree if "site-packages/reconciler" in name]
                assert not [name for name in tree if ".before-" in name or ".part-" in name]
                assert stat.S_IMODE((host.root / "etc/agent.toml").stat().st_mode) == 0o600
                unit = (host.root / "units/trueup-agent.service").read_text()
                assert f"ReadWritePaths={host.root}/srv {host.root}/lib/agent\n" in unit

                # Again: the same node, its own token, a new environment.
                pid = host.agent_pid()
                commits = world.spec.log("refs/heads/main")
                again = await install(world, host, "--allow", "greet=echo hello", *host.quick)
                assert "the agent of web-1 runs on" in again.stdout
                assert world.spec.log("refs/heads/main") == commits
                assert link.readlink() != environment
                assert not alive(pid) and alive(host.agent_pid())
                assert "greet" in (host.root / "etc/agent.toml").read_text()
                world.app.commit({"api/compose.yaml": "two\n"})
                told = len(primary.lines)
                await primary.ask_locally("POST", "/api/reconcile")
                await primary.said("step applied", after=told, action="sync")
                assert (target / "compose.yaml").read_text() == "two\n"

                logs = [log for (log,) in in_journal(world, LOGS)]
                assert len(logs) == 2 and all("paired node web-1" in log for log in logs)
                assert in_journal(world, "SELECT resource, reason FROM events WHERE kind = 'installed'") == [
                    ("nodes/web-1", "Installed"),
                    ("nodes/web-1", "Installed"),
                ]
                assert await primary.end() == 0
            assert TOKEN not in done.stdout + done.stderr + again.stdout + "".join(logs)
            assert not [command for command in process_list.commands if TOKEN in " ".join(command)]


async def test_whatever_fails_leaves_the_host_as_it_was(tmp_path: Path) -> None:
    async with make_world(tmp_path / "world") as (world, _):
        with install_host(tmp_path / "there") as host:
            world.app.commit({"api/compose.yaml": "one\n"})
            world.commit_spec(SYNCED.format(app=world.app.url, target=host.root / "srv/site"))
            async with serving(world, TRUEUP_INTERVAL="24h") as primary:
                # A host with nothing, where no agent may be left running.
                await each_fails(world, host, first=2, runs=False)
                await primary.until(lambda: joined(primary), "the agent")
                # A host whose agent runs: it runs on, with its old environment. Until it is stopped for the
                # new one, nothing differs from the above.
                await each_fails(world, host, first=5, runs=True)
                assert await primary.end() == 0
            told = in_journal(world, "SELECT DISTINCT reason FROM events WHERE kind = 'installed'")
            assert sorted(told) == [("InstallFailed",), ("Installed",)]


async def each_fails(world: World, host: InstallHost, *, first: int, runs: bool) -> None:
    """From the command of that number on each fails once. The last one only tidies up: the agent is there."""
    before, spec = host.tree(), world.spec.files("refs/heads/main")
    for number in range(first, 100):
        host.fail_at(number)
        ran = await install(world, host, *host.quick, expect=None)
        if ran.exit_code == 0:
            break
        assert ran.exit_code == 1
        assert "the host is as it was" in ran.stderr and "Traceback" not in ran.stderr, ran.stderr
        assert host.tree() == before, f"command {number}\n{ran.stdout}"
        assert world.spec.files("refs/heads/main") == spec
        assert alive(host.agent_pid()) == runs
    assert "warning: no space left, or so" in ran.stdout
    assert number > 10
    assert alive(host.agent_pid())


def joined(primary: Serving) -> Line | None:
    return next((line for line in primary.lines if line["event"].startswith("node web-1 connected")), None)
