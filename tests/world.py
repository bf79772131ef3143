"""A whole small world for end-to-end tests: repositories, a primary's settings, hosts with real agents.

Everything is real: git repositories, `python -m reconciler` and `python -m agent` as processes of their
own (short commands of the first are forked, see `tests/forked.py`), TLS over loopback. A host's agent
reaches its primary through a relay that counts bytes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.canaries import may_hold
from tests.forked import can_fork, run_forked
from tests.gitrepo import Content, GitRepo, git_environment
from tests.ports import free_port

AGENT_PYTHON = os.environ.get("TRUEUP_TEST_AGENT_PYTHON", sys.executable)
"""The Python of the agents: `tasks.py agent-alone` names one that has the agent's own dependencies alone."""

PATIENCE = 120
"""Seconds after which a process that should have ended fails its test; only a hang gets there."""


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


@dataclass
class Host:
    """A target host: its root that may be written, and its agent's own directory."""

    node: str
    root: Path
    state: Path
    config: Path
    join: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    drift_interval: float = 0.0
    """Seconds. 0: its agent tells of nothing unasked, so that what a test edits on the host stays as it is
    until the test has it synced, however long that takes."""

    @property
    def srv(self) -> Path:
        return self.root / "srv"


class Relay:
    """Passes bytes between agents and the primary, and counts them."""

    def __init__(self, listener: trio.SocketListener, port: int) -> None:
        self._listener = listener
        self._port = port
        self.to_agent = 0
        self.to_primary = 0

    @property
    def address(self) -> str:
        host, port = self._listener.socket.getsockname()
        return f"{host}:{port}"

    async def serve(self) -> None:
        await trio.serve_listeners(self._relay, [self._listener])

    async def _relay(self, agent: trio.SocketStream) -> None:
        try:
            primary = await trio.open_tcp_stream("127.0.0.1", self._port)
        except OSError:
            await agent.aclose()
            return
        async with primary, agent, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, agent, primary, "to_primary", nursery.cancel_scope)
            nursery.start_soon(self._pump, primary, agent, "to_agent", nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, counter: str, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                setattr(self, counter, getattr(self, counter) + len(data))
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


class World:
    """Repositories and settings below one directory."""

    def __init__(self, root: Path, port: int, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._agents: list[trio.Process] = []
        self.root = root
        self.port = port
        self.spec = GitRepo.create(root / "spec.git")
        self.app = GitRepo.create(root / "app.git")
        self.state = root / "state"
        self.deployed = root / "deployed"
        self.deployed.mkdir()
        self.environment = {
            **git_environment(),
            "TRUEUP_SPEC_REPO": self.spec.url,
            "TRUEUP_STATE_DIR": str(self.state),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
            "SYNC_TCP_ADDR": f"127.0.0.1:{port}",
        }
        may_hold(self.state / "master.key")

    def commit_spec(self, text: str, files: Mapping[str, Content] | None = None) -> str:
        return self.spec.commit({"trueup.yaml": text, **(files or {})})

    async def trueup(self, *arguments: str, expect: int | None = 0, **environment: str) -> Ran:
        """Run a `trueup` command to its end."""
        variables = {**self.environment, **environment}
        if can_fork(variables):
            with trio.fail_after(PATIENCE):
                code, output, errors = await run_forked(arguments, environment=variables, cwd=self.root)
            ran = Ran(code, output.decode(), errors.decode())
        else:
            ran = await self.run(["-m", "reconciler", *arguments], **environment)
        if expect is not None and ran.exit_code != expect:
            raise AssertionError(
                f"trueup {shlex.join(arguments)} ended with {ran.exit_code}, not {expect}\n"
                f"{ran.stdout}\n{ran.stderr}"
            )
        return ran

    async def kill_during(self, moment: Callable[[], object], *arguments: str) -> None:
        """Start a `trueup` command, wait in a thread for a moment, and end it with SIGKILL."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "reconciler", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.root,
        )
        try:
            with trio.fail_after(PATIENCE):
                await trio.to_thread.run_sync(moment, abandon_on_cancel=True)
        finally:
            process.kill()
            await process.wait()

    async def run(self, arguments: list[str], *, python: str = sys.executable, **environment: str) -> Ran:
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [python, *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**self.environment, **environment},
                cwd=self.root,
            )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def reconcile(self, *arguments: str, expect: int | None = 0) -> Any:
        """One pass; returns its document."""
        ran = await self.trueup("reconcile", "-o", "json", *arguments, expect=expect)
        return json.loads(ran.stdout) if ran.stdout else None

    async def add_host(self, node: str, primary: str, *labels: str) -> Host:
        """Add a node to the spec with the real command, and prepare its host."""
        options = [option for label in labels for option in ("--label", label)]
        ran = await self.trueup("node", "add", node, "--primary", primary, *options)
        join = next(shlex.split(line) for line in ran.stdout.splitlines() if "trueup-agent join" in line)
        directory = self.root / "hosts" / node
        host = Host(node, directory, directory / "agent", directory / "agent.toml", join[1:])
        host.srv.mkdir(parents=True, exist_ok=True)
        return host

    async def start_agent(self, host: Host, *, joined: bool = False) -> trio.Process:
        """The host's agent as a process; it joins first, unless it has. The world's end ends it."""
        if not joined:
            ran = await self.join(host)
            assert ran.exit_code == 0, ran.stderr
        process: trio.Process = await self._nursery.start(self._run_agent, host)
        self._agents.append(process)
        return process

    async def stop_agents(self) -> None:
        """End all agents with SIGTERM; each must exit 0."""
        with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
            for process in self._agents:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            codes = [await process.wait() for process in self._agents]
        self._agents.clear()
        assert not any(codes), f"an agent ended with {codes}"

    async def join(self, host: Host, *options: str) -> Ran:
        """Run the join command; it waits for the primary."""
        ran = await self.run(
            [
                *("-m", "agent", *host.join, "--root", str(host.srv)),
                *("--config", str(host.config), "--state-dir", str(host.state)),
                *host.extra,
                *options,
            ],
            python=AGENT_PYTHON,
        )
        if ran.exit_code == 0:
            interval = f"drift_interval = {host.drift_interval}"
            text, found = re.subn("(?m)^drift_interval = .*$", interval, host.config.read_text())
            assert found == 1
            host.config.write_text(text)
        return ran

    async def _run_agent(self, host: Host, task_status: trio.TaskStatus[trio.Process]) -> None:
        with (host.root / "agent.log").open("ab") as log:
            await trio.run_process(
                [AGENT_PYTHON, "-m", "agent", "run", "--config", str(host.config)],
                stdout=log,
                stderr=log,
                check=False,
                env=self.environment,
                cwd=self.root,
                task_status=task_status,
            )

    def status(self) -> dict[str, bytes]:
        """The files of the status branch."""
        return self.spec.files("refs/heads/trueup/status")

    def status_commits(self) -> list[str]:
        return self.spec.log("refs/heads/trueup/status")


@asynccontextmanager
async def make_world(root: Path) -> AsyncIterator[tuple[World, Relay]]:
    """A world with a key, and a relay to its primary's port."""
    port = free_port()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        relay = Relay(listener, port)
        nursery.start_soon(relay.serve)
        world = World(root, port, nursery)
        await world.trueup("key", "new")
        try:
            yield world, relay
        finally:
            await world.stop_agents()
            nursery.cancel_scope.cancel()


def beside(world: World, name: str) -> World:
    """Another primary of the same world, with a state directory of its own and the same master key."""
    other = copy(world)
    other.state = world.root / name
    other.environment = {**world.environment, "TRUEUP_STATE_DIR": str(other.state)}
    other.state.mkdir(mode=0o700)
    shutil.copy(world.state / "master.key", other.state / "master.key")
    may_hold(other.state / "master.key")
    return other


def tree_of(directory: Path, *, skip: Container[str] = ()) -> dict[str, tuple[str, int, bytes]]:
    """Everything below a directory: path to (kind, permission bits, content or link target).

    `skip`: names that somebody is at work on; neither they nor what is below them is looked at.
    """
    found: dict[str, tuple[str, int, bytes]] = {}
    for path in sorted(_paths_below(directory, skip)):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = ("symlink", 0, str(path.readlink()).encode())
        elif path.is_dir():
            found[name] = ("directory", path.stat().st_mode & 0o777, b"")
        else:
            found[name] = ("file", path.stat().st_mode & 0o777, path.read_bytes())
    return found


def _paths_below(directory: Path, skip: Container[str]) -> Iterator[Path]:
    with os.scandir(directory) as entries:
        wanted = [entry for entry in entries if entry.name not in skip]
    for entry in wanted:
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _paths_below(Path(entry.path), skip)
