"""Requests to the compose driver, over checkouts that are made of a few files."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from reconciler.deploy.context import RunContext
from reconciler.deploy.request import DeployRequest, LookRequest, RemoveRequest
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.settings import load_settings
from reconciler.spec.model import ComposeDeploy, Service
from reconciler.status.documents import ServiceStatus
from tests.contracts.docker_host import DockerHost


def context(docker: DockerHost, root: Path, **environ: str) -> RunContext:
    state = root / "state"
    state.mkdir(exist_ok=True)
    return RunContext.of(load_settings({"PATH": docker.path, "TRUEUP_STATE_DIR": str(state), **environ}))


def service(name: str = "web", *, environment: str = "staging", **deploy: object) -> Service:
    return Service(
        name=name,
        environment=environment,
        repository="infra",
        unit="infra",
        deploy=ComposeDeploy(**deploy),  # type: ignore[arg-type]
    )


def request(
    docker: DockerHost,
    root: Path,
    files: Mapping[str, str],
    *,
    project: str | None = None,
    secrets: Mapping[str, str] = {},
    environ: Mapping[str, str] = {},
    inventory: Mapping[str, str] = {},
    others: Mapping[str, Mapping[str, str]] = {},
    **deploy: object,
) -> DeployRequest:
    checkout = root / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    for name, text in files.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    return DeployRequest(
        service=service(project_name=project, **deploy),  # type: ignore[arg-type]
        checkout=checkout,
        tag="v1.2.3",
        revision="0" * 40,
        variables={name: Secret(value) for name, value in secrets.items()},
        masker=Masker([Secret(value) for value in secrets.values()]),
        context=context(docker, root, **environ),
        inventory=inventory,
        others=others,
    )


def look(asked: DeployRequest, inventory: Mapping[str, str] | None) -> LookRequest:
    status = None
    if inventory is not None:
        status = ServiceStatus(
            id=asked.service.id, deploy="compose", config_hash="v1:k:a:b", inventory=dict(inventory)
        )
    return LookRequest(asked.service, status, "v1:k:a:b", asked.context)


def remove(asked: DeployRequest, inventory: Mapping[str, str]) -> RemoveRequest:
    return RemoveRequest(asked.service.id, inventory, asked.context)


def project_of(asked: DeployRequest, project: str) -> Path:
    """Where the files of a compose project stand."""
    return asked.context.state_dir / "compose" / project
