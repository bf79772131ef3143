"""Keeps what a ledger knows of a manifest's runs beside that: with it, the list need not be decoded."""

import hashlib
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec

from agent.checked import read_checked, write_checked
from agent.glance import Glance
from agent.index import array_header
from agent.ledger import Ledger, Run
from agent.manifest import Manifest, Unlisted, ledger_path, load_unlisted, state_of
from agent.runs import length_for

_VERSION = 1

_MOST_LATE = 10_000
"""Entries whose time on the disk is another than is recorded; with more, no ledger is kept."""


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """`record` is the state of the manifest, and `seen` tells the glance by which these are `late`; all else
    is as in `Ledger`."""

    version: int
    record: bytes
    seen: bytes
    length: int
    modes: bool
    times: bool
    late: tuple[str, ...]
    runs: tuple[Run, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Kept)


def save_ledger(record: Path, ledger: Ledger, glance: Glance) -> None:
    """Keeps a ledger of what the manifest lists now, where a glance is kept as well, if it can; blocks."""
    if len(ledger.late) > _MOST_LATE or ledger.length != length_for(len(ledger)):
        return
    kept = _Kept(
        version=_VERSION,
        record=state_of(record),
        seen=_digest_of(glance),
        length=ledger.length,
        modes=ledger.modes,
        times=ledger.times,
        late=tuple(sorted(ledger.late)),
        runs=tuple(ledger.runs),
    )
    write_checked(ledger_path(record), _encoder.encode(kept))


def load_with_ledger(
    record: Path, glance: Glance, *, modes: bool, times: bool, late: Callable[[Manifest], frozenset[str]]
) -> Manifest | None:
    """The manifest, which lists a `Ledger`: that which was kept, or one that is made of it. What is `late` in
    it is asked for where that is not known of the glance. Blocks; raises as `agent.manifest.load` does."""
    if (unlisted := load_unlisted(record)) is None:
        return None
    ledger, seen = _load(record, unlisted) or (None, b"")
    if ledger is not None and (ledger.modes, ledger.times) == (modes, times):
        if seen != _digest_of(glance):
            ledger = ledger.with_late(late(unlisted.listing(ledger)))
        return unlisted.listing(ledger)
    manifest = unlisted.decoded(record)
    return unlisted.listing(Ledger.of(manifest.placed, modes=modes, times=times, late=late(manifest)))


def _load(record: Path, unlisted: Unlisted) -> tuple[Ledger, bytes] | None:
    """The ledger that was kept of just this manifest, and what it was `seen` by."""
    if (content := read_checked(ledger_path(record))) is None:
        return None
    try:
        kept = _decoder.decode(content)
    except msgspec.MsgspecError:
        return None
    encoded = memoryview(unlisted.placed)
    header = array_header(sum(run.count for run in kept.runs))
    bounds = list(accumulate((run.size for run in kept.runs), initial=len(header)))
    if (
        kept.version != _VERSION
        or kept.record != state_of(record)
        or encoded[: len(header)] != header
        or bounds[-1] != len(encoded)
    ):
        return None
    ledger = Ledger(
        kept.runs,
        [bytes(encoded[start:end]) for start, end in pairwise(bounds)],
        length=kept.length,
        modes=kept.modes,
        times=kept.times,
        late=frozenset(kept.late),
        record=record,
    )
    return ledger, kept.seen


def _digest_of(glance: Glance) -> bytes:
    return hashlib.sha256(glance.digests).digest()
