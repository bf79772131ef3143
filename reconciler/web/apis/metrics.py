"""`/metrics`: what Prometheus scrapes."""

from contextlib import suppress

import trio
from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import TrueupError
from reconciler.lease_keeper import Role as LeaseRole
from reconciler.metrics.declared import (
    AGENT_WORKERS,
    LAST_PASS,
    LEASE_EPOCH,
    LEASE_HELD,
    NOTIFICATIONS_WAITING,
    PASS_REQUESTED,
    TASKS_RUNNING,
)
from reconciler.metrics.registry import CONTENT_TYPE
from reconciler.metrics.state import gauges_of_agents, gauges_of_sources, gauges_of_status
from reconciler.runner import Runner
from reconciler.status.documents import Recorded
from reconciler.web.endpoints import AnyEndpoint, Call, Endpoint, Nothing, OpenEndpoint, Role

PATH = "/metrics"


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    """Open to everybody only where the settings say so: it names all that the spec names."""
    summary, media = "What a running primary counts, for Prometheus", "text/plain"
    scraping = trio.Lock()  # each one sets the gauges anew before they are written out
    if runner.primary.settings.metrics_open:

        async def show(_request: Request) -> Response:
            async with scraping:
                return await _answer(runner)

        return [
            OpenEndpoint(
                method="GET", path=PATH, summary=summary, tag="general", handler=show, answer=str, media=media
            )
        ]

    async def show_to_readers(_call: Call[Nothing, Nothing]) -> Response:
        async with scraping:
            return await _answer(runner)

    return [
        Endpoint(
            method="GET",
            path=PATH,
            summary=summary,
            tag="general",
            handler=show_to_readers,
            role=Role.READ,
            answer=str,
            media=media,
        )
    ]


async def _answer(runner: Runner) -> Response:
    primary, metrics = runner.primary, runner.primary.metrics
    try:
        recorded = await primary.status.read()
    except TrueupError:
        recorded = Recorded()  # what counts the passes tells of it
    gauges = gauges_of_status(recorded)
    if primary.spec is not None:
        paired = [node.id.partition("/")[2] for node in recorded.nodes.values() if node.certificate]
        connected = primary.hub.connected() if primary.hub is not None else ()
        gauges |= gauges_of_agents(primary.spec.nodes, paired, connected)
        gauges |= gauges_of_sources(primary.secret_store(primary.spec).freshness(), primary.now())
    for metric, series in gauges.items():
        metrics.replace(metric, series)
    if primary.leadership is not None:
        lease = primary.leadership.lease
        metrics.set(LEASE_HELD, lease.role is LeaseRole.LEADER)
        metrics.set(LEASE_EPOCH, lease.epoch)
    metrics.set(TASKS_RUNNING, len(primary.running))
    metrics.set(AGENT_WORKERS, primary.hub.workers if primary.hub is not None else 0)
    with suppress(TrueupError):
        waiting = await trio.to_thread.run_sync(primary.journal.notifications.count_waiting)
        metrics.set(NOTIFICATIONS_WAITING, waiting)
    metrics.set(PASS_REQUESTED, runner.is_asked)
    if runner.last is not None:
        metrics.set(LAST_PASS, runner.last.ended_at.timestamp())
    text = await trio.to_thread.run_sync(metrics.text)
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
    return Response(text, headers=headers)
