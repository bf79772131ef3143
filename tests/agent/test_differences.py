"""An index of which most is not sent, nor decoded: it is taken or refused as if all of it were looked at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.differences import DifferenceCheck, NamesIn, differences
from agent.errors import PathRefused, RemoteProtocolError
from agent.failures import TaskFailed
from agent.index import directory_entry, parent_of, symlink_entry, tree_digest
from agent.index_check import Bounds, IndexCheck
from agent.manifest import manifest_path
from agent.runs import Known, compare_runs, runs_of
from agent.wire.messages import Entry
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.agent.test_ledger import ledger, ledger_of, many, wreck, wrecked
from tests.agent.test_runs import file, indexes

# --- as part of an index ---------------------------------------------------------------------------


BOUNDS = Bounds(entries=0, total_bytes=0, max_entries=10_000, max_file_size=10, max_total_size=10_000)


def taken(check: IndexCheck, sent: list[Entry], tree: bytes) -> str:
    """What an index comes to with what is sent of it."""
    check.add(sent)
    check.finish(tree, ignore_permissions=False)
    return "taken"


def names_of(entries: list[Entry], *, foreign: tuple[str, ...] = ()) -> NamesIn:
    """All that lies in a directory of a target that has these, and something else in its root."""
    folders = {"", *(entry.path for entry in entries if entry.kind == "directory")}
    paths = [*(entry.path for entry in entries), *foreign]

    def names(folder: str) -> list[str] | None:
        return (
            [path.rpartition("/")[2] for path in paths if parent_of(path) == folder]
            if folder in folders
            else None
        )

    return names


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Entry], frozenset[int], list[Entry], Bounds]:
    """What an agent has, and what somebody answers who need not be honest: which runs of it are in the index,
    and what else is."""
    known = draw(indexes())
    for number in sorted(draw(st.sets(st.integers(0, 60), max_size=40))):
        known.append(file(f"~{number:02}"))
    runs = len(ledger(known).runs)
    kept = frozenset(draw(st.sets(st.integers(0, runs - 1)))) if runs else frozenset()
    rest = [
        each.entry
        for number in range(runs)
        if number not in kept
        for each in ledger(known).listed_in(number)
        if draw(st.booleans())
    ]
    others = draw(
        st.lists(st.sampled_from([*draw(indexes()), *known, file("A"), file("~05", b"22")]), max_size=4)
    )
    sent = {entry.path: entry for entry in [*rest, *others]}
    entries = sorted(sent.values(), key=lambda entry: entry.path)
    index = [*entries, *(each.entry for number in kept for each in ledger(known).listed_in(number))]
    bounds = Bounds(
        entries=len(index) + draw(st.sampled_from([0, 0, 0, 1, -1])),
        total_bytes=sum(entry.size for entry in index) + draw(st.sampled_from([0, 0, 0, 1, -1])),
        max_entries=1000,
        max_file_size=draw(st.sampled_from([100, 100, 1])),
        max_total_size=1000,
        reserved=draw(st.sampled_from([(), (), ("a",), ("b/c",), ("~07",)])),
    )
    return known, kept, entries, bounds


@given(answers(), st.booleans())
def test_an_index_is_taken_or_refused_as_if_all_of_it_were_known(
    answer: tuple[list[Entry], frozenset[int], list[Entry], Bounds], has_foreign: bool
) -> None:
    known, kept, sent, bounds = answer
    entries = [each.entry for number in sorted(kept) for each in ledger(known).listed_in(number)]
    tree = tree_digest([*entries, *sent], ignore_permissions=False)
    foreign = ("A", "b", "~5") if has_foreign else ()
    outcomes: list[str] = []
    check: IndexCheck | None = None
    makers: list[Callable[[], IndexCheck]] = [
        lambda: IndexCheck(known=entries, **bounds),
        lambda: DifferenceCheck(ledger(known), kept, names_of(known, foreign=foreign), **bounds),
    ]
    for make in makers:
        try:
            check = make()
            outcomes.append(taken(check, sent, tree))
        except (PathRefused, RemoteProtocolError) as error:
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]
    if outcomes == ["taken", "taken"]:
        assert isinstance(check, DifferenceCheck)
        assert check.found is not None
        assert [each.entry for each in check.found.whole] == sorted(
            [*entries, *sent], key=lambda each: each.path
        )


WRONG = {
    "an entry twice": ([file("0001")], {}),
    "below a file": ([file("0001/new")], {}),
    "below nothing": ([file("none/new")], {}),
    "a name that would be one": ([file("FOLDER", b"1")], {}),
    "what is reserved": ([], {"reserved": ("0002",)}),
    "above what is reserved": ([], {"reserved": ("0002/rendered",)}),
    "larger than allowed": ([], {"max_file_size": 0}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_entries_that_are_not_sent_is_found(what: str) -> None:
    known = [*many(*range(300)), directory_entry("folder", mode=0o755, mtime_ns=0), file("folder/a")]
    sent, changes = WRONG[what]
    kept = ledger(known)
    total = sum(entry.size for entry in (*known, *sent))
    bounds = {**BOUNDS, "entries": len(known) + len(sent), "total_bytes": total, **cast(Any, changes)}
    with pytest.raises((PathRefused, RemoteProtocolError)):
        check = DifferenceCheck(kept, frozenset(range(len(kept.runs))), names_of(known), **cast(Any, bounds))
        taken(check, list(sent), tree_digest([*known, *sent], ignore_permissions=False))


def all_kept(known: list[Entry], names_in: NamesIn | None = None) -> DifferenceCheck:
    """A check of an index that has all of these, to which one entry is to come that has no bytes."""
    kept = ledger(known)
    total = sum(entry.size for entry in known)
    bounds = cast(Any, {**BOUNDS, "entries": len(known) + 1, "total_bytes": total})
    return DifferenceCheck(kept, frozenset(range(len(kept.runs))), names_in or names_of(known), **bounds)


@pytest.mark.parametrize("above", ["", "folder/"])
def test_where_nobody_knows_what_lies_beside_it_all_names_are_compared(above: str) -> None:
    known = [*many(*range(300)), directory_entry("folder", mode=0o755, mtime_ns=0)]
    known += [symlink_entry(f"{above}name", mtime_ns=0, link="x")]
    sent = [symlink_entry(f"{above}NAME", mtime_ns=0, link="x")]
    tree = tree_digest([*known, *sent], ignore_permissions=False)
    with pytest.raises(PathRefused, match="differ only in case"):
        taken(all_kept(known, lambda _: None), sent, tree)


@pytest.mark.parametrize(("modes", "times"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("what", ["mode", "mtime_ns"])
def test_modes_and_times_differ_where_they_count(what: str, modes: bool, times: bool) -> None:
    known = many(1, 2)
    wanted = [msgspec.structs.replace(known[0], **{what: 0o600}), known[1]]
    found = differences(ledger(known, modes=modes, times=times), (), wanted)
    counts = modes if what == "mode" else times
    assert list(found.entries.values()) == (wanted[:1] if counts else [])
    assert [placed.entry for placed in found.whole] == (wanted if counts else known)


def test_an_index_of_another_tree_is_refused() -> None:
    known, sent = many(*range(300)), directory_entry("folder", mode=0o755, mtime_ns=0)
    tree = tree_digest([*known, sent], ignore_permissions=False)
    assert taken(all_kept(known), [sent], tree) == "taken"
    for other, ignore_permissions in (
        (tree_digest(known, ignore_permissions=False), False),
        (tree_digest([*known, sent], ignore_permissions=True), True),
        (tree, True),  # it is not the digest that was asked for
    ):
        check = all_kept(known)
        check.add([sent])
        with pytest.raises(RemoteProtocolError, match="not of the tree that the task names"):
            check.finish(other, ignore_permissions=ignore_permissions)
        assert check.found is None


def test_paths_and_links_that_are_not_sent_count() -> None:
    known = [symlink_entry(f"{number:04}", mtime_ns=0, link="x" * 4000) for number in range(300)]
    with pytest.raises(RemoteProtocolError, match="too long"):
        all_kept(known).add([directory_entry("folder", mode=0o755, mtime_ns=0)])


@pytest.mark.parametrize("instead", [(), (symlink_entry("0", mtime_ns=0, link="x"),)], ids=["gone", "a link"])
def test_a_directory_goes_with_all_that_is_in_it_or_not_at_all(instead: tuple[Entry, ...]) -> None:
    known = [directory_entry("0", mode=0o755, mtime_ns=0)]
    known += [file(f"0/{number:04}") for number in range(300)]
    kept = ledger(known)
    rest = frozenset(range(1, len(kept.runs)))
    index = [*instead, *(each.entry for number in rest for each in kept.listed_in(number))]
    bounds = {**BOUNDS, "entries": len(index), "total_bytes": sum(entry.size for entry in index)}
    check = DifferenceCheck(kept, rest, names_of(known), **cast(Any, bounds))
    with pytest.raises(PathRefused, match="below '0', which is no directory"):
        taken(check, list(instead), tree_digest(index, ignore_permissions=False))


async def test_what_is_equal_is_not_even_decoded() -> None:
    """Of a thousand entries one changes, some come and one goes: all other runs could be anything."""
    known = many(*range(0, 2000, 2))
    before = ledger(known)
    wanted = [*many(*range(0, 1000, 2)), *many(1001), *many(*range(1002, 2000, 2))]
    wanted[3] = file("0006", b"new")
    wanted += [directory_entry("new", mode=0o755, mtime_ns=0), file("new/file")]
    same, sent = compare_runs(before.told(), runs_of(wanted, before.length))
    kept = before.named_by(same)
    assert len(kept) > len(before.runs) - 8
    blind = wrecked(before, lambda number: number in kept)
    total = sum(entry.size for entry in wanted)
    bounds = {**BOUNDS, "entries": len(wanted), "total_bytes": total}
    check = DifferenceCheck(blind, kept, names_of(known), **cast(Any, bounds))
    taken(check, sent, tree_digest(wanted, ignore_permissions=False))
    found = check.found
    assert found is not None
    assert (set(found.entries), set(found.goes)) == ({"0006", "1001", "new", "new/file"}, {"1000"})
    assert found.whole.told() == Known(wanted).told
    assert len(bytes(found.whole.encoded())) > 0


# --- in a task -------------------------------------------------------------------------------------


async def test_a_task_decodes_of_its_record_what_it_has_to_do_with(tmp_path: Path) -> None:
    """It ends well where all else of the record is unreadable; what it notes of that is as it was."""
    host = Host(tmp_path / "host")
    tree = {f"{number % 5}/{number:04}": b"%d" % number for number in range(1500)}
    source = write_tree(tmp_path / "source", tree)
    await synchronise(source, host)
    path = manifest_path(host.state, str(host.target))
    for content in (b"first", b"second"):
        (source / "3/0003").write_bytes(content)
        assert (await synchronise(source, host)).state == "SUCCESS"
    concerned = {"3", "3/0003"}
    before = ledger_of(path)
    numbers = {before.number_of(each) for each in concerned}
    sent = [each.entry.path for number in numbers for each in before.listed_in(number)]
    numbers.update(before.number_of(parent_of(each)) for each in sent if parent_of(each))
    assert len(numbers) < len(before.runs) / 20
    wreck(path, lambda number: number not in numbers)
    (source / "3/0003").write_bytes(b"third")
    outcome = await synchronise(source, host)
    assert (outcome.state, outcome.report.files_written) == ("SUCCESS", 1)
    assert read_tree(host.target) == read_tree(source)
    after = ledger_of(path)
    assert [run for number, run in enumerate(after.runs) if number not in numbers] == [
        run for number, run in enumerate(before.runs) if number not in numbers
    ]
    with pytest.raises(TaskFailed, match="damaged"):
        list(after)
