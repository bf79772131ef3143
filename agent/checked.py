"""Files that hold what can be found out again: what is damaged, or torn by a crash, counts as not there."""

import contextlib
import hashlib
import os
from pathlib import Path

_CHECK = hashlib.sha256().digest_size


def read_checked(path: Path) -> memoryview | None:
    """What was written there, whole; blocks."""
    try:
        content = memoryview(path.read_bytes())
    except OSError:
        return None
    return content[_CHECK:] if hashlib.sha256(content[_CHECK:]).digest() == content[:_CHECK] else None


def write_checked(path: Path, content: bytes) -> None:
    """Replaces what is there, if it can; blocks."""
    fresh = path.with_name(f"{path.name}-new")
    with contextlib.suppress(OSError):
        # Two may write at once; the digest tells a mixture of theirs.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        fresh.rename(path)
