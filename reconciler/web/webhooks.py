"""`POST /webhook`: whoever knows a webhook's secret may say "look now", and what changed."""

import time
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from reconciler.metrics.declared import DELIVERIES
from reconciler.runner import Runner
from reconciler.settings import Settings
from reconciler.tracing import trace
from reconciler.web.answers import done
from reconciler.web.bodies import Bodies
from reconciler.web.deliveries import Delivery, DeliveryRefused, read_github, read_infisical
from reconciler.web.endpoints import AnyEndpoint, OpenEndpoint
from reconciler.web.headers import values_of

INFISICAL: Final = "x-infisical-signature"
GITHUB: Final = "x-hub-signature-256"

DELIVERY: Final = "x-github-delivery"


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
                415: "The body has a content encoding.",
                429: "Too much was delivered; nothing of it was kept.",
                503: "It cannot be kept now.",
            },
        )
    ]


class Webhooks:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._bodies = Bodies()

    async def receive(self, request: Request) -> JSONResponse:
        """Answered once it cannot be lost: a primary that dies now acts on it at its next start."""
        outcome = "refused"
        try:
            sender, read = _reader(request, self._runner.primary.settings)
            async with self._bodies.read(request) as body:
                said = read(body)
                delivery_id = request.headers.get(DELIVERY, "")
                with trace(sender=sender, delivery=delivery_id) as trace_id:
                    is_new = await self._runner.inbox.take(sender, delivery_id, said, body, trace_id)
            outcome = "accepted" if is_new else "repeated"
        finally:
            self._runner.primary.metrics.count(DELIVERIES, sender=_sender(request), outcome=outcome)
        return done("accepted" if is_new else "the same was accepted before", 202)


def _reader(request: Request, settings: Settings) -> tuple[str, Callable[[bytes], Delivery]]:
    """Who says to have sent it, and what will judge the body.

    Raises DeliveryRefused where that needs no body, before one is read.
    """
    infisical, github = values_of(request, INFISICAL), values_of(request, GITHUB)
    of_infisical, of_github = settings.infisical_webhook_secret, settings.webhook_secret
    if of_infisical is None and of_github is None:
        raise DeliveryRefused(404, "no webhook is open; WEBHOOK_SECRET or INFISICAL_WEBHOOK_SECRET opens it")
    if infisical and not github:
        if of_infisical is None:
            raise DeliveryRefused(403, "closed to Infisical; INFISICAL_WEBHOOK_SECRET opens it")
        now = time.time_ns() // 1_000_000
        return "infisical", lambda body: read_infisical(infisical, body, of_infisical, now_ms=now)
    if github and not infisical:
        if of_github is None:
            raise DeliveryRefused(403, "closed to GitHub; WEBHOOK_SECRET opens it")
        event = request.headers.get("x-github-event", "")
        return "github", lambda body: read_github(github, event, body, of_github)
    raise DeliveryRefused(401, f"one signature is needed, {INFISICAL} or {GITHUB}")


def _sender(request: Request) -> str:
    """Who a delivery seems to be from."""
    if values_of(request, GITHUB):
        return "github"
    return "infisical" if values_of(request, INFISICAL) else "unknown"
