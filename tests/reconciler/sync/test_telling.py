"""What is told of a tree is made anew only where the tree is another."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.index import tree_digest
from agent.runs import SHORTEST, runs_of
from agent.wire.messages import Entry, KnownRuns
from reconciler.sync.telling import TreeRuns
from tests.agent.test_runs import file, indexes

KINDS = [(length, modes) for length in (16, 64) for modes in (True, False)]


def asked(length: int, modes: bool) -> KnownRuns:
    return KnownRuns(length=length, modes=modes, digests=b"")


@st.composite
def changed(draw: st.DrawFn) -> tuple[tuple[Entry, ...], tuple[Entry, ...], list[int]]:
    """An index, the same with other entries in some of its places, and which these are."""
    many = [file(f"!{number:03}") for number in range(draw(st.integers(0, 200)))]
    before = [*many, *draw(indexes())]
    places = sorted(draw(st.sets(st.integers(0, len(before) - 1), max_size=5))) if before else []
    now = list(before)
    for place in places:
        now[place] = msgspec.structs.replace(before[place], mode=0o700, mtime_ns=9)
    return tuple(before), tuple(now), places


@pytest.mark.parametrize(("length", "modes"), KINDS)
@given(changes=changed())
async def test_runs_of_a_changed_tree_are_as_if_made_anew(
    length: int, modes: bool, changes: tuple[tuple[Entry, ...], tuple[Entry, ...], list[int]]
) -> None:
    before, now, places = changes
    told = TreeRuns()
    first = await told.of(before, asked(length, modes), dated=True)
    again = told.with_others(before, now, places)
    renewed = await again.of(now, asked(length, modes), dated=True)
    assert renewed == runs_of(now, length, modes=modes)
    assert await told.of(before, asked(length, modes), dated=True) is first
    assert first == runs_of(before, length, modes=modes)


@given(changed(), st.booleans())
def test_the_digest_of_a_changed_tree_is_as_if_made_anew(
    changes: tuple[tuple[Entry, ...], tuple[Entry, ...], list[int]], ignore_permissions: bool
) -> None:
    before, now, places = changes
    told = TreeRuns()
    for entries in (before, now):
        told = told.with_others(before, entries, places)
        anew = tree_digest(entries, ignore_permissions=ignore_permissions)
        assert told.tree(entries, ignore_permissions=ignore_permissions) == anew


async def test_what_did_not_change_is_carried_over() -> None:
    before = tuple(file(f"{number:04}") for number in range(1000))
    now = (*before[:500], file("0500", b"new"), *before[501:])
    told = TreeRuns()
    first = await told.of(before, asked(SHORTEST, True), dated=True)
    renewed = await told.with_others(before, now, [500]).of(now, asked(SHORTEST, True), dated=True)
    assert renewed.bounds is first.bounds
    others = [one is not other for one, other in zip(first.digests, renewed.digests, strict=True)]
    assert sum(others) == 1


async def test_runs_of_other_entries_are_not_carried_over() -> None:
    """Such as those with the times of the whole tree, for agents that take times for what they say."""
    entries = tuple(file(f"{number:04}") for number in range(100))
    told = TreeRuns()
    dated = await told.dated(entries, 5)
    await told.of(dated, asked(SHORTEST, True), dated=True)
    now = (file("0000", b"new"), *entries[1:])
    again = told.with_others(entries, now, [0])
    renewed = await again.of(await again.dated(now, 6), asked(SHORTEST, True), dated=True)
    assert {entry.mtime_ns for entry in renewed.entries} == {6}
