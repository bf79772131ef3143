"""The `dokploy` driver: a compose application in Dokploy gets its file and its variables, and is deployed.

The application is made in Dokploy; nothing is created or deleted there. File, variables and hash are written
in one request. What is there counts only together with what status has: a primary that is killed after
that request has no success recorded, and repeats the step.
"""

import time
import uuid
from collections.abc import Mapping
from typing import ClassVar, Final

import trio

from reconciler.deploy.dokploy_client import Application, Deployment, Dokploy, DokployDown, DokployGone
from reconciler.deploy.dokploy_env import HASH_NAME, hash_in, is_as_written, is_legacy, render
from reconciler.deploy.inside import inside
from reconciler.deploy.request import (
    CannotRemove,
    DeployFailed,
    DeployOutcome,
    DeployRequest,
    Driver,
    LookRequest,
    RemoveRequest,
    TaskFailed,
    TaskTimeout,
)
from reconciler.hashing import Inputs
from reconciler.identity import dokploy_application
from reconciler.logs import printable
from reconciler.observation import Absent, Observation, Present
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.spec.model import (
    Credential,
    DokployDeploy,
    EnvCredential,
    FileCredential,
    SecretCredential,
    Service,
)
from reconciler.status.conditions import bounded
from reconciler.status.documents import ServiceStatus

POLL: Final = 3.0
"""Seconds between two looks at a deployment."""

LOOK_PATIENCE: Final = 15.0
REMOVE_DEADLINE: Final = 120.0
MAX_FILE: Final = 1024 * 1024
"""Bytes of a compose file."""

SERVER, COMPOSE_ID, API_KEY, ENVIRONMENT = "server", "compose_id", "api_key", "environment"
"""Keys of the inventory. Of the key to Dokploy it says where it is, never what it is."""


class DokployDriver(Driver):
    """`deploy: {kind: dokploy, server: https://…, compose_id: …, api_key: {env: DOKPLOY_KEY}}`"""

    is_local: ClassVar[bool] = False
    removes: ClassVar[bool] = True
    adopts: ClassVar[bool] = True

    async def look(self, request: LookRequest) -> Observation | None:
        """Hash, variables, file, and whether it was stopped there. Raises what the client raises."""
        service, recorded = request.service, request.recorded
        deploy = _deploy_of(service)
        key = await request.credential(deploy.api_key, service.environment)
        async with Dokploy(deploy.server, key, patience=LOOK_PATIENCE) as dokploy:
            application = await dokploy.application(deploy.compose_id)
        there = hash_in(application.env.reveal())
        if recorded is None or not recorded.config_hash:
            if there is not None and is_legacy(there):
                return Absent(f"its {HASH_NAME} is one of an earlier tool, which one deploy replaces")
            return None
        return _compared(recorded, there, application)

    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        service, deploy = request.service, _deploy_of(request.service)
        inventory = _inventory(service, deploy)
        started = time.monotonic()
        key, env, file = await self._wanted(request)
        mark = f"trueup {uuid.uuid4().hex}"
        ended: Deployment | None = None
        touched = False
        try:
            with trio.move_on_after(deploy.timeout):
                async with Dokploy(deploy.server, key, patience=deploy.timeout) as dokploy:
                    before = await dokploy.application(deploy.compose_id)
                    _check_writable(service, before)
                    touched = True
                    await _write(dokploy, service, deploy, before, env, file)
                    await dokploy.deploy(deploy.compose_id, title=f"trueup: {request.tag}", description=mark)
                    request.log(f"Dokploy has queued the deployment of {request.tag}")
                    ended = await _wait(dokploy, deploy.compose_id, mark)
            _judge(request, Masker([key]), deploy, ended)
        except TaskFailed as error:
            # Something of it may be there. What was never touched may be another's, and is never stopped.
            error.inventory = inventory if touched else {}
            raise
        return DeployOutcome(0, "", time.monotonic() - started, inventory)

    async def adopt(self, request: DeployRequest) -> DeployOutcome:
        """Variables and file are written, as a deploy would, so that the next look finds them."""
        service, deploy = request.service, _deploy_of(request.service)
        started = time.monotonic()
        key, env, file = await self._wanted(request)
        with trio.move_on_after(deploy.timeout) as scope:
            async with Dokploy(deploy.server, key, patience=deploy.timeout) as dokploy:
                before = await dokploy.application(deploy.compose_id)
                if before.status != "done":
                    raise DeployFailed(
                        f"{service.id}: its state in Dokploy is {before.status or 'unknown'} and not done, "
                        "so that there is nothing to adopt",
                        hint="leave out --adopt, so that it is deployed",
                    )
                _check_writable(service, before)
                await _write(dokploy, service, deploy, before, env, file)
        if scope.cancelled_caught:
            raise TaskTimeout(f"{service.id}: Dokploy did not answer within {deploy.timeout:g}s")
        return DeployOutcome(0, "", time.monotonic() - started, _inventory(service, deploy))

    async def _wanted(self, request: DeployRequest) -> tuple[Secret, Secret, Secret]:
        """Dokploy's key, the variables as one text, and the compose file."""
        service, deploy = request.service, _deploy_of(request.service)
        place = dokploy_application(deploy.server, deploy.compose_id)
        owner = next((id for id, other in request.others.items() if self.place(other) == place), None)
        if owner is not None:
            raise DeployFailed(
                f"{service.id}: the application {deploy.compose_id} in Dokploy is that of {owner}",
                hint="give one of the two another `deploy.compose_id`",
            )
        key = await request.credential(deploy.api_key, service.environment)
        file = await trio.to_thread.run_sync(_read_file, request, deploy)
        env = render(
            {
                name: value.reveal() if isinstance(value, Secret) else value
                for name, value in request.variables.items()
            },
            request.config_hash,
            file.reveal(),
        )
        return key, Secret(env), file

    def place(self, inventory: Mapping[str, str]) -> str:
        server, compose_id = inventory.get(SERVER, ""), inventory.get(COMPOSE_ID, "")
        return dokploy_application(server, compose_id) if server and compose_id else ""

    def place_of(self, service: Service, inventory: Mapping[str, str]) -> str:  # noqa: ARG002 - the spec says
        deploy = _deploy_of(service)
        return dokploy_application(deploy.server, deploy.compose_id)

    async def remove(self, request: RemoveRequest) -> None:
        """The containers are stopped. The application, its volumes and its domains stay in Dokploy."""
        inventory = request.inventory
        credential = _credential_of(inventory.get(API_KEY, ""))
        server, compose_id = inventory.get(SERVER, ""), inventory.get(COMPOSE_ID, "")
        if credential is None or not server or not compose_id:
            raise CannotRemove(f"{request.resource}: its record does not say where in Dokploy it was")
        key = await request.credential(credential, inventory.get(ENVIRONMENT, ""))
        with trio.move_on_after(REMOVE_DEADLINE) as scope:
            async with Dokploy(server, key, patience=REMOVE_DEADLINE) as dokploy:
                try:
                    there = await dokploy.application(compose_id)
                except DokployGone:
                    return
                mark = hash_in(there.env.reveal())
                if mark is None or is_legacy(mark):
                    # A deploy that failed before it wrote anything leaves a record too.
                    request.log(f"its {HASH_NAME} is none of trueup's, so that it is not stopped")
                    return
                if there.status != "idle":
                    await dokploy.stop(compose_id)
        if scope.cancelled_caught:
            raise CannotRemove(f"{request.resource}: Dokploy did not stop it within {REMOVE_DEADLINE:g}s")


def _deploy_of(service: Service) -> DokployDeploy:
    deploy = service.deploy
    if not isinstance(deploy, DokployDeploy):
        raise TypeError(f"not a dokploy deploy: {type(deploy).__name__}")
    return deploy


def _compared(recorded: ServiceStatus, there: str | None, application: Application) -> Observation:
    drift = ""
    if there is None:
        drift = f"it has no {HASH_NAME}"
    elif is_legacy(there):
        drift = f"its {HASH_NAME} is one of an earlier tool"
    elif there != recorded.config_hash:
        drift = f"its {HASH_NAME} is another than was deployed"
    elif not application.is_raw:
        drift = "it was set to another source in Dokploy"
    elif not is_as_written(application.env.reveal(), application.file.reveal()):
        drift = "its variables or its compose file were changed in Dokploy"
    elif application.status == "idle":
        drift = "it was stopped in Dokploy"
    return Present(recorded.config_hash, Inputs(recorded.inputs.public, recorded.inputs.keyed), drift)


def _check_writable(service: Service, before: Application) -> None:
    if not before.writes_env_file:
        raise DeployFailed(
            f"{service.id}: the application in Dokploy is set to write no environment file, so that no "
            "variable would reach it",
            hint="turn it on under Environment there",
        )


async def _write(
    dokploy: Dokploy, service: Service, deploy: DokployDeploy, before: Application, env: Secret, file: Secret
) -> None:
    if _holds(before, env, file):
        return
    await dokploy.update(deploy.compose_id, env=env, file=file)
    if not _holds(await dokploy.application(deploy.compose_id), env, file):
        raise DeployFailed(
            f"{service.id}: Dokploy took file and variables and gives back others",
            hint="look whether somebody changes the application there right now",
        )


def _holds(application: Application, env: Secret, file: Secret) -> bool:
    return (
        application.is_raw
        and application.env.reveal() == env.reveal()
        and application.file.reveal() == file.reveal()
    )


def _judge(request: DeployRequest, key: Masker, deploy: DokployDeploy, ended: Deployment | None) -> None:
    """Raises where the deployment did not succeed; None: it did not end in time."""

    def masked(text: str) -> str:
        return bounded(printable(key.mask(request.masker.mask(text))))

    service = request.service
    if ended is None:
        raise TaskTimeout(
            f"{service.id}: Dokploy did not finish the deployment within {deploy.timeout:g}s",
            hint="look at its deployments in Dokploy; one that another holds up is queued",
        )
    if ended.status != "done":
        how = "was cancelled in Dokploy" if ended.status == "cancelled" else "failed in Dokploy"
        said = masked(ended.error)
        raise DeployFailed(
            f"{service.id}: the deployment of {request.tag} {how}" + (f": {said}" if said else ""),
            hint=f"its log there is {masked(ended.log_path) or 'under Deployments'}",
        )


async def _wait(dokploy: Dokploy, compose_id: str, mark: str) -> Deployment:
    """The deployment that bears our mark, once it ended. The caller sets the deadline."""
    while True:
        wait = POLL
        try:
            for deployment in await dokploy.deployments(compose_id):
                if deployment.description == mark and deployment.status in ("done", "error", "cancelled"):
                    return deployment
        except DokployDown as error:
            # It goes on deploying while it cannot be asked.
            wait = max(POLL, error.retry_after or 0.0)
        await trio.sleep(wait)


def _read_file(request: DeployRequest, deploy: DokployDeploy) -> Secret:
    owner, root = request.service.id, request.checkout.resolve()
    path = inside(root, root, deploy.file, f"{owner}: the compose file", DeployFailed)
    if not path.is_file():
        raise DeployFailed(
            f"{owner}: there is no compose file {deploy.file!r} in the repository at {request.tag}",
            hint="paths start at the root of the repository",
        )
    if path.stat().st_size > MAX_FILE:
        raise DeployFailed(f"{owner}: {deploy.file} is larger than {MAX_FILE} bytes")
    try:
        return Secret(path.read_bytes().decode())
    except UnicodeDecodeError:
        raise DeployFailed(f"{owner}: {deploy.file} is not UTF-8 text") from None


def _inventory(service: Service, deploy: DokployDeploy) -> dict[str, str]:
    match deploy.api_key:
        case EnvCredential(name=name):
            where = f"env:{name}"
        case FileCredential(path=path):
            where = f"file:{path}"
        case SecretCredential(source=source, key=key):
            where = f"secret:{source}/{key}"
    return {
        SERVER: deploy.server,
        COMPOSE_ID: deploy.compose_id,
        API_KEY: where,
        ENVIRONMENT: service.environment,
    }


def _credential_of(text: str) -> Credential | None:
    kind, _, rest = text.partition(":")
    source, slash, key = rest.partition("/")
    if kind == "env" and rest:
        return EnvCredential(name=rest)
    if kind == "file" and rest:
        return FileCredential(path=rest)
    if kind == "secret" and slash:
        return SecretCredential(source=source, key=key)
    return None
