"""The compose driver: what it says without docker, names, files, deadlines."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.deploy.compose import ComposeDriver
from reconciler.deploy.compose_tree import clear, place
from reconciler.deploy.docker import DockerUnavailable
from reconciler.deploy.request import CannotRemove, DeployFailed, TaskTimeout
from reconciler.identity import compose_project
from reconciler.observation import Absent, Unknown
from tests.canaries import canary
from tests.contracts.docker_host import DockerHost, double_host
from tests.reconciler.deploy.compose_requests import context, look, project_of, remove, request, service
from tests.reconciler.deploy.processes import wait_gone

driver = ComposeDriver()
ONE = {"compose.yaml": "services: {web: {image: busybox}}\n"}
PRINTS = "services: {web: {image: b, x-double: {print: 'it is $PASSWORD'}}}\n"
HANGS = {"compose.yaml": "services: {web: {image: b, x-double: {hang: true}}}\n"}


@pytest.fixture
def docker(tmp_path: Path) -> DockerHost:
    return double_host(tmp_path / "host")


async def unavailable(docker: DockerHost, root: Path, **environ: str) -> str:
    with pytest.raises(DockerUnavailable) as raised:
        await driver.deploy(request(docker, root, ONE, project="p", environ=environ))
    assert (raised.value.reason, raised.value.retryable) == ("DockerUnavailable", True)
    assert "\n" not in str(raised.value)
    return str(raised.value)


async def test_no_docker_no_compose_and_no_daemon_are_three_things(
    docker: DockerHost, tmp_path: Path
) -> None:
    docker.take_away("compose")
    assert await unavailable(docker, tmp_path) == (
        "docker has no compose: `docker compose version` says docker: unknown command: docker compose; "
        "install its compose plugin (docker-compose-plugin) on the primary"
    )
    docker.give_back("compose")
    docker.take_away("daemon")
    told = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    hint = "start it, let the primary's user reach it, or correct DOCKER_HOST"
    assert await unavailable(docker, tmp_path) == f"docker's daemon does not answer: {told}; {hint}"
    elsewhere = await unavailable(docker, tmp_path, DOCKER_HOST="tcp://docker.example:2376")
    assert elsewhere.startswith("docker's daemon does not answer (tcp://docker.example:2376): Cannot connect")
    shutil.rmtree(docker.bin)
    nothing = replace(request(docker, tmp_path, ONE), context=context(docker, tmp_path, PATH=str(docker.bin)))
    with pytest.raises(DockerUnavailable, match="there is no docker: no `docker` command is on the primary"):
        await driver.deploy(nothing)


async def test_a_docker_that_cannot_be_asked_is_unknown_never_absent(
    docker: DockerHost, tmp_path: Path
) -> None:
    asked = request(docker, tmp_path, ONE)
    inventory = {"project": "p", "docker": ""}
    assert isinstance(await driver.look(look(asked, inventory)), Absent)
    docker.take_away("daemon")
    seen = await driver.look(look(asked, inventory))
    assert isinstance(seen, Unknown)
    assert (seen.reason, seen.message.partition(":")[0]) == ("DockerUnavailable", "services/staging/web")
    with pytest.raises(DockerUnavailable):
        await driver.remove(remove(asked, inventory))


async def test_docker_host_is_passed_on_and_decides_where_a_removal_may_happen(
    docker: DockerHost, tmp_path: Path
) -> None:
    there = {"DOCKER_HOST": "ssh://deploy@docker.example"}
    asked = request(docker, tmp_path, ONE, project="p", environ=there)
    outcome = await driver.deploy(asked)
    assert outcome.inventory == {"project": "p", "docker": "ssh://docker.example"}
    assert docker.containers("p") == []
    assert len(docker.containers("p", **there)) == 1
    here = request(docker, tmp_path, ONE, project="p")
    with pytest.raises(CannotRemove, match=r"another docker \(ssh://docker.example\) than the primary uses"):
        await driver.remove(remove(here, outcome.inventory))
    assert len(docker.containers("p", **there)) == 1
    await driver.remove(remove(asked, outcome.inventory))
    assert docker.containers("p", **there) == []


@pytest.mark.parametrize("name", ["DOCKER_HOST", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"])
async def test_no_service_steers_docker(docker: DockerHost, tmp_path: Path, name: str) -> None:
    with pytest.raises(DeployFailed, match=f"{name} steers docker itself"):
        await driver.deploy(request(docker, tmp_path, ONE, secrets={name: "x"}))


async def test_secrets_are_masked_in_what_docker_prints(docker: DockerHost, tmp_path: Path) -> None:
    lines: list[str] = []
    asked = request(docker, tmp_path, {"compose.yaml": PRINTS}, secrets={"PASSWORD": canary("printed")})
    outcome = await driver.deploy(replace(asked, log=lines.append))
    assert "it is ***" in outcome.output
    assert "it is ***" in lines


async def test_a_deploy_that_takes_too_long(
    docker: DockerHost, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    def heard(line: str) -> None:
        if line.startswith("waiting "):
            mock_clock.jump(30)

    asked = request(docker, tmp_path, HANGS, timeout=30.0)
    with pytest.raises(TaskTimeout) as raised:
        await driver.deploy(replace(asked, log=heard))
    assert "`docker compose up` was ended after its timeout of 30s; last lines: " in str(raised.value)
    for pid in raised.value.output.partition("waiting ")[2].split()[:2]:
        await wait_gone(int(pid))


async def test_a_cancelled_deploy_leaves_no_process(docker: DockerHost, tmp_path: Path) -> None:
    lines: list[str] = []
    async with trio.open_nursery() as nursery:

        def heard(line: str) -> None:
            lines.append(line)
            if line.startswith("waiting "):
                nursery.cancel_scope.cancel()

        nursery.start_soon(driver.deploy, replace(request(docker, tmp_path, HANGS), log=heard))
    for pid in lines[-1].split()[1:]:
        await wait_gone(int(pid))


@pytest.mark.parametrize(
    ("files", "deploy", "told"),
    [
        (ONE, {"workdir": "web"}, "workdir 'web' is not a directory in the repository at v1.2.3"),
        (ONE, {"workdir": "../other"}, "workdir '../other' leads out of the repository"),
        (ONE, {"file": "../compose.yaml"}, "the compose file '../compose.yaml' leads out"),
        ({"web/x": ""}, {"workdir": "web"}, "there is no compose file 'compose.yaml' in 'web' at v1.2.3"),
    ],
)
async def test_files_that_are_not_there(
    docker: DockerHost, tmp_path: Path, files: dict[str, str], deploy: dict[str, str], told: str
) -> None:
    with pytest.raises(DeployFailed) as raised:
        await driver.deploy(request(docker, tmp_path, files, **deploy))  # type: ignore[arg-type]
    assert str(raised.value).startswith(f"services/staging/web: {told}")


def test_names_of_projects() -> None:
    assert compose_project(service()) == "staging-web"
    assert compose_project(service(project_name="shop")) == "shop"
    # A rename keeps the name, and with it the volumes.
    assert compose_project(service("site"), "staging-web") == "staging-web"
    assert compose_project(service("site", project_name="shop"), "staging-web") == "shop"
    odd = compose_project(service("Web.App", environment="EU"))
    assert odd.startswith("eu-web-app-")
    assert odd != compose_project(service("web.app", environment="EU"))


async def test_no_two_services_share_a_project(docker: DockerHost, tmp_path: Path) -> None:
    others = {"services/staging/api": {"project": "shop"}}
    with pytest.raises(DeployFailed, match="the compose project shop is that of services/staging/api"):
        await driver.deploy(request(docker, tmp_path, ONE, project="shop", others=others))


async def test_files_stay_where_containers_mount_them(docker: DockerHost, tmp_path: Path) -> None:
    files = {**ONE, "conf/a": "1\n", "conf/old": "x\n", ".git/config": "x"}
    asked = request(docker, tmp_path, files, project="p")
    await driver.deploy(asked)
    tree = project_of(asked, "p") / "tree"
    (tree / "data").mkdir()
    (tree / "data" / "rows").write_text("of the database\n")
    await driver.deploy(request(docker, tmp_path, {**ONE, "conf/a": "2\n"}, project="p"))
    found = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert found == ["compose.yaml", "conf/a", "data/rows"]
    assert (tree / "conf" / "a").read_text() == "2\n"
    await driver.remove(remove(asked, {"project": "p", "docker": ""}))
    assert [path.name for path in tree.iterdir()] == ["data"]


def test_no_link_of_a_container_is_followed(tmp_path: Path) -> None:
    checkout, home, outside = tmp_path / "checkout", tmp_path / "compose" / "p", tmp_path / "outside"
    (checkout / "conf").mkdir(parents=True)
    (checkout / "conf" / "a").write_text("ours\n")
    (checkout / "b").write_text("ours\n")
    outside.mkdir()
    for name in ("a", "b"):
        (outside / name).write_text("another's\n")
    tree = place(checkout, home)
    shutil.rmtree(tree / "conf")
    (tree / "conf").symlink_to(outside)
    (tree / "b").unlink()
    (tree / "b").symlink_to(outside / "b")
    place(checkout, home)
    assert (tree / "conf" / "a").read_text() == (tree / "b").read_text() == "ours\n"
    shutil.rmtree(tree / "conf")
    (tree / "conf").symlink_to(outside)
    clear(home)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        "a": "another's\n",
        "b": "another's\n",
    }


def test_modes_and_links_are_placed(tmp_path: Path) -> None:
    checkout, home = tmp_path / "checkout", tmp_path / "compose" / "p"
    checkout.mkdir()
    (checkout / "run").write_text("#!/bin/sh\n")
    (checkout / "run").chmod(0o755)
    (checkout / "link").symlink_to("run")
    tree = place(checkout, home)
    first = (tree / "run").stat().st_ino
    assert (os.access(tree / "run", os.X_OK), str((tree / "link").readlink())) == (True, "run")
    place(checkout, home)
    assert (tree / "run").stat().st_ino == first
