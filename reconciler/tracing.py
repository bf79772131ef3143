"""One id that ties together what follows from one request: log lines, a pass, its steps, a commit, a host.

It travels with the context of trio's tasks and into worker threads, so nobody has to hand it on. It has the
form of a trace id in W3C's Trace Context.
"""

import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from secrets import token_hex
from typing import Any, ParamSpec, TypeVar

import structlog

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_CAUSES: ContextVar[tuple[str, ...]] = ContextVar("causes", default=())
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_TRACE = re.compile(r"[0-9a-f]{32}")


def new_trace() -> str:
    return token_hex(16)


def is_trace(text: str) -> bool:
    """Whether a text from elsewhere may be taken for a trace id."""
    return _TRACE.fullmatch(text) is not None and text != "0" * 32


def from_traceparent(header: str) -> str:
    """The trace id of a `traceparent` header; a new one where there is none, or none of that form."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None or header.startswith("ff") or not is_trace(found["trace"]):
        return new_trace()
    return found["trace"]


def current_trace() -> str:
    """The trace id of whatever is under way here; empty outside of any."""
    known = structlog.contextvars.get_contextvars().get("trace")
    return known if isinstance(known, str) else ""


def current_causes() -> tuple[str, ...]:
    """The trace ids of all requests that what is under way here answers; its own is among them."""
    return _CAUSES.get() or ((current_trace(),) if current_trace() else ())


def forget_trace() -> None:
    """For what is started by a request, or in a pass, and outlives it."""
    structlog.contextvars.clear_contextvars()
    _CAUSES.set(())


@contextmanager
def trace(id: str | None = None, *, causes: Iterable[str] = (), **fields: str) -> Iterator[str]:
    """Give every line logged inside, also by child tasks, a trace id and these fields; yields the former.

    Without an `id` an inner trace keeps that of the outer one. `causes`: the ids of the requests that this
    answers, where there are several.
    """
    trace_id = id or current_trace() or new_trace()
    ids = tuple(dict.fromkeys(causes))
    token = _CAUSES.set(ids) if ids or id is not None else None
    try:
        with structlog.contextvars.bound_contextvars(trace=trace_id, **fields):
            yield trace_id
    finally:
        if token is not None:
            _CAUSES.reset(token)


def traced(run: Callable[Given, Coroutine[Any, Any, Answer]]) -> Callable[Given, Coroutine[Any, Any, Answer]]:
    """A coroutine function that has a trace whoever calls it: the caller's, or one of its own."""

    @wraps(run)
    async def within(*given: Given.args, **named: Given.kwargs) -> Answer:
        with trace():
            return await run(*given, **named)

    return within
