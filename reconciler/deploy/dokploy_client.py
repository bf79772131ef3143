"""Dokploy's REST API, as far as compose applications go.

Facts, from the API description that Dokploy publishes (openapi.json in github.com/Dokploy/dokploy) and the
code that it is made of (apps/dokploy/server/api/routers/compose.ts and deployment.ts):
- requests go to `/api/<router>.<name>`, queries by GET, changes by POST with JSON; the key is in `x-api-key`;
- an error has a status and `{"message", "code"}`; a key without the right to something gets 401, not 403;
- `compose.update` replaces each field that it names as a whole, `env` too, and leaves the others;
- `compose.deploy` answers once the deployment is queued, without its id; its `title` and `description` are
  those of the deployment that appears in `deployment.allByCompose` when its turn comes;
- a deployment is `running`, `done`, `error` or `cancelled`, the newest stands first, about ten are kept;
- a `sourceType` of `raw` is deployed from `composeFile`, any other from a repository;
- `compose.stop` stops the containers, and makes `composeStatus` `idle`; nothing is deleted by it.

Every answer is bounded and every wait has a deadline. No error holds a body, a header or the key.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from reconciler.deploy.request import TaskFailed
from reconciler.rest_client import Answer, AsksToWait, RestClient
from reconciler.retry_after import retry_after
from reconciler.secrets.values import Secret
from reconciler.spec.addresses import secret_host_fault

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of one answer."""

GONE: Final = ("NOT_FOUND", "Compose not found")
"""Code and message for an id that Dokploy does not have (packages/server/src/services/compose.ts)."""

SHORT_WAIT: Final = 1.0
LONG_WAIT: Final = 600.0


class DokployDown(TaskFailed, AsksToWait):
    """It could not be asked, or asked us to wait: `retry_after` is in seconds, where it said so."""

    reason = "DokployUnavailable"
    retryable = True

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class DokployRefused(TaskFailed):
    """It answered and will not do it; `status` is HTTP's. A person must act."""

    reason = "DokployRefused"

    def __init__(self, message: str, *, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class DokployGone(DokployRefused):
    """Dokploy itself says that it has no such application."""


@dataclass(frozen=True, slots=True)
class Application:
    """A compose application."""

    env: Secret
    file: Secret
    status: str
    """idle, running, done or error."""
    writes_env_file: bool
    """Whether its variables reach docker compose at all."""
    is_raw: bool
    """Whether it is deployed from the file that it holds, and not from a repository."""


@dataclass(frozen=True, slots=True)
class Deployment:
    id: str
    description: str
    status: str
    error: str
    log_path: str


class Dokploy:
    """`async with Dokploy(server, key) as dokploy:`. `patience`: seconds that may be spent waiting in all
    where Dokploy asks to come back later. Methods raise DokployDown and DokployRefused.
    """

    def __init__(self, server: str, key: Secret, *, patience: float) -> None:
        self._server = server.rstrip("/").removesuffix("/api")
        self._rest = RestClient(
            key,
            header="x-api-key",
            headers={"Accept": "application/json"},
            max_answer=MAX_ANSWER,
            patience=patience,
        )

    async def __aenter__(self) -> Self:
        if (fault := secret_host_fault(self._server)) is not None:
            raise DokployRefused(f"deploy.server: {self._server} {fault}")
        if not self._rest.can_be_sent:
            raise DokployRefused("the Dokploy key has characters that no HTTP header can hold")
        await self._rest.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rest.close()

    async def application(self, compose_id: str) -> Application:
        found = await self._ask("compose.one", compose_id)
        application = _application_in(found, compose_id)
        if application is None:
            raise self._unexpected("compose.one")
        return application

    async def update(self, compose_id: str, *, env: Secret, file: Secret) -> None:
        """Both at once, so that no mixture of old and new is ever there."""
        await self._ask("compose.update", compose_id, {"sourceType": "raw", "env": env, "composeFile": file})

    async def deploy(self, compose_id: str, *, title: str, description: str) -> None:
        """Queue a deployment."""
        answer = await self._ask("compose.deploy", compose_id, {"title": title, "description": description})
        if isinstance(answer, dict) and answer.get("success") is False:
            raise DokployRefused(f"compose.deploy: {self._server} did not queue it")

    async def deployments(self, compose_id: str) -> list[Deployment]:
        found = _deployments_in(await self._ask("deployment.allByCompose", compose_id))
        if found is None:
            raise self._unexpected("deployment.allByCompose")
        return found

    async def stop(self, compose_id: str) -> None:
        await self._ask("compose.stop", compose_id, {})

    async def _ask(self, name: str, compose_id: str, body: Mapping[str, str | Secret] | None = None) -> Any:
        return await self._rest.patiently(lambda: self._once(name, compose_id, body))

    async def _once(self, name: str, compose_id: str, body: Mapping[str, str | Secret] | None) -> Any:
        url, named = f"{self._server}/api/{name}", {"composeId": compose_id}
        if body is None:
            answer = await self._rest.exchange("GET", url, params=named)
        else:
            answer = await self._rest.exchange("POST", url, body={**named, **body})
        if isinstance(answer, str):
            raise DokployDown(f"{name}: {self._server}: {answer}", hint="check deploy.server, and Dokploy")
        if not 200 <= answer.status < 300:
            raise self._failure(answer, name)
        with suppress(ValueError, RecursionError):
            document = json.loads(answer.content) if answer.content.strip() else None
            if not (isinstance(document, dict) and {"message", "code"} <= document.keys()):
                return document
        raise self._unexpected(name)

    def _unexpected(self, name: str) -> DokployDown:
        return DokployDown(
            f"{name}: not what Dokploy's API answers",
            hint=f"check deploy.server ({self._server}), and what stands in front of it",
        )

    def _failure(self, answer: Answer, name: str) -> DokployDown | DokployRefused:
        status, wait = answer.status, retry_after(answer.headers, datetime.now(UTC))
        wait = None if wait is None else min(max(wait, SHORT_WAIT), LONG_WAIT)
        shown = f"(http {status})"
        if status == 429:
            return DokployDown(f"{name}: Dokploy asks to slow down {shown}", retry_after=wait)
        if status >= 500 or status == 408:
            return DokployDown(f"{name}: Dokploy has a fault {shown}", retry_after=wait)
        said, hint = {
            400: ("Dokploy does not accept the request", "check compose_id, and Dokploy's version"),
            401: (
                "Dokploy does not accept the key, or it has no right to this",
                "make a key in Dokploy under Settings, of a user who may see, change and deploy it",
            ),
            403: ("the key has no right to this", "give its user the right to it in Dokploy"),
            404: ("there is no such compose application", "check compose_id; trueup creates none"),
        }.get(status, ("Dokploy redirects or refuses", "check deploy.server"))
        kind = DokployGone if status == 404 and _says_gone(answer.content) else DokployRefused
        return kind(f"{name}: {said} {shown}", status=status, hint=hint)


def _says_gone(content: bytes) -> bool:
    """Whether it is Dokploy that does not have it: a proxy, or another server, says 404 too."""
    with suppress(ValueError, RecursionError):
        said = json.loads(content)
        return isinstance(said, dict) and (said.get("code"), said.get("message")) == GONE
    return False


def _application_in(found: Any, compose_id: str) -> Application | None:
    if not isinstance(found, dict) or found.get("composeId") != compose_id or "env" not in found:
        return None
    return Application(
        env=Secret(_text(found.get("env"))),
        file=Secret(_text(found.get("composeFile"))),
        status=_text(found.get("composeStatus")),
        writes_env_file=found.get("createEnvFile") is not False,
        is_raw=found.get("sourceType") == "raw",
    )


def _deployments_in(found: Any) -> list[Deployment] | None:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return None
    return [
        Deployment(
            id=_text(each.get("deploymentId")),
            description=_text(each.get("description")),
            status=_text(each.get("status")),
            error=_text(each.get("errorMessage")),
            log_path=_text(each.get("logPath")),
        )
        for each in found
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
