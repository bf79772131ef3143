"""Carries steps out, and takes them back where one fails."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from reconciler.errors import TrueupError
from reconciler.install.plan import Step
from reconciler.install.ssh import CommandFailed

UNDO_DEADLINE: Final = 600.0
"""Seconds for taking back all of it, also after an interrupt."""

Act = Callable[[Step], Awaitable[str]]


class InstallFailed(TrueupError):
    """A step failed. `left`: what could not be taken back."""

    reason = "InstallFailed"

    def __init__(self, step: Step, cause: TrueupError, left: Sequence[str]) -> None:
        state = "the host is as it was" if not left else f"not taken back: {', '.join(left)}; run it again"
        super().__init__(f"could not {step.what}: {cause}", hint=state)
        self.left = tuple(left)


@dataclass
class Log:
    """What happened, for people and for the journal. `mask` takes secrets out of it."""

    tell: Callable[[str], None]
    mask: Callable[[str], str]
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.note(line)
        self.tell(self.mask(line))

    def note(self, text: str) -> None:
        """For the journal alone."""
        self.lines += [line for line in self.mask(text).splitlines() if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


async def carry_out(steps: Sequence[Step], do: Act, undo: Act, log: Log) -> None:
    """Each step after the other. Raises InstallFailed once what was done is taken back, the last first."""
    begun: list[Step] = []
    for number, step in enumerate(steps, 1):
        log.say(f"[{number}/{len(steps)}] {step.what}")
        begun.append(step)
        try:
            log.note(await do(step))
        except TrueupError as error:
            if isinstance(error, CommandFailed):
                log.note(error.output)
            if step.optional:
                log.say(f"  warning: {error}")
                continue
            log.say(f"  failed: {error}")
            raise InstallFailed(step, error, await _take_back(begun, undo, log)) from None
        except BaseException:
            # An interrupt: the host is left as it was all the same.
            with trio.CancelScope(shield=True):
                await _take_back(begun, undo, log)
            raise


async def _take_back(begun: Sequence[Step], undo: Act, log: Log) -> list[str]:
    """What could not be taken back. One that fails does not keep the others from it."""
    left: list[str] = []
    with trio.move_on_after(UNDO_DEADLINE) as scope:
        for step in reversed(begun):
            try:
                log.note(await undo(step))
            except TrueupError as error:
                left.append(step.what)
                log.say(f"  not taken back: {step.what}: {error}")
    if scope.cancelled_caught:
        left.append("the rest, for lack of time")
    return left
