"""Sends what waits in the journal, each channel by itself: one that fails holds up no other, and no pass."""

import random
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec
import structlog
import trio

from agent.backoff import Backoff
from reconciler.errors import LeaseHeld, LeaseLost, TrueupError
from reconciler.kept_notifications import MAX_WAITING, KeptNotification, channel_name
from reconciler.metrics.declared import NOTIFICATIONS
from reconciler.mishaps import line_for_log
from reconciler.notifications.sending import NotSent, address_of, one_at_a_time, send
from reconciler.primary import Primary
from reconciler.secrets.values import Secret
from reconciler.spec.model import Credential, Spec
from reconciler.tracing import trace

log: structlog.stdlib.BoundLogger = structlog.get_logger()

FIRST: Final = 5.0
LONGEST: Final = 900.0
"""Seconds to the next attempt after one that failed, at first and at most."""

AT_THE_END: Final = 20.0
"""Seconds that a single pass waits for what it has to tell; the next one goes on."""

_CREDENTIAL: Final = msgspec.json.Decoder(Credential)


class Notifier:
    """Of one primary. `draw` gives numbers from 0 to 1."""

    def __init__(self, primary: Primary, *, draw: Callable[[], float] = random.random) -> None:
        self._primary = primary
        self._kept = primary.journal.notifications
        self._draw = draw
        self._busy: set[str] = set()
        self._limiters: dict[str, trio.CapacityLimiter] = {}
        self._failing: dict[str, str] = {}
        """By channel, what was said of it in the log."""

    async def run(self) -> NoReturn:
        """Send what passes have to tell, what an earlier process left included; goes on for ever."""
        notices = self._primary.notices
        async with trio.open_nursery() as nursery:
            while True:
                version = notices.version
                if self._primary.spec is not None:  # else nobody knows yet whether the channel is still there
                    for channel in await trio.to_thread.run_sync(self._kept.channels):
                        if channel not in self._busy:
                            self._busy.add(channel)
                            nursery.start_soon(self._serve, channel)
                await notices.wait_newer(version)

    async def drain(self) -> None:
        """Try once to send what waits, for a while. Never raises a TrueupError."""
        try:
            with trio.move_on_after(AT_THE_END) as limit:
                async with trio.open_nursery() as nursery:
                    for channel in await trio.to_thread.run_sync(self._kept.channels):
                        nursery.start_soon(self._try_all, channel)
            if limit.cancelled_caught:
                log.warning("notifications: not all were sent in time; the next pass goes on")
        except* TrueupError as errors:
            log.warning("notifications: the next pass goes on", error=line_for_log(errors))

    async def _serve(self, channel: str) -> None:
        backoff = Backoff(first=FIRST, longest=LONGEST, draw=self._draw)
        try:
            while (message := await self._next(channel)) is not None:
                if await self._deliver(message):
                    backoff.reset()
                else:
                    await trio.sleep(backoff.next())
        finally:
            self._busy.discard(channel)
            self._primary.notices.tell()  # something may have come in the meantime

    async def _try_all(self, channel: str) -> None:
        while (message := await self._next(channel)) is not None and await self._deliver(message):
            pass

    async def _next(self, channel: str) -> KeptNotification | None:
        """The oldest message for a channel. Those that are told too late, or to nobody, are given up."""
        waiting = await trio.to_thread.run_sync(self._kept.waiting, channel)
        for position, message in enumerate(waiting):
            if self._kept.is_too_old(message):
                await self._give_up(message, "it could not be sent for a day")
            elif len(waiting) - position > MAX_WAITING:
                await self._give_up(message, f"{MAX_WAITING} newer ones wait for the same channel")
            elif self._place(channel) is None:
                await self._give_up(message, "the spec names that channel no more")
            else:
                return message
        return None

    async def _deliver(self, message: KeptNotification) -> bool:
        """One attempt; whether it is sent. Only who leads makes any."""
        leadership, channel = self._primary.leadership, message.channel
        assert leadership is not None
        with trace(message.trace or None, notification=message.key):
            try:
                async with leadership.acting():
                    limiter = self._limiters.setdefault(channel, one_at_a_time())
                    await send(await self._address(channel), message, limiter)
            except (LeaseHeld, LeaseLost) as error:
                log.debug("notifications: only who leads sends any", error=line_for_log(error))
                return False
            except (NotSent, TrueupError) as error:
                self._tell_failure(channel, str(error) if isinstance(error, NotSent) else line_for_log(error))
                return False
            # Killed here, it is sent once more by the next process, with the same id.
            await trio.to_thread.run_sync(self._kept.end, message, "sent")
            if self._failing.pop(channel, None) is not None:
                log.info("notifications are sent again", channel=self._label(channel))
            self._count(channel, "sent")
            log.info("notification sent", channel=self._label(channel), told=message.title)
        return True

    async def _address(self, channel: str) -> Secret:
        assert self._primary.spec is not None
        return await address_of(self._primary.secret_store(self._primary.spec), _CREDENTIAL.decode(channel))

    def _tell_failure(self, channel: str, problem: str) -> None:
        self._count(channel, "failed")
        if self._failing.get(channel) != problem:
            self._failing[channel] = problem
            log.warning("a notification could not be sent", channel=self._label(channel), why=problem)

    async def _give_up(self, message: KeptNotification, why: str) -> None:
        await trio.to_thread.run_sync(self._kept.end, message, "given_up", why)
        label = self._label(message.channel)
        with trace(message.trace or None, notification=message.key):
            await trio.to_thread.run_sync(
                self._primary.journal.record_event,
                "notification_given_up",
                f"notifications/{label}",
                "",
                f"{message.title}: {why}",
            )
            log.warning("a notification was given up", channel=label, told=message.title, why=why)
        self._count(message.channel, "given_up")

    def _count(self, channel: str, outcome: str) -> None:
        self._primary.metrics.count(NOTIFICATIONS, channel=self._label(channel), outcome=outcome)

    def _label(self, channel: str) -> str:
        """What metrics and people know it by: its place in the spec."""
        place = self._place(channel)
        return "none" if place is None else str(place)

    def _place(self, channel: str) -> int | None:
        return place_of(channel, self._primary.spec)


def place_of(channel: str, spec: Spec | None) -> int | None:
    """The place of a channel in the spec, counted from 0; None: it is not there."""
    channels = spec.notifications if spec is not None else ()
    return next((at for at, each in enumerate(channels) if channel_name(each.url) == channel), None)
