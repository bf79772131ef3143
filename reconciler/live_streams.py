"""Follows what a running primary tells as it happens, over all interruptions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from agent.backoff import Backoff
from reconciler.bounded import read_at_most
from reconciler.live import (
    CONNECT_DEADLINE,
    MAX_ANSWER,
    NoPrimary,
    PrimaryRefused,
    PrimaryUnreachable,
    connect,
    judged,
)
from reconciler.sent_events import SentEvent, SentEvents, TooLarge
from reconciler.settings import Settings

if TYPE_CHECKING:
    import httpx

EVENT_STREAM: Final = "text/event-stream"

SILENCE: Final = 45.0
"""Seconds without a byte after which a stream counts as broken: a primary sends some every 15 s."""

STEADY: Final = 10.0
"""Seconds after which a stream is one that works: the next one may follow at once."""

BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses of a primary that starts, stands by or has too much to do, or of a proxy that does not see it."""

Take = Callable[[SentEvent], bool]
"""Takes one event, in the order in which they were sent; True: that was all."""

Say = Callable[[str], None]
"""Tells a person that a stream broke and that it goes on."""


@dataclass
class Follower:
    """One subject that is followed: where it is, and how far its events were taken."""

    settings: Settings
    path: str
    take: Take
    say: Say
    params: Mapping[str, str] | None = None
    after: str = ""
    """The id of the last event that was taken; empty: from what the primary takes for now."""
    pace: Backoff = field(default_factory=Backoff)
    _troubled: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Hand each event to `take`, until that returns True.

        A stream that ends or breaks is begun anew after the last id that was taken: nothing is lost, nothing
        comes twice. A primary that is away is waited for: whether there is one at all is found out before.
        Raises what does not pass by itself, such as a token that is not accepted.
        """
        while True:
            if await self._once():
                return
            await trio.sleep(self.pace.next())

    async def _once(self) -> bool:
        """One stream to its end; True: all is taken."""
        try:
            return await self._listen()
        except (NoPrimary, PrimaryUnreachable, PrimaryRefused) as error:
            if isinstance(error, PrimaryRefused) and error.status not in BUSY:
                raise
            if not self._troubled:
                self.say(f"{str(error).splitlines()[0]}; trying again")
            self._troubled = True
            return False

    async def _listen(self) -> bool:
        import httpx

        way = connect(self.settings, "GET")
        headers = {"Accept": EVENT_STREAM} | ({"Last-Event-ID": self.after} if self.after else {})
        timeout = httpx.Timeout(SILENCE, connect=CONNECT_DEADLINE)
        try:
            async with (
                way.client as client,
                client.stream(
                    "GET", self.path, params=self.params, headers=headers, timeout=timeout
                ) as answer,
            ):
                if answer.status_code != 200:
                    content = await read_at_most(answer, MAX_ANSWER)
                    judged(answer.status_code, content or b"", way.address)
                if not answer.headers.get("content-type", "").startswith(EVENT_STREAM):
                    raise PrimaryUnreachable(f"what answers at {way.address} sends no events")
                self._opened()
                return await self._read(answer)
        except httpx.HTTPError as error:
            failure = way.failure(error, SILENCE)
        except TooLarge as error:
            failure = PrimaryUnreachable(f"the primary at {way.address}: {error}")
        raise failure

    def _opened(self) -> None:
        if self._troubled:
            self.say("the primary is there again")
        self._troubled = False

    async def _read(self, answer: "httpx.Response") -> bool:
        """True: all is taken. Raises TooLarge."""
        import httpx

        events, opened = SentEvents(), trio.current_time()
        done, fault = False, None
        try:
            async for chunk in answer.aiter_bytes():
                if trio.current_time() - opened >= STEADY:
                    self.pace.reset()
                try:
                    done = self._take(events.feed(chunk))
                except TooLarge as error:
                    fault = error
                if done or fault:
                    # And read on, which ends at once: httpx leaves generators open that are given up.
                    await answer.aclose()
        except httpx.HTTPError:
            if not (done or fault):
                raise
        if fault is not None:
            raise fault
        return done

    def _take(self, events: Iterable[SentEvent]) -> bool:
        for event in events:
            self.pace.reset()
            done = self.take(event)
            self.after = event.id or self.after
            if done:
                return True
        return False
