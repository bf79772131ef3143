"""Who is logged in to the page: random ids in cookies, everything else in this process's memory.

A session ends by logging out, after a while without use, after a day's work in any case, with the primary,
and as soon as the token that it began with is gone or over. It holds that token's digest, never the token.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from reconciler.web.endpoints import Caller

IDLE: Final = 2 * 3600.0
"""Seconds without a request of the person; a page that is only kept open does not count."""

LONGEST: Final = 12 * 3600.0
"""Seconds in all."""

MAX_SESSIONS: Final = 256
MAX_OF_TOKEN: Final = 16
"""Sessions of one token; a further one ends the one that was used longest ago. So nobody ends another's."""

MAX_MESSAGES: Final = 8


@dataclass(frozen=True, slots=True)
class Message:
    """Something to be told once, on the next page. `tone` as that of a badge."""

    text: str
    tone: str


@dataclass(slots=True)
class Session:
    caller: Caller
    digest: bytes
    """SHA-256 of the token."""
    csrf: str
    began: float
    used: float
    messages: list[Message] = field(default_factory=list)

    def say(self, text: str, tone: str) -> None:
        self.messages = [*self.messages, Message(text, tone)][-MAX_MESSAGES:]

    def hear(self) -> list[Message]:
        """What is to be told, which then is."""
        told, self.messages = self.messages, []
        return told


class Sessions:
    """`known` says whose token has a digest now, if any has. `clock` gives seconds that do not jump."""

    def __init__(
        self, known: Callable[[bytes], Caller | None], clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._known = known
        self._clock = clock
        # By the digest of the cookie, the one used longest ago first: how long a look-up takes says nothing
        # of cookies, and a dump of the memory holds none.
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, caller: Caller, digest: bytes) -> str:
        """What the cookie of a new session holds."""
        self._sweep()
        same = [key for key, session in self._open.items() if session.digest == digest]
        for key in same[: max(0, len(same) - MAX_OF_TOKEN + 1)]:
            del self._open[key]
        while len(self._open) >= MAX_SESSIONS:
            self._open.popitem(last=False)
        cookie, now = secrets.token_urlsafe(32), self._clock()
        self._open[_key(cookie)] = Session(caller, digest, secrets.token_urlsafe(32), now, now)
        return cookie

    def find(self, cookie: str, *, use: bool = True) -> Session | None:
        """The session of a cookie, as long as it lasts. Without `use` that is no sign of a person."""
        key, now = _key(cookie), self._clock()
        session = self._open.get(key)
        if session is None:
            return None
        caller = None if self._is_over(session, now) else self._known(session.digest)
        if caller is None:
            del self._open[key]
            return None
        session.caller = caller  # its role may be another by now
        if use:
            session.used = now
            self._open.move_to_end(key)
        return session

    def end(self, cookie: str) -> None:
        self._open.pop(_key(cookie), None)

    def _is_over(self, session: Session, now: float) -> bool:
        return now - session.used >= IDLE or now - session.began >= LONGEST

    def _sweep(self) -> None:
        now = self._clock()
        for key in [key for key, session in self._open.items() if self._is_over(session, now)]:
            del self._open[key]


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
