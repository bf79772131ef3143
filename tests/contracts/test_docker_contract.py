"""What the compose driver relies on in docker, against the double and, with TRUEUP_TEST_DOCKER=1, a real one.

A real docker needs its compose plugin, a daemon on this host, and the image `busybox`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.deploy.compose import ComposeDriver
from reconciler.deploy.request import DeployFailed
from reconciler.observation import Absent
from tests.canaries import canary
from tests.contracts.docker_host import REAL, DockerHost, double_host, real_host
from tests.reconciler.deploy.compose_requests import look, project_of, remove, request

SECRET = canary("compose")

PROJECT = f"trueup-test-{os.getpid()}"

WEB = """
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: KILL
    environment: {PASSWORD: "${PASSWORD:?}", STRAY: "${STRAY:-}", HERE: "${TRUEUP_SERVICE}"}
"""
TWO = WEB + "  more: {image: busybox, command: sleep 1000, stop_signal: KILL}\n"
ENDS = (
    "services:\n  web: {image: busybox, command: 'true'}\n  job:\n"
    "    {image: busybox, command: 'true', x-double: {exit: 0}}\n"
)
driver = ComposeDriver()


@pytest.fixture(params=["double", "real"] if REAL is not None else ["double"])
def docker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DockerHost]:
    if request.param == "double":
        yield double_host(tmp_path / "host")
        return
    host = real_host(tmp_path / "host")
    yield host
    host.run("compose", "-p", PROJECT, "down", "--volumes", "--remove-orphans")


async def test_a_project_is_up_with_the_variables_of_the_spec(docker: DockerHost, tmp_path: Path) -> None:
    files = {"compose.yaml": WEB, ".env": "STRAY=from-the-checkout\nPASSWORD=wrong\n"}
    asked = request(docker, tmp_path, files, project=PROJECT, secrets={"PASSWORD": SECRET})
    outcome = await driver.deploy(asked)
    assert outcome.exit_code == 0
    assert outcome.inventory == {"project": PROJECT, "docker": ""}
    found = docker.variables(PROJECT)
    assert (found["PASSWORD"], found["STRAY"], found["HERE"]) == (SECRET, "", "web")
    # Again, as a primary does that was killed meanwhile.
    await driver.deploy(asked)
    assert len(docker.containers(PROJECT)) == 1


async def test_what_left_the_file_is_gone_after_the_next_deploy(docker: DockerHost, tmp_path: Path) -> None:
    secrets = {"PASSWORD": SECRET}
    await driver.deploy(request(docker, tmp_path, {"compose.yaml": TWO}, project=PROJECT, secrets=secrets))
    assert len(docker.containers(PROJECT)) == 2
    await driver.deploy(request(docker, tmp_path, {"compose.yaml": WEB}, project=PROJECT, secrets=secrets))
    assert len(docker.containers(PROJECT)) == 1


async def test_looking_and_removing(docker: DockerHost, tmp_path: Path) -> None:
    asked = request(docker, tmp_path, {"compose.yaml": WEB}, project=PROJECT, secrets={"PASSWORD": SECRET})
    assert await driver.look(look(asked, None)) is None
    outcome = await driver.deploy(asked)
    assert await driver.look(look(asked, outcome.inventory)) is None
    await driver.remove(remove(asked, outcome.inventory))
    assert docker.containers(PROJECT) == []
    assert await driver.look(look(asked, outcome.inventory)) == Absent("no container of it is there")
    assert not project_of(asked, PROJECT).exists()
    await driver.remove(remove(asked, outcome.inventory))


async def test_a_container_that_ends_is_a_failed_deploy(docker: DockerHost, tmp_path: Path) -> None:
    with pytest.raises(DeployFailed) as failed:
        await driver.deploy(request(docker, tmp_path, {"compose.yaml": ENDS}, project=PROJECT))
    assert "`docker compose up` ended with exit code 1 at v1.2.3; last lines: " in str(failed.value)
    assert "condition: service_completed_successfully" in str(failed.value)
    assert "\n" not in str(failed.value)


async def test_a_variable_that_is_missing_is_told(docker: DockerHost, tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match="PASSWORD"):
        await driver.deploy(request(docker, tmp_path, {"compose.yaml": WEB}, project=PROJECT))
    assert docker.containers(PROJECT) == []
