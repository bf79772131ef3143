"""Where the status branch stands: for whoever reads it in git, and wants to know when to look."""

from functools import partial
from typing import Final

import msgspec
import trio
from starlette.responses import Response

from reconciler.runner import Runner
from reconciler.web.answers import NO_STORE
from reconciler.web.endpoints import AnyEndpoint, Call, Endpoint, Model, Nothing, Role
from reconciler.web.streams import BEAT, RETRY, EventStream, Looks, Streams, Tell, wants_stream

PATH: Final = "/api/status"


class StatusTip(Model, frozen=True):
    """The newest commit that the primary has read or made there; null: there is none."""

    commit: str | None


def endpoints(runner: Runner, stop: trio.Event) -> list[AnyEndpoint]:
    """Streams end with `stop`."""
    return [
        Endpoint(
            method="GET",
            path=PATH,
            summary="The newest commit of the status branch; with Accept: text/event-stream each one from "
            "now on",
            tag="general",
            handler=_Status(runner, stop).show,
            role=Role.READ,
            answer=StatusTip,
            also={"text/event-stream": "That commit, and whenever there is another one."},
        )
    ]


class _Status:
    def __init__(self, runner: Runner, stop: trio.Event) -> None:
        self._primary = runner.primary
        self._stop = stop
        self._streams = Streams()

    async def show(self, call: Call[Nothing, Nothing]) -> StatusTip | Response:
        if not wants_stream(call.request):
            return self._tip()
        return EventStream(
            call.request, partial(self._run, call), NO_STORE, streams=self._streams, key=call.caller.name
        )

    async def _run(self, call: Call[Nothing, Nothing], tell: Tell) -> None:
        """Level-triggered: it begins with where the branch stands, so that nothing is missed."""
        told = None
        looks = Looks(self._primary.bulletin, self._stop, again=call.again)
        await tell(RETRY)
        while await looks.another():
            tip = self._tip()
            await tell(BEAT if tip == told else b"event: status\ndata: %s\n\n" % msgspec.json.encode(tip))
            told = tip

    def _tip(self) -> StatusTip:
        return StatusTip(commit=self._primary.status.known_commit)
