"""Names of owners on the wire: what one side tells is what the other takes, and nothing else is taken."""

import hashlib
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import RemoteProtocolError
from agent.ownership import (
    BATCH_RUNS,
    MAX_PAIRS,
    MAX_TEXT,
    NameRun,
    Names,
    OwnersCheck,
    gather,
    owner_batches,
    owners_digest,
    spread,
    usable,
)
from agent.wire.owners import IndexOwners

FRAME = 1024 * 1024

USABLE = st.sampled_from(["", "root", "www-data", "DOMAIN\\some one", "é", "a.b@example", "x" * 255])
OWNED = st.lists(st.tuples(USABLE, USABLE), max_size=60)


def taken(entries: int, runs: tuple[NameRun, ...], digest: bytes) -> tuple[NameRun, ...]:
    check = OwnersCheck(entries)
    for batch in owner_batches("t", runs):
        assert len(msgspec.msgpack.encode(batch)) < FRAME
        check.add(batch)
    return check.finish(digest)


@settings(deadline=None)
@given(OWNED)
def test_what_is_told_is_taken(owned: list[Names]) -> None:
    names = {f"{number:03}": pair for number, pair in enumerate(owned)}
    runs = gather(names, names)
    assert taken(len(owned), runs, owners_digest(runs)) == runs
    assert spread(names, runs) == {path: pair for path, pair in names.items() if pair != ("", "")}
    assert all(one[1:] != other[1:] for one, other in pairwise(runs))


def test_the_digest_is_as_documented() -> None:
    row = b"\x93\x02\xa3app\xa3web"
    assert owners_digest([(2, "app", "web")]) == hashlib.sha256(b"trueup-owners-1\n\x91" + row).digest()


def test_many_of_them_travel_in_frames() -> None:
    owned = {f"{number:06}": (f"u{number % 9000}", "g" * 200) for number in range(3 * BATCH_RUNS)}
    runs = gather(owned, owned)
    assert len(list(owner_batches("t", runs))) > 3
    assert taken(len(owned), runs, owners_digest(runs)) == runs


@pytest.mark.parametrize(
    "name",
    ["0", "1000", "٣", "a:b", "a/b", "a\nb", "a\0b", "-x", "+1", " a", "a ", "\x1b[2J", "x" * 256, "\udcff"],
    ids=ascii,
)
def test_what_is_no_name_is_refused(name: str) -> None:
    assert not usable(name)
    for pair in ((name, ""), ("", name)):
        with pytest.raises(RemoteProtocolError):
            OwnersCheck(1).add(IndexOwners(task="t", names=(pair,), runs=((1, 0),)))


@pytest.mark.parametrize(
    "batch",
    [
        IndexOwners(task="t", names=(("a", "b"),), runs=((4, 0),)),
        IndexOwners(task="t", names=(("a", "b"),), runs=((2, 0), (2, 0))),
        IndexOwners(task="t", names=(("a", "b"),), runs=((0, 0),)),
        IndexOwners(task="t", names=(("a", "b"),), runs=((-1, 0),)),
        IndexOwners(task="t", names=(("a", "b"),), runs=((1, 1),)),
        IndexOwners(task="t", names=(("a", "b"),), runs=((1, -1),)),
        IndexOwners(task="t", runs=((1, 0),)),
        IndexOwners(task="t", names=(("a", "b"),) * (MAX_PAIRS + 1)),
        IndexOwners(task="t", names=(("a" * 255, "b" * 255),) * (MAX_TEXT // 510 + 1)),
    ],
    ids=["too many", "too many in all", "none", "fewer", "no such", "negative", "empty", "pairs", "text"],
)
def test_what_no_primary_tells_is_refused(batch: IndexOwners) -> None:
    with pytest.raises(RemoteProtocolError):
        OwnersCheck(3).add(batch)


@pytest.mark.parametrize("entries", [2, 4])
def test_all_entries_have_to_be_told_of(entries: int) -> None:
    runs = ((3, "a", "b"),)
    with pytest.raises(RemoteProtocolError):
        taken(entries, runs, owners_digest(runs))


def test_others_than_the_task_names_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        taken(3, ((3, "a", "b"),), owners_digest(((3, "a", "c"),)))
