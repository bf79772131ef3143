"""Errors that a running primary survives, as lines of its log: never with values that their text may hold."""

import traceback
from pathlib import Path

from agent.failures import single
from reconciler.errors import TrueupError
from reconciler.status.conditions import bounded


def line_for_log(error: BaseException) -> str:
    """One line on an error: what people may read of a known one, of any other only where it was."""
    cause = single(error) if isinstance(error, BaseExceptionGroup) else error
    if isinstance(cause, TrueupError):
        return bounded("; ".join(str(cause).splitlines()))
    frames = _frames(cause)
    where = f" at {frames[-1]}" if frames else ""
    return f"internal error: {type(cause).__name__}{where}; this is a bug in trueup, -v logs the way there"


def way_to(error: BaseException) -> list[str]:
    """The calls that led to an error, outermost first."""
    return _frames(single(error) if isinstance(error, BaseExceptionGroup) else error)


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
