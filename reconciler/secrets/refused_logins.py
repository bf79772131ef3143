"""Logins that a host refused, kept between processes: each command is one, and three bad logins lock out.

A small file in the state directory, 0600: for each host and credentials a keyed digest, with the time until
which nobody tries them again. A file that cannot be read or written costs a further login, nothing else.
"""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from reconciler.secrets.values import Secret

FILE_NAME: Final = "refused-logins.json"
MAX_FILE: Final = 64 * 1024
"""Bytes."""


class RefusedLogins:
    """`key`: 32 bytes that nobody else has. Methods block for a moment and may be called from any thread."""

    def __init__(self, path: Path, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._key = key
        self._now = now

    def wait(self, host: str, credentials: tuple[Secret, ...], longest: float) -> float:
        """Seconds until these may be tried; `longest` where a clock was set back meanwhile."""
        until = self._read().get(self._mark(host, credentials), 0.0)
        return min(max(until - self._now(), 0.0), longest)

    def refuse(self, host: str, credentials: tuple[Secret, ...], seconds: float) -> None:
        now = self._now()
        kept = {mark: until for mark, until in self._read().items() if until > now}
        kept[self._mark(host, credentials)] = now + seconds
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                json.dump(kept, file)
            temporary.replace(self._path)

    def _read(self) -> dict[str, float]:
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(MAX_FILE))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(document, dict):
            return {}
        return {mark: float(until) for mark, until in document.items() if isinstance(until, int | float)}

    def _mark(self, host: str, credentials: tuple[Secret, ...]) -> str:
        parts = [host.encode(), *(each.reveal().encode("utf-8", "surrogatepass") for each in credentials)]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.new(self._key, b"refused login" + message, hashlib.sha256).hexdigest()
