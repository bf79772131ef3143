"""What Python prints of an error that nobody caught, with secret values masked: a last net, as in the log."""

import sys
import threading
from collections.abc import Callable
from traceback import format_exception
from types import TracebackType

Mask = Callable[[str], str]


def mask_crashes(mask: Mask) -> None:
    """Put the mask over the tracebacks of the process, of its threads and of what fails in finalizers."""

    def uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        _print("", kind, error, where, mask)

    def in_thread(caught: threading.ExceptHookArgs) -> None:
        if caught.exc_type is not SystemExit:
            name = caught.thread.name if caught.thread is not None else "?"
            about = f"Exception in thread {name}:\n"
            _print(about, caught.exc_type, caught.exc_value, caught.exc_traceback, mask)

    def ignored(caught: "sys.UnraisableHookArgs") -> None:
        # Without the object, whose repr could be anything.
        about = f"{caught.err_msg or 'Exception ignored in'}: {type(caught.object).__name__}\n"
        _print(about, caught.exc_type, caught.exc_value, caught.exc_traceback, mask)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = ignored


def _print(
    about: str,
    kind: type[BaseException],
    error: BaseException | None,
    where: TracebackType | None,
    mask: Mask,
) -> None:
    try:
        text = mask(about + "".join(format_exception(kind, error, where)))
    except Exception:
        # Python would print the whole error, unmasked, if this hook failed.
        text = f"{kind.__name__}, which cannot be printed\n"
    if sys.stderr is not None:
        sys.stderr.write(text)
