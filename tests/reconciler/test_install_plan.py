"""What an installation does on a host, is refused for, and takes back: decided without one."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from agent.status import hold_lock
from reconciler.cli import _report
from reconciler.errors import SettingsError, StepFailed, TrueupError
from reconciler.install.facts import probe, read_facts
from reconciler.install.plan import LOCK, Found, Step, Wanted, check, completed, plan_install, refuse
from reconciler.install.run import InstallFailed, Log, carry_out
from reconciler.install.ssh import CommandFailed, HostUnreachable, SshHost
from reconciler.install.unit import render_unit
from reconciler.install.wheels import platforms

WANTED = Wanted(node="web-1", primaries=("primary.example:9001",), pin="ab" * 32, roots=("/srv",))
BARE = Found(
    uid=0, python=(3, 11), can_make_venv=True, systemd=True, free_kib=1 << 20, missing=("/opt/trueup",)
)
JOINED = replace(
    BARE,
    missing=(),
    node="web-1",
    has_token=True,
    link="agent-00000000",
    present=(WANTED.config, WANTED.state_dir, WANTED.unit_file),
    state_dir=WANTED.state_dir,
    roots=("/srv", "/var/www"),
    primaries=("a.example:9001", "b.example:9001"),
    user="app",
    user_exists=True,
    active=True,
    enabled=True,
)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        pytest.param(replace(BARE, python=(0, 0)), "the host has no Python", id="no Python"),
        pytest.param(replace(BARE, python=(3, 9)), r"the host has Python 3\.9", id="old Python"),
        pytest.param(replace(BARE, can_make_venv=False), "python3-venv", id="no venv"),
        pytest.param(replace(BARE, free_kib=100), "has room for 100 KiB", id="disk full"),
        pytest.param(replace(BARE, systemd=False), "--no-service", id="no systemd"),
        pytest.param(
            replace(BARE, uid=1000, unwritable=("/opt",)), "/opt cannot be written.*--sudo", id="not root"
        ),
        pytest.param(replace(JOINED, node="web-2"), "belongs to the node web-2", id="another node"),
        pytest.param(replace(JOINED, state_dir="/data"), "--host-state /data", id="other records"),
        pytest.param(replace(BARE, link_taken=True), "is not ours", id="link taken"),
        pytest.param(replace(BARE, running=True), "an agent runs on the host with", id="running"),
        pytest.param(replace(BARE, config_unreadable=True), "cannot be read as an agent's", id="damaged"),
    ],
)
def test_a_host_that_will_not_do_is_refused_with_what_to_do(found: Found, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        refuse(WANTED, found)


def test_an_agent_that_runs_is_stopped_only_where_it_is_started_again() -> None:
    unmanaged = replace(WANTED, service=False)
    with pytest.raises(SettingsError, match="the unit trueup-agent runs on the host, and web-1 is installed"):
        refuse(unmanaged, JOINED)
    refuse(WANTED, JOINED)
    refuse(unmanaged, replace(JOINED, active=False))
    others = replace(BARE, active=True)  # another agent's unit of that name
    refuse(unmanaged, others)
    steps = plan_install(unmanaged, others, id="0", new_token=True)
    assert not [step.name for step in steps if "systemctl" in step.do + step.undo]
    assert "stop" in [step.name for step in plan_install(WANTED, JOINED, id="0", new_token=False)]


@pytest.mark.parametrize(
    ("content", "unreadable", "node"),
    [
        pytest.param(None, False, "", id="none"),
        pytest.param('node = "web-1"\nroots = ["/srv"]\n', False, "web-1", id="sound"),
        pytest.param('node = "web', True, "", id="cut off"),
        pytest.param('roots = ["/srv"]\n', True, "", id="no node"),
        pytest.param("node = 1\n", True, "", id="no name"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_not_none(
    tmp_path: Path, content: str | None, unreadable: bool, node: str
) -> None:
    wanted = replace(WANTED, config=str(tmp_path / "agent.toml"), python=sys.executable)
    if content is not None:
        Path(wanted.config).write_text(content)
    found = read_facts(in_shell(probe(wanted), tmp_path))
    assert (found.config_unreadable, found.node) == (unreadable, node)


def test_an_agent_is_found_by_the_records_that_it_holds(tmp_path: Path) -> None:
    wanted = replace(WANTED, config=str(tmp_path / "agent.toml"), python=sys.executable)
    Path(wanted.config).write_text(f'node = "web-1"\nstate_dir = "{tmp_path}/state"\n')
    assert not read_facts(in_shell(probe(wanted), tmp_path)).running
    held = hold_lock(tmp_path / "state")
    assert read_facts(in_shell(probe(wanted), tmp_path)).running
    os.close(held)
    assert not read_facts(in_shell(probe(wanted), tmp_path)).running


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(replace(WANTED, prefix="opt"), id="relative"),
        pytest.param(replace(WANTED, roots=("/srv/../etc",)), id="dots"),
        pytest.param(replace(WANTED, roots=("/srv\nUser=root",)), id="a line of the unit"),
        pytest.param(replace(WANTED, config="/etc/%h.toml"), id="a specifier of systemd"),
        pytest.param(replace(WANTED, state_dir="/var/lib/$(id)"), id="a command"),
        pytest.param(replace(WANTED, state_dir="/"), id="the root directory"),
        pytest.param(replace(WANTED, unit="../cron"), id="a path as unit"),
        pytest.param(replace(WANTED, user="-r"), id="an option as user"),
    ],
)
def test_what_would_be_more_than_a_path_or_a_name_is_refused(wrong: Wanted) -> None:
    with pytest.raises(SettingsError, match="is not accepted"):
        check(wrong)


@pytest.mark.parametrize("destination", ["-oProxyCommand=id", "", "root@host name", "a\nb"])
def test_a_destination_that_ssh_would_take_for_something_else_is_refused(destination: str) -> None:
    with pytest.raises(SettingsError, match="give user@host"):
        SshHost(destination, {})


def test_an_upgrade_keeps_what_the_host_has() -> None:
    plain = replace(WANTED, roots=(), primaries=())
    kept = completed(plain, JOINED, primary="here:9001")
    assert (kept.roots, kept.primaries, kept.user) == (JOINED.roots, JOINED.primaries, "app")
    assert completed(plain, BARE, primary="here:9001").primaries == ("here:9001",)
    given = replace(WANTED, user="www")
    assert completed(given, JOINED, primary="here:9001") == given


def test_no_value_gets_out_of_its_word(tmp_path: Path) -> None:
    """Each command, run by a shell with `trueup-agent` that prints what it was given."""
    evil = "x='$(touch pwned)'; touch pwned \"`touch pwned`\" \\ *"
    prefix = str(tmp_path / "opt")
    wanted = replace(WANTED, prefix=prefix, allow=(evil,), owners=(evil,), python=evil)
    steps = plan_install(wanted, BARE, id="01234567", new_token=True)
    [join] = [step for step in steps if step.name == "join"]
    program = Path(wanted.program)
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nfor each; do echo "$each"; done\n')
    program.chmod(0o755)
    said = in_shell(join.do, tmp_path).splitlines()
    assert f"--allow={evil}" in said and f"--owner={evil}" in said
    assert read_facts(in_shell(probe(wanted), tmp_path)).python == (0, 0)
    assert not (tmp_path / "pwned").exists()
    assert all(re.fullmatch(r"[ -~\n]*", step.do + step.undo) for step in steps)


def in_shell(script: str, directory: Path) -> str:
    return subprocess.run(["sh", "-euc", script], cwd=directory, stdout=-1, text=True, check=True).stdout


def test_a_look_that_was_cut_short_is_none() -> None:
    with pytest.raises(StepFailed, match="could not be looked at"):
        read_facts("Welcome!\ntrueup:uid=0\n")


def test_the_unit_for_a_host_that_keeps_its_data_elsewhere() -> None:
    template = Path("examples/systemd/trueup-agent.service")
    text = (Path(__file__).parents[2] / template).read_text()
    unit = render_unit(text, replace(WANTED, user="app", roots=("/home/app/www",), state_dir="/data/agent"))
    lines = unit.splitlines()
    assert "User=app" in lines and "CapabilityBoundingSet=" in lines
    assert "ReadWritePaths=/home/app/www /data/agent" in lines and "ProtectHome=read-only" in lines
    assert not [line for line in lines if line.startswith(("StateDirectory", "# Yours"))]


def test_a_host_gets_what_the_lock_of_agents_names() -> None:
    root = Path(__file__).parents[2]
    assert (root / "reconciler/install" / LOCK).read_bytes() == (root / "requirements" / LOCK).read_bytes()
    steps = {step.name: step for step in plan_install(WANTED, BARE, id="0", new_token=True)}
    assert "--no-deps --require-hashes --requirement /opt/trueup/wheels-0/agent.lock" in steps["packages"].do


def test_wheels_are_those_of_the_hosts_libc() -> None:
    glibc = platforms(replace(BARE, machine="aarch64", glibc=(2, 19)))
    assert glibc == [f"manylinux{name}_aarch64" for name in ("_2_19", "_2_18", "_2_17", "2014")]
    assert platforms(replace(BARE, machine="x86_64")) == ["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"]


class Host:
    """A host that keeps a set of names; each step adds its own, each undo takes it away."""

    def __init__(self, *, breaks: str, error: Exception, away: bool = False) -> None:
        self.has: set[str] = set()
        self.halted = 0
        self.undoing: Callable[[], None] = lambda: None
        self._breaks, self._error, self._away = breaks, error, away

    async def do(self, step: Step) -> str:
        self.has.add(step.name)
        if step.name == self._breaks:
            raise self._error
        return ""

    async def undo(self, step: Step) -> str:
        self.undoing()
        await trio.lowlevel.checkpoint()
        if self._away and step.undo:
            raise HostUnreachable("no route")
        self.has.discard(step.name)
        return ""

    async def halt(self) -> None:
        await trio.lowlevel.checkpoint()
        self.halted += 1
        if self._away:
            raise HostUnreachable("no route")


STEPS = tuple(
    Step(name=name, what=f"do {name}", undo="" if name == "here" else "true") for name in ("a", "here", "b")
)


def quiet(_: str) -> None:
    raise OSError("the terminal is gone")


async def test_a_command_that_fails_is_taken_back_even_where_nobody_looks_on() -> None:
    host = Host(breaks="b", error=CommandFailed("no space left", output="tar: no space left"))
    log = Log(quiet, lambda text: text)
    with pytest.raises(InstallFailed, match="could not do b: no space left; the host is as it was"):
        await carry_out(STEPS, host, log)
    assert not host.has and not host.halted
    assert "tar: no space left" in log.lines


async def test_a_host_that_went_away_keeps_nothing_from_being_taken_back_here() -> None:
    host = Host(breaks="b", error=HostUnreachable("no route"), away=True)
    with pytest.raises(InstallFailed, match="not taken back: do b, do a; run it again"):
        await carry_out(STEPS, host, Log(quiet, lambda text: text))
    assert host.has == {"a", "b"}  # not `here`, which is done on this side


async def test_a_connection_that_was_lost_ends_what_still_runs_there_first() -> None:
    host = Host(breaks="b", error=HostUnreachable("connection reset"))
    with pytest.raises(InstallFailed, match="the host is as it was"):
        await carry_out(STEPS, host, Log(quiet, lambda text: text))
    assert host.halted == 1 and not host.has


async def test_a_cancelled_installation_is_taken_back() -> None:
    host = Host(breaks="b", error=ValueError("never raised"))
    with trio.CancelScope() as scope:

        async def cancelled(step: Step) -> str:
            host.has.add(step.name)
            if step.name == "b":
                scope.cancel()
            await trio.lowlevel.checkpoint()
            return ""

        host.do = cancelled  # type: ignore[method-assign]
        await carry_out(STEPS, host, Log(quiet, lambda text: text))
    assert scope.cancelled_caught and not host.has and host.halted == 1


async def test_an_undo_that_somebody_interrupts_goes_on() -> None:
    """After a step that failed, whose error is what is told then, as after an interrupt."""
    host = Host(breaks="b", error=CommandFailed("no space left", output=""))
    with trio.CancelScope() as scope:
        host.undoing = scope.cancel
        with pytest.raises(InstallFailed, match="the host is as it was"):
            await carry_out(STEPS, host, Log(quiet, lambda text: text))
    assert scope.cancel_called and not host.has


def test_the_hosts_words_act_on_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    Log(said.append, lambda text: text).say("  failed: no\x1b[2J\rspace")
    assert said == ["  failed: no\\x1b[2J\\rspace"]
    with pytest.raises(SystemExit):
        _report(TrueupError("could not join: no\x1b]0;owned\x07\tspace"))
    assert capsys.readouterr().err == "error: could not join: no\\x1b]0;owned\\x07\tspace\n"
