"""How many worker processes agents get. Pure."""

from typing import Final, Literal

ENOUGH_NODES: Final = 8
"""From as many nodes on agents are many."""

MOST: Final = 4
"""Workers that are started unless a number is set."""

MOST_SET: Final = 64

WorkerCount = int | Literal["auto"]


def how_many(setting: WorkerCount, cores: int, nodes: int) -> int:
    """The workers for so many nodes, on a machine that lets this process use so many cores."""
    if setting != "auto":
        return setting
    return 0 if nodes < ENOUGH_NODES else max(0, min(MOST, cores - 1))


def parse_workers(text: str) -> WorkerCount:
    """A number, or auto."""
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= MOST_SET:
        return int(text)
    raise ValueError(f"auto, or a number from 0 to {MOST_SET}")
