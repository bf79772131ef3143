"""What is planned for a target, as tables: strategies, local edits, conflicts of kind, guards."""

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.changes import Changes, Policy, Seen, diff
from agent.failures import TaskFailed
from agent.index import directory_entry, file_entry, symlink_entry
from agent.wire.messages import Entry

CONTENTS = st.sampled_from([b"", b"1", b"2"])


def a_file(path: str, content: bytes = b"1", mode: int = 0o644) -> Entry:
    blocks = hashlib.sha256(content).digest() if content else b""
    return file_entry(path, mode=mode, size=len(content), mtime_ns=1, blocks=blocks)


def a_folder(path: str, mode: int = 0o755) -> Entry:
    return directory_entry(path, mode=mode, mtime_ns=1)


def a_link(path: str, link: str = "x") -> Entry:
    return symlink_entry(path, mtime_ns=1, link=link)


def seen(entry: Entry, *, ours: bool = True, edited: bool = False) -> Seen:
    blocks = entry.blocks if entry.kind == "file" else None
    return Seen(
        entry.kind, entry.mode, entry.size, entry.mtime_ns, blocks, entry.link, ours=ours, edited=edited
    )


def plan(index: list[Entry], found: Mapping[str, Seen], *, policy: Policy | None = None) -> Changes:
    ours = {path for path, there in found.items() if there.ours}
    return diff(index, found, policy or Policy(max_delete=1.0), ours=ours)


def test_an_equal_target_needs_nothing() -> None:
    index = [a_folder("a"), a_file("a/b"), a_link("c")]
    assert not plan(index, {entry.path: seen(entry) for entry in index})


def test_a_fresh_target_gets_everything_directories_first() -> None:
    changes = plan([a_folder("a"), a_file("a/b"), a_link("c")], {})
    assert [entry.path for entry in changes.folders] == ["a"]
    assert [write.entry.path for write in changes.writes] == ["a/b"]
    assert [write.entry.path for write in changes.links] == ["c"]


def test_equal_content_that_was_there_before_is_adopted() -> None:
    assert not plan([a_file("a")], {"a": seen(a_file("a"), ours=False)})


def test_a_link_that_has_another_time_is_made_anew() -> None:
    older = symlink_entry("a", mtime_ns=0, link="x")
    changes = plan([a_link("a")], {"a": seen(older)})
    assert [write.entry for write in changes.links] == [a_link("a")]
    assert not plan([a_link("a")], {"a": seen(a_link("a"))})


def test_only_the_mode_differs() -> None:
    index = [a_folder("a", 0o700), a_file("b", mode=0o600)]
    found = {"a": seen(a_folder("a")), "b": seen(a_file("b"))}
    assert [entry.path for entry in plan(index, found).touch] == ["a", "b"]
    assert not plan(index, found, policy=Policy(ignore_permissions=True))


@pytest.mark.parametrize(
    ("strategy", "delete_foreign", "deleted"),
    [
        ("mirror", False, ["ours/x", "ours"]),
        ("mirror", True, ["ours/x", "ours", "foreign"]),
        ("overlay", False, []),
        ("overlay", True, []),
    ],
)
def test_what_each_strategy_deletes(strategy: str, delete_foreign: bool, deleted: list[str]) -> None:
    found = {
        "keep": seen(a_file("keep")),
        "ours": seen(a_folder("ours")),
        "ours/x": seen(a_file("ours/x")),
        "foreign": seen(a_file("foreign"), ours=False),
    }
    policy = Policy(
        strategy="mirror" if strategy == "mirror" else "overlay",
        delete_foreign=delete_foreign,
        max_delete=1.0,
    )
    assert list(plan([a_file("keep")], found, policy=policy).delete) == deleted


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    ("on_local_edit", "written", "backup", "kept"),
    [("overwrite", True, False, False), ("keep", False, False, True), ("backup", True, True, False)],
)
def test_a_changed_file_where_the_tree_has_another(
    ours: bool, on_local_edit: str, written: bool, backup: bool, kept: bool
) -> None:
    policy = Policy(on_local_edit=on_local_edit)  # type: ignore[arg-type]
    changes = plan([a_file("a")], {"a": seen(a_file("a", b"2"), ours=ours, edited=ours)}, policy=policy)
    assert bool(changes.writes) is written
    assert any(write.backup for write in changes.writes) is backup
    assert ("a" in changes.kept) is kept
    assert changes.local_edits == 1


@pytest.mark.parametrize(
    ("on_local_edit", "deleted", "saved"),
    [("overwrite", ["a"], []), ("keep", [], []), ("backup", [], ["a"])],
)
def test_a_changed_file_that_the_tree_dropped(
    on_local_edit: str, deleted: list[str], saved: list[str]
) -> None:
    policy = Policy(on_local_edit=on_local_edit, max_delete=1.0)  # type: ignore[arg-type]
    changes = plan([a_file("b")], {"a": seen(a_file("a"), edited=True)}, policy=policy)
    assert (list(changes.delete), list(changes.save_last)) == (deleted, saved)


def test_a_file_becomes_a_directory_and_back() -> None:
    changes = plan([a_folder("a"), a_file("a/b")], {"a": seen(a_file("a"))})
    assert changes.remove_first == ("a",)
    back = plan([a_file("a")], {"a": seen(a_folder("a")), "a/b": seen(a_file("a/b"))})
    assert back.remove_first == ("a/b", "a")
    assert not back.delete


@pytest.mark.parametrize("inside", [{"ours": False}, {"ours": True, "edited": True}])
def test_a_directory_with_other_peoples_files_is_not_replaced(inside: dict[str, bool]) -> None:
    found = {"a": seen(a_folder("a")), "a/b": seen(a_file("a/b"), **inside)}
    policy = Policy(max_delete=1.0, on_local_edit="backup")
    with pytest.raises(TaskFailed) as caught:
        plan([a_file("a")], found, policy=policy)
    assert caught.value.code == "ForeignFiles"


def test_a_directory_with_ignored_files_is_not_replaced_even_with_delete_foreign() -> None:
    with pytest.raises(TaskFailed, match="ignored"):
        diff(
            [a_file("a")],
            {"a": seen(a_folder("a"))},
            Policy(delete_foreign=True, max_delete=1.0),
            ours={"a"},
            ignored={"a/secret"},
        )


def test_an_overlay_never_empties_a_directory() -> None:
    found = {"a": seen(a_folder("a")), "a/b": seen(a_file("a/b"))}
    with pytest.raises(TaskFailed, match="a/b"):
        plan([a_file("a")], found, policy=Policy(strategy="overlay", max_delete=1.0))


def test_a_kept_edit_where_a_directory_must_be_stops_the_task() -> None:
    with pytest.raises(TaskFailed) as caught:
        plan([a_folder("a")], {"a": seen(a_link("a"), edited=True)}, policy=Policy(on_local_edit="keep"))
    assert caught.value.code == "LocalEditInTheWay"
    saved = plan([a_folder("a")], {"a": seen(a_link("a"), ours=False)}, policy=Policy(on_local_edit="backup"))
    assert saved.save_first == ("a",)


def test_an_empty_tree_needs_leave() -> None:
    with pytest.raises(TaskFailed) as caught:
        plan([], {"a": seen(a_file("a"))})
    assert caught.value.code == "EmptyTree"
    allowed = plan([], {"a": seen(a_file("a"))}, policy=Policy(allow_empty=True, max_delete=1.0))
    assert allowed.delete == ("a",)


@pytest.mark.parametrize(("max_delete", "refused"), [(0.0, True), (0.49, True), (0.5, False), (1.0, False)])
def test_too_many_deletions(max_delete: float, refused: bool) -> None:
    found = {path: seen(a_file(path)) for path in "abcdefgh"}
    index = [a_file(path) for path in "abcd"]
    policy = Policy(max_delete=max_delete)
    if not refused:
        assert len(plan(index, found, policy=policy).delete) == 4
        return
    with pytest.raises(TaskFailed) as caught:
        plan(index, found, policy=policy)
    assert caught.value.code == "TooManyDeletions"


def test_the_only_file_may_be_renamed() -> None:
    alone = plan([a_file("new")], {"old": seen(a_file("old"))}, policy=Policy(max_delete=0.5))
    assert alone.delete == ("old",)
    found = {"d": seen(a_folder("d")), "d/old": seen(a_file("d/old"))}
    assert plan([a_file("new")], found, policy=Policy(max_delete=0.01)).delete == ("d/old", "d")
    with pytest.raises(TaskFailed) as caught:
        plan([a_file("new")], {"old": seen(a_file("old"))}, policy=Policy(max_delete=0.0))
    assert caught.value.code == "TooManyDeletions"
    found["d/other"] = seen(a_file("d/other"))
    with pytest.raises(TaskFailed):
        plan([a_file("new")], found, policy=Policy(max_delete=0.5))


def of_others(count: int) -> dict[str, Seen]:
    return {f"other-{number}": seen(a_file(f"other-{number}"), ours=False) for number in range(count)}


@pytest.mark.parametrize(("max_delete", "refused"), [(0.0, True), (0.98, True), (0.99, False), (1.0, False)])
def test_what_others_put_there_is_counted_before_it_is_deleted(max_delete: float, refused: bool) -> None:
    policy = Policy(delete_foreign=True, max_delete=max_delete)
    found = of_others(198) | {"a": seen(a_file("a")), "b": seen(a_file("b"))}
    if not refused:
        assert len(plan([a_file("a"), a_file("b")], found, policy=policy).delete) == 198
        return
    with pytest.raises(TaskFailed) as caught:
        plan([a_file("a"), a_file("b")], found, policy=policy)
    assert caught.value.code == "TooManyDeletions"
    assert str(caught.value).startswith("198 of 200 entries there would be deleted, 198 of them foreign")


def test_at_first_contact_a_full_directory_is_not_emptied() -> None:
    for share in (0.0, 0.5):
        with pytest.raises(TaskFailed, match=r"200 of 200 entries there .* 200 of them foreign"):
            plan([a_file("a")], of_others(200), policy=Policy(delete_foreign=True, max_delete=share))
    # A stray file or two beside a small tree are healed as ever, and what the tree has counts as there.
    policy = Policy(delete_foreign=True, max_delete=0.5)
    assert len(plan([a_file("a")], of_others(2), policy=policy).delete) == 2
    index = [a_file(f"other-{number}") for number in range(100)]
    assert len(plan(index, of_others(200), policy=policy).delete) == 100


def test_what_others_put_there_does_not_thin_out_what_is_ours() -> None:
    """However much of others is there, and stays as the tree has it too."""
    ours = {path: seen(a_file(path)) for path in "abcdefgh"}
    index = [a_file(f"other-{number}") for number in range(100)]
    for delete_foreign in (False, True):
        policy = Policy(delete_foreign=delete_foreign, max_delete=0.5)
        with pytest.raises(TaskFailed, match="8 of 8 placed entries would be deleted"):
            plan(index, of_others(100) | ours, policy=policy)


def test_what_must_stay_does_not_count_as_there() -> None:
    found = of_others(4) | {f"d{number}": seen(a_folder(f"d{number}"), ours=False) for number in range(10)}
    protected = [path for path in found if path.startswith("d")]
    with pytest.raises(TaskFailed, match="4 of 4 entries there"):
        diff(
            [a_file("a")],
            found,
            Policy(delete_foreign=True, max_delete=0.5),
            ours=set(),
            protected=protected,
        )


# --- apply(diff(a, b)) == b ----------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    names = st.sampled_from(["a", "b", "c"])
    paths = draw(st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=8))
    entries: dict[str, Entry] = {}
    for path in sorted(set(paths)):
        above = path.rpartition("/")[0]
        if above and (above not in entries or entries[above].kind != "directory"):
            continue
        kind = draw(st.sampled_from(["file", "directory", "directory", "symlink"]))
        if kind == "file":
            entries[path] = a_file(path, draw(CONTENTS), draw(st.sampled_from([0o644, 0o755])))
        elif kind == "directory":
            entries[path] = a_folder(path)
        else:
            entries[path] = a_link(path, draw(st.sampled_from(["x", "y"])))
    return [entries[path] for path in sorted(entries)]


def apply(tree: list[Entry], changes: Changes) -> list[Entry]:
    """What a file system would make of it; fails as one would."""
    now = {entry.path: entry for entry in tree}

    def remove(path: str) -> None:
        assert not any(other.startswith(f"{path}/") for other in now), f"{path} is not empty"
        del now[path]

    def place(entry: Entry) -> None:
        above = entry.path.rpartition("/")[0]
        assert not above or now[above].kind == "directory"
        there = now.get(entry.path)
        assert there is None or "directory" not in (there.kind, entry.kind)
        now[entry.path] = entry

    for path in changes.remove_first:
        remove(path)
    for entry in changes.folders:
        place(entry)
    for write in changes.writes + changes.links:
        place(write.entry)
    for entry in changes.touch:
        now[entry.path] = entry
    for path in changes.delete:
        remove(path)
    return [now[path] for path in sorted(now)]


@given(trees(), trees())
def test_applying_a_diff_gives_the_tree(before: list[Entry], after: list[Entry]) -> None:
    found = {entry.path: seen(entry) for entry in before}
    policy = Policy(max_delete=1.0, allow_empty=True)
    changes = plan(after, found, policy=policy)
    result = apply(before, changes)
    assert result == after
    assert not plan(after, {entry.path: seen(entry) for entry in result}, policy=policy)
