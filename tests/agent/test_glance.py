"""What a glance may be believed: a target that is as it was, and nothing else."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.glance import MAX_EXTRAS, Glance, changed_since, glance_of, rows_of, still
from agent.ignore import Ignore
from agent.manifest import manifest_path
from agent.record import wait_for_clock
from agent.scan import scan
from agent.wire.messages import RenderedContent
from tests.agent.syncing import AFTER, BEFORE, Host, observe, recalled, synchronise, write_tree

LATER = 2**62
TREE = {"a/b/one": b"1", "a/two": b"22", "a/link": "two", "a/none": None, "three": b"333", "x.log": b"log"}


@contextmanager
def opened(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def glance_at(root: Path, *, ignore: tuple[str, ...] = (), read_at: int = LATER) -> Glance | None:
    with opened(root) as fd:
        result = scan(fd, Ignore(ignore))
    folders = [path for path, there in result.found.items() if there.kind == "directory"]
    extras = {path: path in result.ignored_folders for path in result.ignored}
    return glance_of(result.found, folders, extras, read_at)


def seen_again(root: Path, glance: Glance | None) -> bool:
    assert glance is not None
    with opened(root) as fd:
        return still(fd, glance)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "a/two").write_bytes(b"33"),
    "mode": lambda root: (root / "a/two").chmod(0o600),
    "mode of a directory": lambda root: (root / "a/none").chmod(0o700),
    "a new file": lambda root: (root / "a/b/new").write_bytes(b""),
    "a new directory": lambda root: (root / "a/none/new").mkdir(),
    "a file gone": lambda root: (root / "a/b/one").unlink(),
    "a directory gone": lambda root: shutil.rmtree(root / "a/b"),
    "a name changed": lambda root: (root / "three").rename(root / "four"),
    "two swapped": lambda root: swap(root / "a/two", root / "three"),
    "a link for a file": lambda root: relink(root / "three", "a/two"),
    "another link": lambda root: relink(root / "a/link", "b/one"),
    "a directory behind a link": lambda root: hide(root / "a/b"),
    "an ignored file gone": lambda root: (root / "x.log").unlink(),
    "an ignored file made a directory": lambda root: remake(root / "x.log"),
}


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def relink(path: Path, to: str) -> None:
    path.unlink()
    path.symlink_to(to)


def hide(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def remake(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_no_change_escapes_a_glance(tmp_path: Path, change: str) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    await wait_for_clock()  # a kernel before 6.13 tells no two times within a tick apart
    glance = glance_at(root, ignore=("*.log",))
    assert seen_again(root, glance)
    CHANGES[change](root)
    assert not seen_again(root, glance)


def test_what_is_ignored_may_change(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    glance = glance_at(root, ignore=("*.log",))
    (root / "x.log").write_bytes(b"more and more")
    assert seen_again(root, glance)


def test_a_name_that_is_no_text_is_looked_at_as_well(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", TREE)
    odd = root / os.fsdecode(b"\xff")
    odd.write_bytes(b"")
    glance = glance_at(root)
    assert seen_again(root, glance)
    os.truncate(odd, 5)
    assert not seen_again(root, glance)


def test_what_cannot_be_looked_at_is_left_to_a_close_look(tmp_path: Path) -> None:
    """Which need not look at what is ignored: it may be a mount of a host that is away."""
    root = write_tree(tmp_path / "tree", {"a/x.log": b"ignored", "three": b"333"})
    (root / "a").chmod(0o644)  # it may be listed, and nothing in it may be looked at
    glance, user = glance_at(root, ignore=("*.log",)), os.geteuid()
    assert glance is not None
    with opened(root) as fd:
        found = scan(fd, Ignore(("*.log",))).found
        rows = rows_of(found, ["a"], {"a/x.log": False}, LATER, owned=True)
        assert rows is not None
        try:
            if user == 0:
                os.seteuid(65534)  # root looks at everything
            assert set(scan(fd, Ignore(("*.log",))).found) == {"a", "three"}
            assert not still(fd, glance)
            assert changed_since(fd, rows, ["a/x.log"]) is None
        finally:
            os.seteuid(user)


def test_a_change_that_might_not_show_is_not_left_to_a_glance(tmp_path: Path) -> None:
    """One made within the tick of the clock in which the look began, or after the clock was set back."""
    root = write_tree(tmp_path / "tree", TREE)
    newest = max(path.lstat().st_ctime_ns for path in root.rglob("*"))
    assert glance_at(root, read_at=newest) is None
    assert glance_at(root, read_at=newest - 3600 * 10**9) is None
    assert glance_at(root, read_at=newest + 3 * 10**9) is not None


def test_a_file_system_with_whole_seconds_is_given_two_of_them(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", {"one": b""})
    with opened(root) as fd:
        found = dict(scan(fd, Ignore(())).found)
    coarse = {path: msgspec.structs.replace(there, ctime_ns=10**18) for path, there in found.items()}
    assert glance_of(coarse, (), {}, 10**18 + 10**9) is None
    assert glance_of(coarse, (), {}, 10**18 + 3 * 10**9) is not None


def test_very_many_foreign_files_are_not_kept() -> None:
    assert glance_of({}, (), {str(number): False for number in range(MAX_EXTRAS + 1)}, LATER) is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.sampled_from(["a", "b", "c/d", "c/e", "c/f/g", "h/i"]), min_size=1),
    ignored=st.sampled_from([(), ("c/",), ("b",), ("c/f/",)]),
)
def test_a_glance_fits_the_scan_that_it_was_made_of(
    tmp_path: Path, names: set[str], ignored: tuple[str, ...]
) -> None:
    shutil.rmtree(tmp_path / "tree", ignore_errors=True)
    root = write_tree(tmp_path / "tree", dict.fromkeys(sorted(names), b"x"))
    assert seen_again(root, glance_at(root, ignore=ignored))


# --- whole tasks -----------------------------------------------------------------------------------


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    """A target in order that was looked at closely since."""
    host = Host(tmp_path / "host")
    await synchronise(write_tree(tmp_path / "source", TREE), host)
    await observe(host)
    return host


async def test_what_a_task_leaves_is_known_at_a_glance(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    secret = RenderedContent(path="fresh/secret", content=b"rendered")
    await synchronise(write_tree(tmp_path / "before", BEFORE), host)
    assert await recalled(host)
    (host.target / "foreign").write_bytes(b"not ours")
    (host.target / "gone/foreign").write_bytes(b"not ours, and keeps its directory")
    source = write_tree(tmp_path / "after", AFTER)
    await synchronise(source, host, rendered=[secret])
    assert await recalled(host, rendered=(secret,))
    at_a_glance = await observe(host, rendered=(secret,))
    manifest_path(host.state, str(host.target)).with_suffix(".look").unlink()
    assert at_a_glance == await observe(host, rendered=(secret,))
    assert (at_a_glance.foreign, at_a_glance.local_edits) == (2, 0)
    again = await synchronise(source, host, rendered=[secret])
    assert (again.report.files_written, again.report.files_read) == (0, 0)


async def test_a_rendered_file_in_an_ignored_directory_hinders_no_task(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    secret = RenderedContent(path="conf/app.env", content=b"rendered")
    for number in range(3):
        source = write_tree(tmp_path / f"source{number}", {"file": b"%d" % number})
        outcome = await synchronise(source, host, rendered=[secret], ignore=("conf/",))
        assert outcome.state == "SUCCESS", outcome.report.message
    assert (host.target / "conf/app.env").read_bytes() == b"rendered"
    assert await recalled(host, rendered=(secret,), ignore=("conf/",))


@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_no_change_escapes_a_glance_after_a_task(tmp_path: Path, change: str) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", TREE)
    (tmp_path / "host/srv/app").mkdir()
    (tmp_path / "host/srv/app/x.log").write_bytes(b"foreign")
    await synchronise(source, host, ignore=("*.log",))
    assert await recalled(host, ignore=("*.log",))
    CHANGES[change](host.target)
    assert not await recalled(host, ignore=("*.log",))


async def test_a_task_that_keeps_an_edit_leaves_the_next_look_to_be_close(host: Host, tmp_path: Path) -> None:
    (host.target / "three").write_bytes(b"edited")
    (tmp_path / "source/three").write_bytes(b"changed")
    await synchronise(tmp_path / "source", host, on_local_edit="keep")
    assert not await recalled(host)


async def test_a_link_that_was_swapped_right_after_it_was_made_is_looked_at_closely(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relink(tmp_path / "source/a/link", "b/one")

    async def swap_and_wait() -> None:
        relink(host.target / "a/link", "swapped")
        await wait_for_clock()

    monkeypatch.setattr("agent.task.wait_for_clock", swap_and_wait)
    await synchronise(tmp_path / "source", host)
    assert not await recalled(host)
    assert (await observe(host)).local_edits == 1


async def test_a_glance_says_the_same_as_a_close_look(host: Host) -> None:
    (host.target / "foreign").write_bytes(b"not ours")
    close = await observe(host)
    assert await recalled(host)
    assert await observe(host) == close
    assert (close.foreign, close.local_edits) == (1, 0)


async def test_an_edit_after_a_glance_is_found(host: Host) -> None:
    before = await observe(host)
    (host.target / "a/two").write_bytes(b"##")
    after = await observe(host)
    assert after.observed != before.observed
    assert after.local_edits == 1


async def test_an_edit_that_keeps_size_and_time_is_found(host: Host) -> None:
    before = await observe(host)
    path = host.target / "a/two"
    times = path.stat()
    path.write_bytes(b"##")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (await observe(host)).observed != before.observed


@pytest.mark.parametrize(
    "changes",
    [{"ignore": ("*.log",)}, {"project": "other"}, {"ignore_permissions": True}, {"delete_foreign": True}],
    ids=lambda changes: next(iter(changes)),
)
async def test_another_task_looks_for_itself(host: Host, changes: dict[str, object]) -> None:
    assert await recalled(host)
    assert not await recalled(host, **changes)


async def test_a_target_that_was_replaced_is_looked_at_closely(host: Host) -> None:
    shutil.copytree(host.target, host.base / "copy", symlinks=True)
    host.target.rename(host.base / "away")
    (host.base / "copy").rename(host.target)
    assert not await recalled(host)


async def test_a_damaged_look_counts_for_nothing(host: Host) -> None:
    kept = manifest_path(host.state, str(host.target)).with_suffix(".look")
    content = bytearray(kept.read_bytes())
    before = await observe(host)
    for at in range(0, len(content), 37):
        damaged = bytes([*content[:at], content[at] ^ 1, *content[at + 1 :]])
        kept.write_bytes(damaged)
        assert not await recalled(host)
    assert await observe(host) == before
    assert await recalled(host)


async def test_a_look_goes_with_its_manifest_alone(host: Host, tmp_path: Path) -> None:
    record = manifest_path(host.state, str(host.target))
    record.with_suffix(".copy").write_bytes(record.read_bytes())
    record.with_suffix(".copy").rename(record)
    assert not await recalled(host)


async def test_foreign_files_that_have_to_go_are_found(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    await synchronise(source, host, delete_foreign=True)
    await synchronise(source, host, delete_foreign=True)
    assert await recalled(host, delete_foreign=True)
    (host.target / "a/none/foreign").write_bytes(b"")
    outcome = await synchronise(source, host, delete_foreign=True)
    assert outcome.report.files_deleted == 1
    assert not (host.target / "a/none/foreign").exists()
