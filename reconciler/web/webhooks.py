"""`POST /webhook`: whoever knows a webhook's secret may say "look now", and what changed."""

import time
from collections.abc import Callable
from typing import Any, Final, assert_never

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse

from reconciler.runner import Runner
from reconciler.settings import Settings
from reconciler.status.branch import DEFAULT_BRANCH
from reconciler.web.answers import done
from reconciler.web.bodies import Bodies
from reconciler.web.deliveries import (
    Acknowledged,
    Delivery,
    DeliveryRefused,
    Pushed,
    RotationFailed,
    SecretsModified,
    WorkflowCompleted,
    is_at_github,
    read_github,
    read_infisical,
    sources_in,
)
from reconciler.web.endpoints import AnyEndpoint, OpenEndpoint

log: structlog.stdlib.BoundLogger = structlog.get_logger()

INFISICAL: Final = "x-infisical-signature"
GITHUB: Final = "x-hub-signature-256"

OWN_REF: Final = f"refs/heads/{DEFAULT_BRANCH}"


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    return [
        OpenEndpoint(
            method="POST",
            path="/webhook",
            summary="GitHub or Infisical tells that something changed",
            tag="webhooks",
            handler=Webhooks(runner).receive,
            security="githubSignature",
            body=dict[str, Any],
            status=202,
            refusals={
                401: "The signature is missing or not right.",
                403: "No secret is set for this sender.",
                404: "No webhook secret is set at all.",
                413: "The body is too large.",
            },
        )
    ]


class Webhooks:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._bodies = Bodies()

    async def receive(self, request: Request) -> JSONResponse:
        """Answered once what it asks for cannot be lost: a primary that dies now looks at its start."""
        read = _reader(request, self._runner.primary.settings)
        async with self._bodies.read(request) as body:
            delivery = read(body)
        self._act(delivery)
        return done("accepted", 202)

    def _act(self, delivery: Delivery) -> None:
        match delivery:
            case SecretsModified():
                self._forget(delivery)
            case RotationFailed(project, environment, path):
                log.warning(
                    "Infisical could not rotate a secret", project=project, environment=environment, path=path
                )
            case Pushed(repository, ref):
                # Our own push, mostly; acting on it, a pass that records something would follow itself.
                if ref != OWN_REF:
                    self._runner.ask(f"push to {ref} of {repository}", resources=self._named(repository))
            case WorkflowCompleted(repository):
                self._runner.primary.arrivals.tell(repository)
                self._runner.ask(f"a workflow of {repository} ended")
            case Acknowledged(event):
                log.info("webhook", event_name=event)
            case _:
                assert_never(delivery)

    def _named(self, full_name: str) -> list[str]:
        """What a pass has to look at after something happened in a repository; none: everything."""
        primary = self._runner.primary
        own = [primary.settings.require_spec_repo(), primary.settings.status_repo or ""]
        if primary.spec is None or not full_name or any(is_at_github(url, full_name) for url in own):
            return []
        return [
            f"repositories/{name}"
            for name, repository in primary.spec.repositories.items()
            if is_at_github(repository.url, full_name)
        ]

    def _forget(self, event: SecretsModified) -> None:
        """An old value must not serve any more: it is known to be one."""
        primary = self._runner.primary
        names: tuple[str, ...] = ()
        if primary.spec is not None:
            names = sources_in(event, primary.spec.secret_sources.values())
            for name in names:
                primary.secret_store(primary.spec).clear_cache(name)
        log.info(
            "Infisical says that secrets changed",
            project=event.project,
            environment=event.environment,
            path=event.path,
            sources=", ".join(names) or "none",
        )
        if names:
            self._runner.ask(
                f"secrets changed: {', '.join(names)}", resources=[f"secrets/{name}" for name in names]
            )


def _reader(request: Request, settings: Settings) -> Callable[[bytes], Delivery]:
    """What will judge the body. Raises DeliveryRefused where that needs no body, before one is read."""
    infisical, github = _values(request, INFISICAL), _values(request, GITHUB)
    of_infisical, of_github = settings.infisical_webhook_secret, settings.webhook_secret
    if of_infisical is None and of_github is None:
        raise DeliveryRefused(404, "no webhook is open; WEBHOOK_SECRET or INFISICAL_WEBHOOK_SECRET opens it")
    if infisical and not github:
        if of_infisical is None:
            raise DeliveryRefused(403, "closed to Infisical; INFISICAL_WEBHOOK_SECRET opens it")
        now = time.time_ns() // 1_000_000
        return lambda body: read_infisical(infisical, body, of_infisical, now_ms=now)
    if github and not infisical:
        if of_github is None:
            raise DeliveryRefused(403, "closed to GitHub; WEBHOOK_SECRET opens it")
        event = request.headers.get("x-github-event", "")
        return lambda body: read_github(github, event, body, of_github)
    raise DeliveryRefused(401, f"one signature is needed, {INFISICAL} or {GITHUB}")


def _values(request: Request, name: str) -> list[bytes]:
    """All headers of a name as they came: they may hold any byte."""
    return [value for key, value in request.headers.raw if key.lower() == name.encode()]
