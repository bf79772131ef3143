"""Work for worker threads, done at once in the loop's own: so it shows when a task only waits."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import trio

Result = TypeVar("Result")


async def at_once(function: Callable[..., Result], *arguments: object, **_options: object) -> Result:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all tasks are blocked, as `trio.testing.wait_all_tasks_blocked` sees it, nothing is under way."""
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
