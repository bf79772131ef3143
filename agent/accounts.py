"""Users and groups of this host by name. What answers may be LDAP or SSSD, and may never do so: a task that
waits for it holds its target's lock, so that there is a deadline."""

import grp
import pwd
import threading
from collections.abc import Callable
from concurrent.futures import Future

from agent.failures import TaskFailed

LOOKUP_SECONDS = 10.0
"""How long one name may take."""

_SLOTS = threading.BoundedSemaphore(8)
"""Lookups at once. One that hangs keeps its thread, and nothing can end that."""


def user_id(name: str) -> int | None:
    """None where there is no such user; blocks. Raises TaskFailed where nobody says so in time."""
    return _in_time(lambda: pwd.getpwnam(name).pw_uid, f"user {name!r}")


def group_id(name: str) -> int | None:
    """As `user_id`, of a group."""
    return _in_time(lambda: grp.getgrnam(name).gr_gid, f"group {name!r}")


def _in_time(look_up: Callable[[], int], what: str) -> int | None:
    answer: Future[int] = Future()

    def run() -> None:
        try:
            answer.set_result(look_up())
        except Exception as error:
            answer.set_exception(error)
        finally:
            _SLOTS.release()

    if not _SLOTS.acquire(timeout=LOOKUP_SECONDS):
        raise _unanswered(what)
    try:
        threading.Thread(target=run, name="lookup", daemon=True).start()
    except BaseException:
        _SLOTS.release()
        raise
    try:
        return answer.result(LOOKUP_SECONDS)
    except (KeyError, ValueError):
        return None
    except TimeoutError as error:
        raise _unanswered(what) from error


def _unanswered(what: str) -> TaskFailed:
    return TaskFailed(
        "Busy",
        f"this host does not say within {LOOKUP_SECONDS:g} s whether it has the {what}",
        hint="see to the services of `passwd` and `group` in /etc/nsswitch.conf; it is tried again",
    )
