"""The `compose` driver: docker compose on the primary's host, or on the docker host that it is set to."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

import trio

from reconciler.deploy.compose_tree import clear, place
from reconciler.deploy.context import Identity, RunContext, private_home, task_environment
from reconciler.deploy.docker import STEERING, Docker, DockerUnavailable, endpoint, find_docker
from reconciler.deploy.inside import directory_inside, inside
from reconciler.deploy.output import last_lines
from reconciler.deploy.process import Completed, StartFailed, run_captured
from reconciler.deploy.request import (
    CannotRemove,
    DeployFailed,
    DeployOutcome,
    DeployRequest,
    Driver,
    LookRequest,
    RemoveRequest,
    TaskTimeout,
)
from reconciler.identity import compose_project
from reconciler.observation import Absent, Observation, Unknown
from reconciler.secrets.mask import Masker
from reconciler.spec.model import ComposeDeploy, Service

REMOVE_DEADLINE: Final = 600.0
"""Seconds in which the containers of a project have to stop and go."""

PROJECT, DOCKER = "project", "docker"
"""Keys of the inventory: the compose project, and where its docker is."""

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_EXITED = re.compile(r"container \S+ exited \(0\)")


class ComposeDriver(Driver):
    """`deploy: {kind: compose, file: compose.yaml}`: `docker compose up --wait` says whether it is there."""

    removes: ClassVar[bool] = True

    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        service, deploy = request.service, request.service.deploy
        if not isinstance(deploy, ComposeDeploy):
            raise TypeError(f"not a compose deploy: {type(deploy).__name__}")
        if steering := sorted(STEERING & request.variables.keys()):
            raise DeployFailed(
                f"{service.id}: {steering[0]} steers docker itself and cannot be a service's variable",
                hint="give it another name in the spec and in the compose file",
            )
        project = compose_project(service, request.inventory.get(PROJECT))
        owner = next((id for id, other in request.others.items() if other.get(PROJECT) == project), None)
        if owner is not None:
            raise DeployFailed(
                f"{service.id}: the compose project {project} is that of {owner}, whose containers would go",
                hint="give one of the two another `deploy.project_name`",
            )
        docker = await find_docker(request.context)
        workdir, file = await self._placed(request, deploy, project)
        inventory = {PROJECT: project, DOCKER: endpoint(docker.environment)}
        completed = await self._up(request, deploy, docker, project, workdir, file)
        _judge(request, deploy, completed, inventory)
        return DeployOutcome(completed.exit_code, completed.output, completed.duration, inventory)

    async def look(self, request: LookRequest) -> Observation | None:
        """Only whether all of it is gone: a container that stopped is for docker's restart policy."""
        recorded = request.recorded
        if recorded is None or not recorded.config_hash or PROJECT not in recorded.inventory:
            return None
        try:
            docker = await find_docker(request.context, compose=False)
            there = await docker.containers(recorded.inventory[PROJECT])
        except DockerUnavailable as error:
            return Unknown(error.reason, f"{request.service.id}: {error}")
        return None if there else Absent("no container of it is there")

    def place(self, inventory: Mapping[str, str]) -> str:
        return inventory.get(PROJECT, "")

    def place_of(self, service: Service, inventory: Mapping[str, str]) -> str:
        return compose_project(service, inventory.get(PROJECT))

    async def remove(self, request: RemoveRequest) -> None:
        """By the project's name alone: its file may be gone. Volumes stay."""
        project, where = request.inventory.get(PROJECT, ""), request.inventory.get(DOCKER, "")
        if not _PROJECT.fullmatch(project):
            raise CannotRemove(f"{request.resource}: its record does not say which compose project it was")
        context = request.context
        here = endpoint(context.docker_environment)
        if here != where:
            raise CannotRemove(
                f"{request.resource}: it was deployed to another docker ({where or 'the default one'}) "
                f"than the primary uses ({here or 'the default one'})",
                hint="make one pass with the DOCKER_HOST or DOCKER_CONTEXT that it was deployed with",
            )
        docker = await find_docker(context)
        async with private_home(context) as home:
            completed = await _run(
                [
                    *(docker.command, "compose", "--ansi", "never", "--project-name", project),
                    *("down", "--remove-orphans"),
                ],
                request=request,
                cwd=home,
                environment={**docker.environment, "HOME": str(home)},
            )
        if completed.timed_out:
            raise CannotRemove(f"{request.resource}: `docker compose down` was ended after its timeout")
        if completed.exit_code:
            raise CannotRemove(
                f"{request.resource}: `docker compose down` ended with exit code {completed.exit_code}",
                hint=f"last lines: {last_lines(completed.output)}",
            )
        if await docker.containers(project):
            raise CannotRemove(f"{request.resource}: containers of {project} are there after all")
        try:
            await trio.to_thread.run_sync(clear, _home_of(context, project))
        except OSError as error:
            raise CannotRemove(f"{request.resource}: its files cannot be removed: {error.strerror}") from None

    async def _placed(self, request: DeployRequest, deploy: ComposeDeploy, project: str) -> tuple[Path, Path]:
        """The working directory and the compose file, below a directory that stays."""
        owner, context = request.service.id, request.context
        try:
            tree = await trio.to_thread.run_sync(place, request.checkout, _home_of(context, project))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise DeployFailed(f"{owner}: its files cannot be placed: {where}{error.strerror}") from None
        return await trio.to_thread.run_sync(_find_file, request, deploy, tree)

    async def _up(
        self,
        request: DeployRequest,
        deploy: ComposeDeploy,
        docker: Docker,
        project: str,
        workdir: Path,
        file: Path,
    ) -> Completed:
        service = request.service
        identity = Identity(
            environment=service.environment, service=service.name, tag=request.tag, revision=request.revision
        )
        wait = max(1, int(deploy.timeout * 0.9))  # so that compose itself says what it waited for
        try:
            async with private_home(request.context) as home:
                completed = await run_captured(
                    [
                        *(docker.command, "compose", "--ansi", "never", "--project-name", project),
                        # A `.env` of the repository decides nothing: variables are what the spec declares.
                        *("--file", str(file), "--env-file", "/dev/null"),
                        *("up", "--detach", "--build", "--quiet-pull", "--remove-orphans"),
                        *("--wait", "--wait-timeout", str(wait)),
                    ],
                    cwd=workdir,
                    env=task_environment(docker.environment, request.variables, identity, home),
                    timeout=deploy.timeout,
                    masker=request.masker,
                    on_line=request.log,
                )
        except StartFailed as error:
            raise DeployFailed(f"{service.id}: {error.message}", hint=error.hint) from None
        return completed


def _home_of(context: RunContext, project: str) -> Path:
    return context.state_dir / "compose" / project


def _find_file(request: DeployRequest, deploy: ComposeDeploy, tree: Path) -> tuple[Path, Path]:
    owner, root = request.service.id, tree.resolve()
    at = f" at {request.tag}"
    workdir = directory_inside(root, deploy.workdir, f"{owner}: workdir", at, DeployFailed)
    file = inside(root, workdir, deploy.file, f"{owner}: the compose file", DeployFailed)
    if not file.is_file():
        raise DeployFailed(
            f"{owner}: there is no compose file {deploy.file!r} in {deploy.workdir!r} at {request.tag}",
            hint="`deploy.file` starts at `workdir`",
        )
    return workdir, file


def _judge(
    request: DeployRequest, deploy: ComposeDeploy, completed: Completed, inventory: Mapping[str, str]
) -> None:
    """Raises where it did not come up; some of its containers may be there all the same."""
    owner, output = request.service.id, completed.output
    ending = f"last lines: {last_lines(output)}" if last_lines(output) else "it printed nothing"
    if completed.timed_out:
        raise TaskTimeout(
            f"{owner}: `docker compose up` was ended after its timeout of {deploy.timeout:g}s",
            hint=ending,
            output=output,
            inventory=inventory,
        )
    if completed.exit_code == 0:
        return
    if _EXITED.search(output):
        ending += (
            "; for `up --wait` a container that has done its work is a failure, unless another service "
            "depends on it with `condition: service_completed_successfully`"
        )
    raise DeployFailed(
        f"{owner}: `docker compose up` ended with exit code {completed.exit_code} at {request.tag}",
        hint=ending,
        output=output,
        inventory=inventory,
    )


async def _run(
    command: list[str], *, request: RemoveRequest, cwd: Path, environment: Mapping[str, str]
) -> Completed:
    try:
        return await run_captured(
            command,
            cwd=cwd,
            env=environment,
            timeout=REMOVE_DEADLINE,
            masker=Masker([]),
            on_line=request.log,
        )
    except StartFailed as error:
        raise CannotRemove(f"{request.resource}: {error.message}", hint=error.hint) from None
