"""`python3 tasks.py fuzz --seconds 60`: any bytes from a peer end in messages or in a refusal, not otherwise.

Takes conversations that are right, changes them, and keeps what makes a connection do something that it did
not do before: end in another phase, take other messages, refuse in other words. What fails is saved below
`tests/fuzz/crashes`, and a test plays all that is there again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import PathRefused, RemoteProtocolError, SettingsError
from agent.ignore import Ignore
from agent.index_check import IndexCheck
from agent.wire.connection import Phase, Role
from agent.wire.messages import AnyMessage, IndexFile, Task
from tests.agent.exchanges import EXAMPLES, pair_in, payload_for, raw

CRASHES = Path(__file__).parent / "crashes"
PHASES, ROLES = tuple(Phase), tuple(Role)
LONGEST = 64 * 1024
"""Bytes of a conversation; what grows beyond is cut."""
HANGS = 20.0
"""Seconds of the processor's time for one conversation that are too many."""

_BYTES = bytes(
    [0, 1, 0x7F, 0x80, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC4, 0xC6, 0xCF, 0xD3, 0xDD, 0xDF, 0xFF]
)
"""First bytes of all kinds of MessagePack values, and the ends of ranges."""
_LENGTHS = (0, 1, 4096, 4097, 2**20, 2**20 + 1, 2**22, 2**22 + 1, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """What one end hears, in one phase; `step` bytes at a time, 0 for all at once."""

    role: Role
    phase: Phase
    step: int
    stream: bytes

    def to_bytes(self) -> bytes:
        return bytes([ROLES.index(self.role), PHASES.index(self.phase), self.step]) + self.stream

    @classmethod
    def from_bytes(cls, data: bytes) -> Case:
        return cls(ROLES[data[0] % len(ROLES)], PHASES[data[1] % len(PHASES)], data[2], data[3:])


class Broken(Exception):
    """Something happened that no bytes may bring about."""


def play(case: Case) -> tuple[object, ...]:
    """What happened, apart from numbers. Raises whatever should not happen."""
    end = pair_in(case.phase)[case.role]
    began = time.process_time()
    heard: list[AnyMessage] = []
    refused = ""
    step = case.step or max(len(case.stream), 1)
    try:
        for at in range(0, len(case.stream), step):
            for received in end.receive_data(case.stream[at : at + step]):
                heard.append(received.message)
                if len(heard) <= 20:
                    _take(received.message)
            if end.buffered > len(case.stream):
                raise Broken("more is kept than was said")
        end.receive_eof()
    except RemoteProtocolError as error:
        refused = re.sub(r"\d+", "0", str(error))
    if time.process_time() - began > HANGS:
        raise Broken(f"it took more than {HANGS:g} seconds")
    return (case.role, case.phase, end.phase, refused, tuple(type(each).__name__ for each in heard[:8]))


def _take(message: AnyMessage) -> None:
    """What an agent does first with what it was told."""
    try:
        if isinstance(message, IndexFile):
            check = IndexCheck(
                entries=1_000,
                total_bytes=2**40,
                max_entries=1_000,
                max_file_size=2**40,
                max_total_size=2**50,
            )
            check.add(message.entries)
        elif isinstance(message, Task):
            Ignore(message.ignore[:20]).covers("some/path", is_dir=False)
    except (RemoteProtocolError, PathRefused, SettingsError):
        pass


def seeds() -> Iterator[Case]:
    """Every message to each end in each phase, and a whole transfer."""
    whole = b"".join(raw(message, payload_for(message)) for message in EXAMPLES)
    for role in Role:
        for phase in Phase:
            yield Case(role, phase, 0, whole)
            for message in EXAMPLES:
                yield Case(role, phase, 0, raw(message, payload_for(message)))


class Mutator:
    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.corpus = list(seeds())
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip,
            self._set,
            self._remove,
            self._repeat,
            self._insert,
            self._cut,
            self._number,
        )

    def next(self) -> Case:
        chance = self._chance
        case = chance.choice(self.corpus)
        frames = _frames(case.stream)
        if frames and chance.random() < 0.7:
            # In the body of a frame, whose length then is right: a decoder sees it.
            at = chance.randrange(len(frames))
            frames[at] = self._change(frames[at])
            if chance.random() < 0.2:
                frames.insert(at, chance.choice(frames))
            stream = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
        else:
            stream = self._change(case.stream)
        if chance.random() < 0.1:
            stream += chance.choice(self.corpus).stream
        role = chance.choice(ROLES) if chance.random() < 0.1 else case.role
        phase = chance.choice(PHASES) if chance.random() < 0.1 else case.phase
        step = chance.choice((0, 0, 0, 1, 3, 200))
        return Case(role, phase, step if len(stream) < 4_000 else 0, stream[:LONGEST])

    def _change(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._chance.choice((1, 1, 2, 4, 8))):
            self._chance.choice(self._ways)(changed)
        return bytes(changed)

    def _where(self, data: bytearray) -> int:
        return self._chance.randrange(len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._chance.randrange(len(data))] = self._chance.choice(_BYTES)

    def _remove(self, data: bytearray) -> None:
        at = self._where(data)
        del data[at : at + self._chance.choice((1, 2, 4, 16, 64))]

    def _repeat(self, data: bytearray) -> None:
        at = self._where(data)
        piece = data[at : at + self._chance.choice((1, 4, 16, 64))]
        data[at:at] = piece * self._chance.choice((1, 2, 16))

    def _insert(self, data: bytearray) -> None:
        at = self._where(data)
        size = self._chance.choice((1, 2, 4, 16))
        data[at:at] = self._chance.choice(
            (self._chance.randbytes(size), bytes([self._chance.choice(_BYTES)]) * size)
        )

    def _cut(self, data: bytearray) -> None:
        del data[self._where(data) :]

    def _number(self, data: bytearray) -> None:
        at = self._where(data)
        data[at : at + 4] = struct.pack(">I", self._chance.choice(_LENGTHS))


def _frames(stream: bytes) -> list[bytes]:
    frames: list[bytes] = []
    at = 0
    while at + 4 <= len(stream):
        (size,) = struct.unpack_from(">I", stream, at)
        frames.append(stream[at + 4 : at + 4 + size])
        at += 4 + size
    return frames


def fuzz(
    seed: int, *, runs: int | None = None, seconds: float | None = None, save: Path
) -> tuple[int, int, int]:
    """Conversations tried, things seen that were new, and those that failed, each saved once below `save`."""
    mutator = Mutator(seed)
    seen: set[tuple[object, ...]] = {play(case) for case in mutator.corpus}
    failed: set[str] = set()
    known = len(seen)
    done = 0
    deadline = None if seconds is None else time.monotonic() + seconds
    while (runs is None or done < runs) and (deadline is None or time.monotonic() < deadline):
        case = mutator.next()
        done += 1
        try:
            result = play(case)
        except Exception as error:
            kept = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {kept.filename}:{kept.lineno}"
            if place not in failed:
                failed.add(place)
                name = hashlib.sha256(case.to_bytes()).hexdigest()[:16]
                print(f"{place}: {name}\n{traceback.format_exc()}", file=sys.stderr)
                save.mkdir(exist_ok=True)
                (save / name).write_bytes(case.to_bytes())
            continue
        if result not in seen:
            seen.add(result)
            mutator.corpus.append(case)
    return done, len(seen) - known, len(failed)


def main() -> int:
    parser = argparse.ArgumentParser("tasks.py fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look (60)")
    parser.add_argument("--seed", type=int, help="begin like an earlier run; it is printed")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    done, new, failed = fuzz(seed, seconds=options.seconds, save=CRASHES)
    print(f"{done:,} conversations, {new:,} with something new, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
