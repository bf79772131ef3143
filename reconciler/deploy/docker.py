"""docker's command line client: whether it can be used here, and what it is asked.

What it reads of the environment is what `reconciler.settings.Settings.docker_environment` lets through.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.child import Ended, Killed, NotStarted, run_child
from reconciler.deploy.context import RunContext
from reconciler.errors import LookFailed
from reconciler.status.conditions import bounded

ASK_DEADLINE: Final = 30.0
"""Seconds for a question to the daemon, which may be on another host."""
_MAX_ANSWER: Final = 1 << 20

STEERING: Final = frozenset({
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH"),
    *("DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION", "DOCKER_CUSTOM_HEADERS"),
    *("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROJECT_NAME", "COMPOSE_PROJECT_DIRECTORY"),
    *("COMPOSE_ENV_FILES", "COMPOSE_DISABLE_ENV_FILE", "COMPOSE_REMOVE_ORPHANS"),
})  # fmt: skip
"""Variables with which docker's client would act on another daemon, project or file than it is told to."""


class DockerUnavailable(LookFailed):
    """There is no docker, no compose plugin, or no daemon: nothing was found out, and nothing done."""

    reason = "DockerUnavailable"


@dataclass(frozen=True, slots=True)
class Docker:
    """A client with its compose plugin, and a daemon that answered."""

    command: str
    environment: Mapping[str, str]
    directory: Path
    """An existing directory for questions that concern no project's files."""

    async def containers(self, project: str) -> tuple[str, ...]:
        """Ids of a compose project's containers, running or not. Raises DockerUnavailable."""
        labels = (f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False")
        filters = [option for label in labels for option in ("--filter", f"label={label}")]
        answer = await self.ask("ps", "--all", *filters, "--format", "{{.ID}}")
        return tuple(answer.split())

    async def ask(self, *arguments: str) -> str:
        """What a command prints; raises DockerUnavailable where it says no, or nothing at all."""
        match await run_child(
            [self.command, *arguments],
            cwd=self.directory,
            env=self.environment,
            deadline=ASK_DEADLINE,
            max_output=_MAX_ANSWER,
        ):
            case Ended(0, stdout, _):
                return stdout.decode(errors="replace")
            case Ended(_, _, stderr):
                raise DockerUnavailable(_last_line(stderr))
            case Killed("output"):
                raise DockerUnavailable("it answers without an end")
            case Killed():
                raise DockerUnavailable(f"no answer within {ASK_DEADLINE:g}s")
            case NotStarted(problem):
                raise DockerUnavailable(problem)


def endpoint(environment: Mapping[str, str]) -> str:
    """Where the daemon is, as the primary's settings say it; empty: docker's own default."""
    if host := environment.get("DOCKER_HOST"):
        return re.sub(r"//[^/@]*@", "//", host)
    return f"context {context}" if (context := environment.get("DOCKER_CONTEXT")) else ""


async def find_docker(context: RunContext, *, compose: bool = True) -> Docker:
    """The client, once everything that a deploy needs of it is there. Raises DockerUnavailable."""
    environment = {**context.base_environment, **context.docker_environment, "HOME": str(context.state_dir)}
    command = shutil.which("docker", path=environment.get("PATH"))
    if command is None:
        raise DockerUnavailable(
            "there is no docker: no `docker` command is on the primary's PATH",
            hint="install docker's client with its compose plugin on the primary",
        )
    docker = Docker(command, environment, context.state_dir)
    if compose:
        try:
            await docker.ask("compose", "version")
        except DockerUnavailable as error:
            raise DockerUnavailable(
                f"docker has no compose: `docker compose version` says {error}",
                hint="install its compose plugin (docker-compose-plugin) on the primary",
            ) from None
    try:
        await docker.ask("version", "--format", "{{.Server.Version}}")
    except DockerUnavailable as error:
        where = endpoint(environment)
        raise DockerUnavailable(
            f"docker's daemon does not answer{f' ({where})' if where else ''}: {error}",
            hint="start it, let the primary's user reach it, or correct DOCKER_HOST",
        ) from None
    return docker


def _last_line(text: str) -> str:
    """Of what docker said, the line that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Run 'docker", "See 'docker", "Usage:"))]
    return bounded(lines[-1].rstrip("."), 300) if lines else "nothing"
