"""What every peer of a comparison offers: bring a directory to another's state, and say what that took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class PeerMissing(Exception):
    """What is needed to run a peer is not installed, or does not start here."""


@dataclass(frozen=True)
class Copied:
    """One run: its time in seconds, how much of that was the look at the source, where the peer can say it,
    and the bytes of contents that were sent."""

    seconds: float
    scan_seconds: float | None = None
    bytes_moved: int | None = None


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def compare_options(self) -> Sequence[str]:
        """Of the rsync that compares: what this peer is known not to keep."""
        ...

    @property
    def first_copies_only(self) -> bool:
        """Whether it has a way of its own for first copies, and goes the way of another peer afterwards."""
        ...

    def processes(self) -> Sequence[int]:
        """What it runs at the moment."""
        ...

    def prepare(self, source: Path, target: Path) -> None:
        """Before the first copy to a new, empty target; not measured."""
        ...

    def copy(self, source: Path, target: Path) -> Copied: ...

    def forget(self, source: Path, target: Path) -> None:
        """Before the target is removed; not measured."""
        ...
