"""`trueup node install` against a real sshd: a host with nothing becomes one that files are synced to."""

import os
import re
import signal
import sqlite3
import stat
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
import yaml

from reconciler.cli_operations import node_install
from reconciler.cli_options import CONNECTION
from reconciler.errors import SettingsError
from reconciler.install.node import Request, install_node
from reconciler.install.plan import LOCK
from reconciler.install.request import make_request
from reconciler.install.run import InstallFailed
from reconciler.settings import Settings, load_settings
from tests.installing import InstallHost, install_host, wheels_of_this_environment
from tests.processlist import ProcessList
from tests.serve_world import SYNCED
from tests.serving import Line, Serving, serving
from tests.sshd import IS_THERE
from tests.world import PATIENCE, Ran, World, make_world

pytestmark = pytest.mark.skipif(not IS_THERE, reason="sshd and ssh are not installed (openssh-server)")

TOKEN = "trueup-token-1:"

LOGS = (
    "SELECT a.log FROM tasks t JOIN attempts a ON a.task = t.id"
    " WHERE t.state = 'SUCCESS' AND t.resource = 'nodes/web-1'"
)


async def install(world: World, host: InstallHost, *options: str, pip: Mapping[str, str] = {}) -> Ran:
    return await world.trueup("node", "install", "web-1", *host.options(*options), expect=0, **pip)


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
                new = ["--primary", f"127.0.0.1:{world.port}", "--root", str(host.root / "srv")]
                new += ["--label", "group=web"]
                shown = await install(world, host, *new, "--dry-run")
                assert "-m venv" in shown.stdout and "# taken back by: rm -rf" in shown.stdout
                assert host.tree() == before

                # Another file under the same name and version, as a broken-into index would have it.
                forged = tmp_path / "forged.lock"
                forged.write_text(re.sub("sha256:.*", f"sha256:{'0' * 64}", (wheels / LOCK).read_text()))
                options = host.options(*new, "--offline", "--lock", str(forged))
                refused = await world.trueup("node", "install", "web-1", *options, expect=1, **pip)
                assert "could not be downloaded here" in refused.stderr and host.tree() == before

                new += ["--lock", str(wheels / LOCK)]
                done = await install(world, host, *new, "--offline", pip=pip)
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

                # Again, as another user of the host: the same node, token and settings, a new environment.
                # What an installation that was cut off has left is gone then.
                (host.state / "sudoer").touch()
                lost = [host.root / "etc/agent.toml.before-0123abcd", host.root / "lib/agent.part-0123abcd"]
                for path in (*lost, link.with_name("wheels-0123abcd"), link.with_name("agent-0123abcd")):
                    path.mkdir()
                pid = host.agent_pid()
                commits = world.spec.log("refs/heads/main")
                again = await install(world, host, "--sudo", "--allow", "greet=echo hello", *host.quick)
                assert "the agent of web-1 runs on" in again.stdout
                assert world.spec.log("refs/heads/main") == commits
                assert link.readlink() != environment
                assert not alive(pid) and alive(host.agent_pid())
                config = tomllib.loads((host.root / "etc/agent.toml").read_text())
                assert config["commands"] == {"greet": ["echo", "hello"]}
                assert config["roots"] == [f"{host.root}/srv"]
                assert config["primaries"] == [f"127.0.0.1:{world.port}"]
                assert (host.root / "units/trueup-agent.service").read_text() == unit
                assert not [name for name in host.tree() if "0123abcd" in name]
                world.app.commit({"api/compose.yaml": "two\n"})
                told = len(primary.lines)
                await primary.ask_locally("POST", "/api/reconcile")
                await primary.said("step applied", after=told, action="sync")
                assert (target / "compose.yaml").read_text() == "two\n"

                logs = [log for (log,) in in_journal(world, LOGS)]
                assert len(logs) == 2 and all("paired node web-1" in log for log in logs)
                assert in_journal(world, "SELECT resource, reason FROM events WHERE kind = 'installed'") == [
                    ("nodes/web-1", "StepFailed"),
                    ("nodes/web-1", "Installed"),
                    ("nodes/web-1", "Installed"),
                ]
                assert await primary.end() == 0
            assert TOKEN not in done.stdout + done.stderr + again.stdout + "".join(logs)
            assert not [command for command in process_list.commands if TOKEN in " ".join(command)]


async def test_whatever_fails_leaves_the_host_as_it_was(tmp_path: Path) -> None:
    async with install_world(tmp_path) as (world, host, primary):
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
        said: list[str] = []
        try:
            await install_node(*quick_request(world, host), said.append)
            break
        except InstallFailed as failure:
            assert "the host is as it was" in str(failure), said
        assert host.tree() == before, f"command {number}: {said}"
        assert world.spec.files("refs/heads/main") == spec
        assert alive(host.agent_pid()) == runs
    assert "  warning: no space left, or so" in said
    assert number > 10
    assert alive(host.agent_pid())


async def test_who_interrupts_it_gets_all_taken_back(tmp_path: Path) -> None:
    """Whoever is at work on the host is ended first, and no further signal keeps it from that."""
    async with install_world(tmp_path) as (world, host, _):
        os.mkfifo(host.state / "gate")
        before = host.tree()
        process = await trio.lowlevel.open_process(
            [*(sys.executable, "-m", "reconciler", "node", "install", "web-1", *new_options(world, host))],
            stdout=-1,
            stderr=-1,
            env=world.environment,
        )
        assert process.stdout is not None and process.stderr is not None
        with trio.fail_after(PATIENCE):
            await trio.to_thread.run_sync((host.state / "gate").read_text, abandon_on_cancel=True)
            assert host.left_running()
            process.send_signal(signal.SIGHUP)
            said = b""
            while b"being taken back" not in said:
                said += await process.stdout.receive_some() or b"being taken back: never said"
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
            # Nobody listens any more.
            await process.stdout.aclose()
            errors = b"".join([chunk async for chunk in process.stderr]).decode()
            # 120 is what Python makes of it where its last lines could not be written.
            assert await process.wait() in (130, 120)
        assert errors.startswith("error: the installation was interrupted\n") and "Traceback" not in errors
        assert not host.left_running()
        [(reason, log)] = in_journal(world, "SELECT reason, log FROM attempts")
        assert reason == "InstallInterrupted" and "  the host is as it was" in log, log
        assert host.tree() == before


async def test_another_host_that_cannot_take_a_node_over_leaves_it_to_the_first(tmp_path: Path) -> None:
    async with install_world(tmp_path) as (world, host, primary):
        await install_node(*quick_request(world, host), lambda _: None)
        await primary.until(lambda: joined(primary), "the agent")
        spec, paired = world.spec.files("refs/heads/main"), world.status()["nodes/web-1.yaml"]
        with install_host(tmp_path / "other") as other:
            before = other.tree()
            with pytest.raises(SettingsError, match="web-1 is paired with another host"):
                await install_node(*quick_request(world, other), lambda _: None)
            other.fail_at(10)  # it has joined by then
            said: list[str] = []
            with pytest.raises(InstallFailed, match="the host is as it was"):
                await install_node(*quick_request(world, other, "--replace"), said.append)
            assert any("join" in line for line in said), said
            assert other.tree() == before
        assert world.spec.files("refs/heads/main") == spec
        assert certificate(world.status()["nodes/web-1.yaml"]) == certificate(paired)


@asynccontextmanager
async def install_world(directory: Path) -> AsyncIterator[tuple[World, InstallHost, Serving]]:
    async with make_world(directory / "world") as (world, _):
        with install_host(directory / "there") as host:
            world.app.commit({"api/compose.yaml": "one\n"})
            world.commit_spec(SYNCED.format(app=world.app.url, target=host.root / "srv/site"))
            async with serving(world, TRUEUP_INTERVAL="24h") as primary:
                yield world, host, primary


def new_options(world: World, host: InstallHost) -> list[str]:
    address = f"127.0.0.1:{world.port}"
    return host.options("--primary", address, "--root", str(host.root / "srv"), *host.quick)


def quick_request(world: World, host: InstallHost, *more: str) -> tuple[Settings, Request]:
    """What the command line says, without a process for each call."""
    settings = load_settings(world.environment)
    arguments = ["web-1", *new_options(world, host), *more]
    given = node_install.make_context("install", arguments).params
    options = {name: value for name, value in given.items() if name not in (*CONNECTION, "dry_run", "wait")}
    return settings, make_request(settings, wait=PATIENCE, **options)


def certificate(status: bytes) -> str:
    """The lines of a node's status file that say which certificate it is."""
    return str(yaml.safe_load(status)["certificate"])


def joined(primary: Serving) -> Line | None:
    return next((line for line in primary.lines if line["event"].startswith("node web-1 connected")), None)
