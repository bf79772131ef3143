"""Users and groups of this host, by name or number. What answers may be LDAP or SSSD, and may be down or
never do so. Who waits holds up a task or a look, so that there are deadlines, for one and for all."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from agent import libc
from agent.libc import Account

LOOKUP_SECONDS = 10.0
"""How long one name may take."""

ALL_SECONDS = 30.0
"""How long all names of a task, or of a look, may take together."""

PAUSE_SECONDS = 60.0
"""How long nobody is asked once these are used up, by who goes on."""

SERVICES = "see to the services of `passwd` and `group` in /etc/nsswitch.conf; it is tried again"
"""A hint for where nobody says whether there is such a user or group."""

_SLOTS = threading.BoundedSemaphore(8)
"""Lookups at once. One that hangs keeps its thread, and nothing can end that."""


class Unanswered(Exception):
    """Nobody says whether there is such a user or group: one line for people."""


class Lookups:
    """The lookups of one task or look, or of one after the other; from one thread at a time. All block, and
    raise Unanswered where nobody can be asked, or nobody answers in time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = ALL_SECONDS
        self._again_at = 0.0

    def renew(self) -> None:
        """There is as much time again for those that follow; after a pause, where all of it was used up."""
        if self._left > 0 or self._clock() >= self._again_at:
            self._left = ALL_SECONDS

    def user_id(self, name: str) -> int | None:
        """None where there is no such user."""
        found = self._find("user", name)
        return None if found is None else found.number

    def group_id(self, name: str) -> int | None:
        found = self._find("group", name)
        return None if found is None else found.number

    def user_name(self, number: int) -> str | None:
        found = self.user(number)
        return None if found is None else found.name

    def user(self, number: int) -> Account | None:
        """None where nobody has this number."""
        return self._find("user", number)

    def group_name(self, number: int) -> str | None:
        found = self._find("group", number)
        return None if found is None else found.name

    def _find(self, kind: Literal["user", "group"], key: str | int) -> Account | None:
        what = f"this host does not say whether it has the {kind} {key!r}"
        if self._left <= 0:
            raise Unanswered(f"{what}: looking up others took more than {ALL_SECONDS:g} s")
        begun = self._clock()
        try:
            return _in_time(lambda: libc.find_account(kind, key), min(LOOKUP_SECONDS, self._left))
        except TimeoutError as error:
            raise Unanswered(f"{what}: no answer within {LOOKUP_SECONDS:g} s") from error
        except OSError as error:
            raise Unanswered(f"{what}: {error.strerror}") from error
        finally:
            now = self._clock()
            self._left -= now - begun
            self._again_at = now + PAUSE_SECONDS


def _in_time(look_up: Callable[[], Account | None], seconds: float) -> Account | None:
    answer: Future[Account | None] = Future()

    def run() -> None:
        try:
            answer.set_result(look_up())
        except Exception as error:
            answer.set_exception(error)
        finally:
            _SLOTS.release()

    if not _SLOTS.acquire(timeout=seconds):
        raise TimeoutError
    try:
        threading.Thread(target=run, name="lookup", daemon=True).start()
    except BaseException:
        _SLOTS.release()
        raise
    return answer.result(seconds)
