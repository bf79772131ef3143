"""What a manifest lists, by runs: the same comes out as if all were decoded, and what is equal is not."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checked import read_checked, write_checked
from agent.errors import RemoteProtocolError
from agent.failures import TaskFailed
from agent.glance import Glance
from agent.index import tree_digest
from agent.ledger import Ledger
from agent.ledger_file import load_with_ledger, save_ledger
from agent.manifest import (
    Manifest,
    Placed,
    Stamp,
    ledger_path,
    load,
    look_path,
    manifest_path,
    save,
    state_of,
    with_rendered,
)
from agent.runs import MAX_RUNS, Known, bitmap_size, check_known
from agent.wire.messages import Entry
from tests.agent.test_runs import NAMES, file, indexes

GLANCE = Glance(("",), (), b"d" * 32)


def placed(entries: list[Entry]) -> list[Placed]:
    return [
        Placed(each, Stamp(1, 2, each.size, each.mtime_ns, number) if each.kind == "file" else None)
        for number, each in enumerate(entries)
    ]


def ledger(entries: list[Entry], *, modes: bool = True, times: bool = True) -> Ledger:
    return Ledger.of(placed(entries), modes=modes, times=times)


def many(*numbers: int, content: bytes = b"x") -> list[Entry]:
    """Files of one directory, enough of them for several runs."""
    return [file(f"{number:04}", content) for number in numbers]


NUMBERS = st.sets(st.integers(0, 400), max_size=150)


def says(one: Ledger) -> tuple[object, ...]:
    """All that there is to a ledger."""
    return list(one.runs), bytes(one.encoded()), one.length, one.modes, one.times, one.late, len(one)


# --- as a listing ----------------------------------------------------------------------------------


@given(indexes(), st.booleans(), st.booleans())
def test_it_has_what_the_manifest_lists(entries: list[Entry], modes: bool, times: bool) -> None:
    listed = placed(entries)
    kept = Ledger.of(reversed(listed), modes=modes, times=times)
    assert (list(kept), len(kept)) == (listed, len(listed))
    assert kept.encoded() == msgspec.Raw(msgspec.msgpack.encode(listed))
    assert kept.tree() == tree_digest(entries, ignore_permissions=not modes)
    assert kept.told() == Known(entries, modes=modes, times=times).told
    assert kept.files == sum(entry.kind == "file" for entry in entries)
    for number, each in enumerate(listed):
        assert each in kept
        assert (kept.at(each.entry.path), kept.ordinal(each.entry.path)) == (each, number)
        assert Placed(each.entry, None, True) not in kept
    assert kept.at("no such path") is kept.at("~") is None


@given(NUMBERS, NUMBERS, NUMBERS, st.booleans())
def test_changes_come_to_the_same_as_a_ledger_made_anew(
    before: set[int], goes: set[int], comes: set[int], has_times: bool
) -> None:
    """In the middle of runs, at their ends, where several go, and over whatever was there before."""
    first = Ledger.of(placed(many(*before)), modes=True, times=has_times)
    changes: dict[str, Placed | None] = {f"{number:04}": None for number in goes & before}
    changes.update((each.path, Placed(each)) for each in many(*comes, content=b"new"))
    assert says(first.spliced(changes)) == says(anew(first, changes))
    assert says(first) == says(Ledger.of(placed(many(*before)), modes=True, times=has_times))


def anew(before: Ledger, changes: dict[str, Placed | None]) -> Ledger:
    """What `spliced` has to come to."""
    wanted = {each.entry.path: each for each in before} | changes
    listed = [each for each in wanted.values() if each is not None]
    return Ledger.of(listed, modes=before.modes, times=before.times)


@pytest.mark.parametrize("before", [0, 1, 2], ids=["none", "the last", "all"])
@pytest.mark.parametrize("here", [1, 2, 99], ids=["the first", "two", "all"])
def test_a_run_whose_first_entry_goes_is_part_of_the_one_before(here: int, before: int) -> None:
    """Whatever goes of that as well."""
    first = ledger(many(*range(400)))
    assert len(first.runs) > 10
    for number in range(1, len(first.runs)):
        goes = first.listed_in(number)[:here]
        goes += first.listed_in(number - 1)[-1 if before == 1 else 0 :] if before else []
        changes: dict[str, Placed | None] = dict.fromkeys(each.entry.path for each in goes)
        assert says(first.spliced(changes)) == says(anew(first, changes))


@given(indexes(), st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.sets(st.integers(0, 5)))
def test_it_knows_what_is_below_a_directory(entries: list[Entry], folder: str, numbers: set[int]) -> None:
    kept = ledger(entries)
    there = [
        each.entry.path for number in numbers if number < len(kept.runs) for each in kept.listed_in(number)
    ]
    assert kept.below(folder, numbers) is any(path.startswith(f"{folder}/") for path in there)


def test_no_more_runs_are_told_of_than_a_primary_takes() -> None:
    one = ledger(many(1))
    runs = [*one.runs] * (MAX_RUNS + 9)
    kept = Ledger(runs, [bytes(one.encoded())[1:]] * len(runs), length=one.length, modes=True, times=True)
    check_known(kept.told())
    whole = bitmap_size(MAX_RUNS)
    assert kept.named_by(b"\xff" * whole) == frozenset(range(MAX_RUNS))
    with pytest.raises(RemoteProtocolError, match="nobody told of"):
        kept.named_by(bytes(whole + 1))


@pytest.mark.parametrize("wanted", [1, 16, 17, 300])
def test_files_are_found_by_their_blocks(wanted: int) -> None:
    entries = [file(f"{number:04}", b"%d" % number) for number in range(400)]
    blocks = {entry.blocks for entry in entries[:wanted]}
    found = [each.entry for each in ledger(entries).holding(blocks)]
    assert {entry.blocks for entry in found}.issuperset(blocks)
    assert list(ledger(entries).holding([b"?" * 32])) == []


def test_what_is_rendered_is_told_from_what_is_listed() -> None:
    listed = many(1, 2)
    for each in (placed(listed), ledger(listed)):
        bare = Manifest(project="web", target="/srv/app", root=(1, 2, 3), placed=each)
        manifest = with_rendered(bare, None, rendered=["0001", "p"], above=["0002", "q"], made=False)
        assert (manifest.rendered, manifest.above_rendered) == (("p",), ("q",))


# --- kept in a file --------------------------------------------------------------------------------


@dataclass
class Record:
    """A manifest and its ledger in files."""

    path: Path
    listed: list[Placed]
    late: frozenset[str] = frozenset()

    def load(self, *, modes: bool = True, times: bool = True, glance: Glance = GLANCE) -> tuple[Ledger, bool]:
        """The ledger that comes back, and whether it was asked what is late."""
        asked: list[list[Placed]] = []

        def late(manifest: Manifest) -> frozenset[str]:
            asked.append(list(manifest.placed))
            return frozenset({"late"})

        manifest = load_with_ledger(self.path, glance, modes=modes, times=times, late=late)
        assert manifest is not None
        assert (manifest.project, manifest.tree, manifest.after) == ("web", b"t" * 32, ("restart",))
        assert asked in ([], [self.listed])
        kept = cast(Ledger, manifest.placed)
        assert list(kept) == self.listed
        return kept, bool(asked)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    path = manifest_path(tmp_path, "/srv/app")
    listed = placed(many(*range(300)))
    noted = Manifest(
        project="web", target="/srv/app", root=(1, 2, 3), placed=listed, tree=b"t" * 32, after=("restart",)
    )
    save(path, noted, durable=False)
    save_ledger(path, Ledger.of(listed, modes=True, times=True, late=frozenset({"0007"})), GLANCE)
    return Record(path, listed)


def test_what_was_kept_comes_back(record: Record) -> None:
    kept, asked = record.load()
    assert (kept.late, asked) == (frozenset({"0007"}), False)
    assert says(kept) == says(Ledger.of(record.listed, modes=True, times=True, late=kept.late))


def test_a_manifest_that_lists_a_ledger_is_any_manifest(record: Record) -> None:
    kept, _ = record.load()
    manifest = load(record.path)
    assert manifest is not None
    save(record.path, msgspec.structs.replace(manifest, placed=kept), durable=True)
    assert load(record.path) == manifest


def test_what_is_late_is_known_of_one_glance(record: Record) -> None:
    kept, asked = record.load(glance=Glance(("",), (), b"e" * 32))
    assert (kept.late, asked) == (frozenset({"late"}), True)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _say_nothing(path: Path) -> None:
    write_checked(path, msgspec.msgpack.encode(["another version"]))


@pytest.mark.parametrize("harm", [Path.unlink, _truncate, _flip, _say_nothing])
def test_one_that_is_no_use_is_made_anew(record: Record, harm: Callable[[Path], None]) -> None:
    harm(ledger_path(record.path))
    kept, asked = record.load()
    assert (kept.late, asked) == (frozenset({"late"}), True)


@pytest.mark.parametrize(("modes", "times"), [(False, True), (True, False), (False, False)])
def test_one_for_other_questions_is_made_anew(record: Record, modes: bool, times: bool) -> None:
    kept, asked = record.load(modes=modes, times=times)
    assert (kept.modes, kept.times, asked) == (modes, times, True)


def test_one_of_another_manifest_is_made_anew(record: Record) -> None:
    manifest = load(record.path)
    kept = read_checked(ledger_path(record.path))
    assert manifest is not None
    assert kept is not None
    record.listed = placed(many(*range(300), content=b"y"))
    save(record.path, msgspec.structs.replace(manifest, placed=record.listed), durable=False)
    write_checked(ledger_path(record.path), bytes(kept))
    assert record.load()[1]


@pytest.mark.parametrize("number", [1, 8], ids=["entries", "bytes"])
def test_one_of_another_number_is_made_anew(record: Record, number: int) -> None:
    kept = read_checked(ledger_path(record.path))
    assert kept is not None
    fields = msgspec.msgpack.decode(kept)
    fields[7][0][number] += 1
    write_checked(ledger_path(record.path), msgspec.msgpack.encode(fields))
    assert record.load()[1]


def test_one_is_kept_only_if_it_helps(record: Record) -> None:
    """Not with runs of another length than are told of so many entries, nor where most would be looked at."""
    kept, _ = record.load()
    other_length = Ledger([], [], length=2 * kept.length, modes=True, times=True)
    for each in (other_length, kept.with_late(frozenset(map(str, range(10_001))))):
        ledger_path(record.path).unlink(missing_ok=True)
        save_ledger(record.path, each, GLANCE)
        assert not ledger_path(record.path).exists()
    save_ledger(record.path, kept, GLANCE)
    assert ledger_path(record.path).exists()


def test_nothing_is_left_beside_a_manifest_that_is_replaced(record: Record) -> None:
    """The next but one may pass for it: it may have its inode, and within a tick its times."""
    manifest = load(record.path)
    assert manifest is not None
    look_path(record.path).write_bytes(b"what was seen")
    save(record.path, manifest, durable=False)
    assert not ledger_path(record.path).exists()
    assert not look_path(record.path).exists()


def test_a_list_that_is_damaged_is_told_of_where_it_lies(record: Record) -> None:
    wreck(record.path, lambda run: run != 0)
    manifest = load_with_ledger(record.path, GLANCE, modes=True, times=True, late=lambda _: frozenset())
    assert manifest is not None
    assert next(iter(manifest.placed)) == record.listed[0]
    with pytest.raises(TaskFailed, match=f"damaged.*{record.path}"):
        list(manifest.placed)


def test_a_list_that_is_damaged_makes_no_ledger(record: Record) -> None:
    wreck(record.path, lambda run: run == 1)
    with pytest.raises(TaskFailed, match=f"damaged.*{record.path}"):
        record.load(modes=False)


def test_no_record_has_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "none.manifest"
    assert load_with_ledger(path, GLANCE, modes=True, times=True, late=lambda _: frozenset()) is None


def wreck(record: Path, which: Callable[[int], bool]) -> None:
    """Makes the entries of runs unreadable, in a record that is else in order, as is what is beside it."""
    manifest = load_with_ledger(record, GLANCE, modes=True, times=True, late=lambda _: frozenset())
    assert manifest is not None
    kept = cast(Ledger, manifest.placed)
    beside = [(path, read_checked(path)) for path in (look_path(record), ledger_path(record))]
    save(record, msgspec.structs.replace(manifest, placed=wrecked(kept, which)), durable=False)
    for path, content in beside:
        if content is not None:
            fields = msgspec.msgpack.decode(content)
            fields[1] = state_of(record)
            write_checked(path, msgspec.msgpack.encode(fields))


def wrecked(kept: Ledger, which: Callable[[int], bool]) -> Ledger:
    """As many bytes, and in each place of an entry some text."""
    listed = [
        _text(run.count, run.size)
        if which(number)
        else msgspec.msgpack.encode(kept.listed_in(number))[-run.size :]
        for number, run in enumerate(kept.runs)
    ]
    given = {"length": kept.length, "modes": kept.modes, "times": kept.times, "late": kept.late}
    return Ledger(kept.runs, listed, **cast(Any, given))


def _text(items: int, size: int) -> bytes:
    length = size - items - 2
    return b"\xa0" * (items - 1) + b"\xda" + length.to_bytes(2, "big") + b"x" * length


def ledger_of(record: Path) -> Ledger:
    manifest = load_with_ledger(record, GLANCE, modes=True, times=True, late=lambda _: frozenset())
    assert manifest is not None
    return cast(Ledger, manifest.placed)
