"""Carries steps out, and takes them back where one fails or somebody interrupts it."""

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from reconciler.errors import TrueupError
from reconciler.install.plan import Step
from reconciler.install.ssh import CommandFailed, HostUnreachable
from reconciler.logs import printable

UNDO_DEADLINE: Final = 600.0
"""Seconds for taking back all of it, also after an interrupt."""


class Hands(Protocol):
    """What does the steps."""

    async def do(self, step: Step) -> str: ...

    async def undo(self, step: Step) -> str: ...

    async def halt(self) -> None:
        """End what a step that nobody heard the end of may still have running on the host."""


class InstallFailed(TrueupError):
    """A step failed. `left`: what could not be taken back."""

    reason = "InstallFailed"

    def __init__(self, step: Step, cause: TrueupError, left: Sequence[str]) -> None:
        super().__init__(f"could not {step.what}: {cause}", hint=_state(left))
        self.left = tuple(left)


class Interrupted(TrueupError):
    """Somebody ended the installation."""

    reason = "InstallInterrupted"
    exit_code = 128 + signal.SIGINT


@dataclass
class Log:
    """What happened, for people and for the journal. `mask` takes secrets out of it."""

    tell: Callable[[str], None]
    mask: Callable[[str], str]
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.note(line)
        # Whoever looked on may be gone, and their terminal with them: what was begun comes to an end.
        with suppress(OSError):
            self.tell(printable(self.mask(line)))  # some of it are the host's words

    def note(self, text: str) -> None:
        """For the journal alone."""
        self.lines += [line for line in self.mask(text).splitlines() if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


async def carry_out(steps: Sequence[Step], hands: Hands, log: Log) -> None:
    """Each step after the other. Raises InstallFailed once what was done is taken back, the last first."""
    begun: list[Step] = []
    for number, step in enumerate(steps, 1):
        log.say(f"[{number}/{len(steps)}] {step.what}")
        begun.append(step)
        try:
            log.note(await hands.do(step))
        except TrueupError as error:
            if isinstance(error, CommandFailed):
                log.note(error.output)
            if step.optional:
                log.say(f"  warning: {error}")
                continue
            log.say(f"  failed: {error}")
            left = await _take_back(begun, hands, log, lost=isinstance(error, HostUnreachable))
            raise InstallFailed(step, error, left) from None
        except BaseException:
            log.say("  interrupted; what was done is being taken back")
            log.say(f"  {_state(await _take_back(begun, hands, log, lost=True))}")
            raise


async def until_a_signal(act: Callable[[], Awaitable[None]]) -> None:
    """Do something that SIGINT, SIGTERM and SIGHUP cancel, once; raises Interrupted where one did.

    What is being taken back then goes on under any number of them.
    """
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    failure: TrueupError | None = None
    with trio.open_signal_receiver(*heeded) as signals:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def watch() -> None:
                async for _ in signals:
                    scope.cancel()

            nursery.start_soon(watch)
            with scope:
                try:
                    await act()
                except TrueupError as error:
                    failure = error  # a nursery would wrap it
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if scope.cancelled_caught:
        raise Interrupted("the installation was interrupted")


async def _take_back(begun: Sequence[Step], hands: Hands, log: Log, *, lost: bool) -> list[str]:
    """What could not be taken back. One that fails does not keep the others from it, nor does an interrupt.

    `lost`: nobody heard the end of the last step; it may still be at work.
    """
    left: list[str] = []
    away = False
    with trio.move_on_after(UNDO_DEADLINE, shield=True) as scope:
        if lost:
            try:
                await hands.halt()
            except TrueupError as error:
                away = isinstance(error, HostUnreachable)
                log.say(f"  what ran on the host may still run: {error}")
        for step in reversed(begun):
            if away and step.undo:
                left.append(step.what)
                continue
            try:
                log.note(await hands.undo(step))
            except TrueupError as error:
                left.append(step.what)
                away = isinstance(error, HostUnreachable)
                log.say(f"  not taken back: {step.what}: {error}")
    if scope.cancelled_caught:
        left.append("the rest, for lack of time")
    return left


def _state(left: Sequence[str]) -> str:
    return "the host is as it was" if not left else f"not taken back: {', '.join(left)}; run it again"
