"""Variables from a primary never choose which program, or which docker, an allowed command works with."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Literal

import pytest
import trio

from agent import accounts, libc
from agent.command_task import run_allowed
from agent.commands import command_environment
from agent.failures import TaskFailed, code_of
from agent.libc import Account
from agent.rules import AgentRules
from agent.wire.messages import Command, TaskReport


async def run(root: Path, name: str, value: str = "x") -> TaskReport:
    target = root / "site"
    target.mkdir()
    rules = AgentRules(roots=(str(root),), commands={"up": ("/bin/sh", "-c", "touch ran")})
    command = Command(
        id="1", project="site", target_path=str(target), command="up", environment={name: value}
    )
    return await run_allowed(command, rules=rules)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV"),
        *("DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_CONTEXT", "BUILDX_CONFIG", "XDG_CONFIG_HOME"),
        *("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES"),
        *("MAKEFILES", "OPENSSL_CONF", "KUBECONFIG", "PAGER", "npm_config_script_shell"),
    ],
)
async def test_a_variable_that_steers_programs_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        await run(tmp_path, name)
    assert (code_of(caught.value), name in str(caught.value)) == ("VariableNotAllowed", True)
    assert not (tmp_path / "site/ran").exists()


@pytest.mark.parametrize("name", ["ENV", "COMPOSE_PROFILES", "PASSWORD", "DATABASE_URL"])
async def test_others_reach_the_command(tmp_path: Path, name: str) -> None:
    assert (await run(tmp_path, name)).state == "SUCCESS"
    assert (tmp_path / "site/ran").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """A service of names that was asked, and that answers once it may."""
    asked, may_answer = Event(), Event()
    real = libc.find_account

    def hang(kind: Literal["user", "group"], key: str | int) -> Account | None:
        asked.set()
        may_answer.wait()
        return real(kind, key)

    monkeypatch.setattr(libc, "find_account", hang)
    yield asked, may_answer
    may_answer.set()


async def test_the_agent_goes_on_while_its_own_user_is_looked_up(
    tmp_path: Path, asked: tuple[Event, Event]
) -> None:
    reports: list[TaskReport] = []

    async def command() -> None:
        reports.append(await run(tmp_path, "ENV"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(command)
        assert await trio.to_thread.run_sync(asked[0].wait, 60)
        asked[1].set()
    assert [report.state for report in reports] == ["SUCCESS"]


@pytest.mark.usefixtures("asked")
async def test_no_command_waits_for_ever_for_who_the_agents_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "LOOKUP_SECONDS", 0.05)
    with pytest.raises(TaskFailed, match="this host does not say whether it has the user") as caught:
        await run(tmp_path, "ENV")
    assert code_of(caught.value) == "Busy"
    assert not (tmp_path / "site/ran").exists()


async def test_a_command_is_at_home_where_the_agents_user_is() -> None:
    own = pwd.getpwuid(os.geteuid())
    environment = await command_environment("site", "/srv/site")
    assert (environment["HOME"], environment["USER"]) == (own.pw_dir, own.pw_name)
