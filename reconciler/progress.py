"""How far a task is, as data and in words. Pure."""

from dataclasses import dataclass
from typing import Final

STILL: Final = 30
"""Seconds without any progress after which that is worth a word."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is. `sent_bytes` and `received_bytes` as they are on the wire.

    `total_bytes` is how large the tree is: all of it is sent only to a target that has nothing of it. What
    follows is the agent's own word: what it is at, and how much of that is done; totals of 0 are not known.
    """

    task: str
    attempt: int
    total_bytes: int
    sent_bytes: int
    received_bytes: int
    resource: str = ""
    phase: str = ""
    """One of `agent.wire.messages.PHASES`; empty: the agent is too old to tell, or has not told yet."""
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    still_seconds: int = 0
    """How long nothing of all this has changed."""


WORDS: Final = {
    "wait": "waits for its turn",
    "look": "looks at what is there",
    "copy": "copies",
    "place": "puts in place",
    "command": "runs commands",
}


def share_of(progress: Progress) -> tuple[int, int]:
    """How much is done, of how much; 0 of 0: nobody knows. Bytes where there are any, else entries."""
    if progress.bytes_total:
        return progress.bytes_done, progress.bytes_total
    return progress.files_done, progress.files_total


def in_words(progress: Progress) -> str:
    """How far it is, for people."""
    told = [WORDS[progress.phase]] if progress.phase else []
    if progress.files_total:
        told.append(f"{progress.files_done} of {progress.files_total} entries")
    if progress.bytes_total:
        told.append(f"{size(progress.bytes_done)} of {size(progress.bytes_total)}")
    if progress.sent_bytes:
        told.append(f"{size(progress.sent_bytes)} sent")
    if progress.still_seconds >= STILL:
        told.append(f"no progress for {progress.still_seconds} s")
    return ", ".join(told)


def size(count: int) -> str:
    """A number of bytes for people."""
    if count < 1024:
        return f"{count} B"
    number = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"
