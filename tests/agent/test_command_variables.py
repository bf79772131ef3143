"""Variables from a primary never choose which program, or which docker, an allowed command works with."""

from pathlib import Path

import pytest

from agent.command_task import run_allowed
from agent.failures import TaskFailed, code_of
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
