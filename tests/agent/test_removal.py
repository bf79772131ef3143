"""Removing a target: what was placed goes, what others put there stays, whatever came in between."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from agent.manifest import load, manifest_path, save
from agent.target import open_target
from agent.versions import load_releases, record_path, save_releases
from agent.wire.messages import Removal, RenderedContent, TaskReport
from agent.work import run_work
from tests.agent.syncing import Host, read_tree, synchronise, write_tree
from tests.canaries import canary, may_hold
from tests.channelpair import channel_pair

SECRET = canary("removed")
TREE = {"compose.yaml": b"services: {}\n", "d/e/f": b"deep", "d/link": "e/f", "empty": None}
FILES = (
    RenderedContent(path=".env", content=f"PASSWORD={SECRET}\n".encode()),
    RenderedContent(path="etc/app/app.toml", content=b"x = 1\n"),
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    may_hold(host.target / ".env")
    return host


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", TREE)


async def remove(host: Host, project: str = "web") -> TaskReport:
    removal = Removal(id="r1", project=project, target_path=str(host.target))
    _, agent = channel_pair()
    with trio.fail_after(60):
        return await run_work(removal, agent, rules=host.rules, state_dir=host.state)


def record(host: Host) -> Path:
    return manifest_path(host.state, str(host.target))


async def test_all_that_was_placed_goes_and_the_directory_that_was_made(source: Path, host: Host) -> None:
    await synchronise(source, host, rendered=FILES)
    report = await remove(host)
    assert (report.state, report.warnings) == ("SUCCESS", ())
    assert report.files_deleted == 8
    assert not host.target.exists()
    assert host.target.parent.is_dir()
    assert not record(host).exists()
    # Again: nothing to do.
    again = await remove(host)
    assert (again.state, again.files_deleted) == ("SUCCESS", 0)
    assert "no record" in again.warnings[0]


async def test_foreign_ignored_and_changed_files_stay(source: Path, host: Host) -> None:
    await synchronise(source, host, rendered=FILES, ignore=("data/",))
    write_tree(host.target, {"uploads/one": b"theirs", "d/own": b"theirs", "data/db": b"ignored"})
    (host.target / "compose.yaml").write_bytes(b"edited\n")
    report = await remove(host)
    assert report.state == "SUCCESS"
    assert read_tree(host.target) == {
        "uploads": None,
        "uploads/one": b"theirs",
        "d": None,
        "d/own": b"theirs",
        "data": None,
        "data/db": b"ignored",
        "compose.yaml": b"edited\n",
    }
    assert report.warnings == ("'compose.yaml' was changed since it was placed and stays",)
    assert not record(host).exists()


async def test_a_directory_that_was_there_before_stays(source: Path, host: Host) -> None:
    host.target.mkdir()
    await synchronise(source, host, rendered=FILES)
    assert (await remove(host)).state == "SUCCESS"
    assert read_tree(host.target) == {}


async def test_an_allowed_root_is_never_removed(source: Path, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", name="app")
    host.target.mkdir()
    host.allow(roots=(str(host.target),))
    await synchronise(source, host)
    assert (await remove(host)).state == "SUCCESS"
    assert read_tree(host.target) == {}


async def test_a_removal_that_was_killed_is_carried_on(source: Path, host: Host) -> None:
    """Killed after it had announced what goes and had removed a part: the rest goes, new files stay."""
    await synchronise(source, host, rendered=FILES)
    manifest = load(record(host))
    assert manifest is not None
    going = tuple(placed.entry.path for placed in manifest.placed)
    save(record(host), msgspec.structs.replace(manifest, deleting=going, tree=b""), durable=False)
    (host.target / "d/e/f").unlink()
    (host.target / "compose.yaml").write_bytes(b"somebody else's\n")
    assert (await remove(host)).state == "SUCCESS"
    assert read_tree(host.target) == {"compose.yaml": b"somebody else's\n"}
    assert not record(host).exists()


async def test_a_target_that_is_gone_is_removed(source: Path, host: Host) -> None:
    await synchronise(source, host)
    host.target.rename(host.base / "elsewhere")
    assert (await remove(host)).state == "SUCCESS"
    assert not record(host).exists()


async def test_a_directory_that_took_its_place_keeps_what_nobody_knows(source: Path, host: Host) -> None:
    await synchronise(source, host, rendered=FILES)
    host.target.rename(host.base / "elsewhere")
    may_hold(host.base / "elsewhere/.env")
    write_tree(host.target, {"compose.yaml": TREE["compose.yaml"], ".env": b"OWN=1\n"})
    report = await remove(host)
    assert report.state == "SUCCESS"
    assert read_tree(host.target) == {".env": b"OWN=1\n"}
    assert "'.env' stays: the directory was replaced" in report.warnings


async def test_a_target_that_another_project_has_is_left_alone(source: Path, host: Host) -> None:
    await synchronise(source, host, rendered=FILES)
    before = read_tree(host.target)
    report = await remove(host, project="other")
    assert (report.state, report.files_deleted) == ("SUCCESS", 0)
    assert "another project" in report.warnings[0]
    assert read_tree(host.target) == before
    assert record(host).exists()


@pytest.mark.parametrize("strategy", ["mirror", "release"])
async def test_what_counts_is_recorded_once_the_target_is_free(
    source: Path, host: Host, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Whoever was at work there before, a process of its own perhaps, has placed it for another project."""
    await synchronise(source, host, strategy=strategy)
    before = read_tree(host.target)
    waits = trio.Event()

    def lock(fd: int, how: int, locking: Callable[[int, int], None] = fcntl.flock) -> None:
        try:
            locking(fd, how)
        except BlockingIOError:
            waits.set()
            raise

    monkeypatch.setattr(fcntl, "flock", lock)
    folder = open_target(str(host.target), host.rules.roots, create=False)
    assert folder is not None
    await folder.lock(shared=False)
    reports: list[TaskReport] = []

    async def remove_it() -> None:
        reports.append(await remove(host))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove_it)
        await waits.wait()
        if strategy == "mirror":
            manifest = load(record(host))
            assert manifest is not None
            save(record(host), msgspec.structs.replace(manifest, project="other"), durable=False)
        else:
            path = record_path(host.state, str(host.target))
            releases = load_releases(path)
            assert releases is not None
            save_releases(path, msgspec.structs.replace(releases, project="other"), durable=False)
        folder.close()
    [report] = reports
    assert (report.state, report.files_deleted) == ("SUCCESS", 0)
    assert "another project" in report.warnings[0]
    assert read_tree(host.target) == before


async def test_a_target_inside_another_stays(source: Path, host: Host, tmp_path: Path) -> None:
    inner = Host(host.base, name="app/inner")
    await synchronise(source, host)
    await synchronise(write_tree(tmp_path / "other", {"x": b"1"}), inner, project="inner")
    assert (await remove(host)).state == "SUCCESS"
    assert read_tree(host.target) == {"inner": None, "inner/x": b"1"}


async def test_where_nothing_was_allowed_nothing_is_left_to_remove(source: Path, host: Host) -> None:
    """A target path that was mistyped: refused, corrected in the spec, and the old one is to be forgotten."""
    mistyped = Removal(id="r1", project="web", target_path="/etc/mistyped")
    refused = await synchronise(source, host, target_path=mistyped.target_path)
    assert refused.state == "FAILED PathRefused"
    _, agent = channel_pair()
    report = await run_work(mistyped, agent, rules=host.rules, state_dir=host.state)
    assert (report.state, report.files_deleted) == ("SUCCESS", 0)
    assert "no record of anything placed in '/etc/mistyped'" in report.warnings[0]


async def test_what_cannot_be_looked_at_is_not_taken_for_gone(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (host.base / "srv").rename(host.base / "unmounted")
    report = await remove(host)
    assert (report.state, report.reason) == ("FAILED", "RootMissing")
    assert record(host).exists()
    host.allow(roots=(str(host.base / "elsewhere"),))
    report = await remove(host)
    assert (report.state, report.reason) == ("FAILED", "PathRefused")
    assert record(host).exists()


async def test_files_rendered_before_records_named_them_are_noted(source: Path, host: Host) -> None:
    await synchronise(source, host, rendered=FILES)
    manifest = load(record(host))
    assert manifest is not None
    save(record(host), msgspec.structs.replace(manifest, rendered=(), made=False), durable=False)
    again = await synchronise(source, host, rendered=FILES)
    assert again.from_agent.messages == ["TaskReport"]
    noted = load(record(host))
    assert noted is not None
    assert noted.rendered == (".env", "etc/app/app.toml")
