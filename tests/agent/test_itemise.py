"""What an observing task says a sync would do, held against what it then does; and nothing is touched."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings

from agent.blocks import MIN_BLOCK
from agent.errors import RemoteProtocolError
from agent.index import STAGING
from agent.wire.forecast import MAX_ITEMS, Forecast, Item, Sums
from agent.wire.messages import ITEMISE, RenderedContent, TaskReport
from agent.work import run_work
from reconciler.sync.itemising import Itemising
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import SITE, Host, Outcome, Tree, read_tree, synchronise, write_tree
from tests.agent.test_task import inodes, trees
from tests.canaries import canary, may_hold
from tests.channelpair import channel_pair
from tests.mounting import small_file_system


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", SITE)


async def itemise(
    source: Path | TreeSource,
    host: Host,
    *,
    features: tuple[str, ...] = (ITEMISE,),
    owners: bool = False,
    **changes: Any,
) -> tuple[TaskReport, Itemising]:
    """An observing task with both ends real."""
    rendered = changes.get("rendered", ())
    tree = (
        source
        if isinstance(source, TreeSource)
        else await TreeSource.build(
            source,
            ignore=changes.get("ignore", ()),
            reserved=[file.path for file in rendered],
            ignore_permissions=changes.get("ignore_permissions", False),
            owners=owners,
        )
    )
    task = tree.with_owners(host.task(tree.tree, observe=True, features=features, **changes))
    primary, agent = channel_pair()
    itemising, reports = Itemising(), []

    async def serve() -> None:
        reports.append(await itemising.serve(primary, tree))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await agent.send(await run_work(task, agent, rules=host.rules, state_dir=host.state))
    return reports[0], itemising


async def foreseen(source: Path, host: Host, **changes: Any) -> Sums:
    report, itemising = await itemise(source, host, **changes)
    assert (report.state, report.reason) == ("SUCCESS", "")
    assert itemising.sums is not None
    assert Counter(item.deed for item in itemising.items) == itemising.sums.counts
    return itemising.sums


def deeds(itemising: Itemising) -> dict[str, str]:
    return {item.path: item.deed for item in itemising.items}


def assert_came_true(sums: Sums, outcome: Outcome) -> None:
    report = outcome.report
    assert report.files_written == sums.files_written
    assert report.files_deleted == sums.files_deleted
    assert report.bytes_received == sums.bytes_requested
    assert report.bytes_reused == sums.bytes_reused
    assert report.foreign == sums.foreign
    assert report.local_edits == sums.local_edits


async def test_a_target_that_is_not_there(source: Path, host: Host) -> None:
    report, itemising = await itemise(source, host)
    assert not host.target.exists()
    assert not host.state.exists()
    assert set(deeds(itemising).values()) == {"create"}
    assert deeds(itemising).keys() == {*SITE, "bin", "ü", "static"}
    assert report.observed == b""
    assert itemising.sums is not None
    assert_came_true(itemising.sums, await synchronise(source, host))


async def test_each_deed(source: Path, host: Host) -> None:
    await synchronise(source, host)
    for name in ("index.html", "static/app.js", "bin/run", "static/empty.css"):
        os.utime(host.target / name, (1, 1))
        os.utime(source / name, (1, 1))
    await synchronise(source, host)
    write_tree(host.target, {"mine": b"1", "static/none/mine": b"2"})
    (host.target / "ü/ß").write_bytes(b"edited")
    (source / "static/app.js").write_bytes(b"y" * MIN_BLOCK + b"x" * 2 * MIN_BLOCK)
    os.utime(source / "index.html", (2, 2))
    (source / "bin/run").chmod(0o700)
    os.utime(source / "bin/run", (1, 1))
    (source / "static/empty.css").chmod(0o600)
    os.utime(source / "static/empty.css", (3, 3))
    (source / "static/none").rmdir()
    (source / "current").unlink()
    (source / "current").symlink_to("static")
    (source / "dangling").unlink()
    write_tree(source, {"dangling/in": b"3", "new": b"4", "copy": b"x" * (3 * MIN_BLOCK + 17)})
    secret = RenderedContent(path=".env", content=canary("itemise").encode())
    may_hold(host.target / ".env")
    before = inodes(host.base)
    report, itemising = await itemise(source, host, rendered=[secret], on_local_edit="backup")
    assert inodes(host.base) == before
    assert deeds(itemising) == {
        ".env": "render",
        "bin/run": "mode",
        "copy": "create",
        "current": "update",
        "dangling": "replace",
        "dangling/in": "create",
        "index.html": "time",
        "new": "create",
        "static/app.js": "update",
        "static/empty.css": "mode+time",
        "static/none": "stay",
        "ü/ß": "update",
    }
    by_path = {item.path: item for item in itemising.items}
    assert by_path["copy"].reused == by_path["copy"].size == 3 * MIN_BLOCK + 17
    assert by_path["static/app.js"].requested == MIN_BLOCK
    assert by_path["ü/ß"].saved
    assert report.local_edits == 1
    assert itemising.sums is not None
    assert itemising.sums.foreign == 2
    outcome = await synchronise(source, host, rendered=[secret], on_local_edit="backup")
    assert_came_true(itemising.sums, outcome)


async def test_local_edits_that_stay_and_that_are_saved(source: Path, host: Host) -> None:
    await synchronise(source, host)
    (host.target / "index.html").write_bytes(b"mine")
    (host.target / "bin/run").write_bytes(b"mine")
    (source / "bin/run").unlink()
    (source / "index.html").write_bytes(b"theirs")
    _, itemising = await itemise(source, host, on_local_edit="keep")
    assert deeds(itemising) == {"index.html": "keep"}
    _, itemising = await itemise(source, host, on_local_edit="backup")
    assert deeds(itemising) == {"index.html": "update", "bin/run": "backup"}
    sums = await foreseen(source, host)
    assert sums.counts == {"update": 1, "delete": 1}
    assert_came_true(sums, await synchronise(source, host))
    assert (await foreseen(source, host)) == Sums(foreign=sums.foreign)


@pytest.mark.parametrize("strategy", ["mirror", "release"])
async def test_a_local_edit_that_stays_is_told_of_every_time(source: Path, host: Host, strategy: str) -> None:
    options: dict[str, Any] = {"strategy": strategy, "on_local_edit": "keep"}
    await synchronise(source, host, **options)
    placed = host.target if strategy == "mirror" else host.target / "current"
    (placed / "index.html").write_bytes(b"mine")
    (placed / "current").unlink()
    (placed / "current").symlink_to("elsewhere")
    stays = Sums(counts={"keep": 2}, local_edits=2)
    for newer in (b"<h1>hello</h1>", b"as the tree has it by now"):
        (source / "index.html").write_bytes(newer)
        for _ in range(2):
            assert await foreseen(source, host, **options) == stays
            _, itemising = await itemise(source, host, **options)
            assert deeds(itemising) == {"index.html": "keep", "current": "keep"}
            assert (await synchronise(source, host, **options)).state == "SUCCESS"
    (source / "new").write_bytes(b"1")
    sums = await foreseen(source, host, **options)
    assert (sums.counts, sums.local_edits) == ({"keep": 2, "create": 1}, 2)


async def test_the_guards_that_would_stop_it(source: Path, host: Host, tmp_path: Path) -> None:
    await synchronise(source, host)
    empty = write_tree(tmp_path / "empty", {})
    sums = await foreseen(empty, host, max_delete=0.1)
    assert [guard.reason for guard in sums.guards] == ["EmptyTree"]
    assert sums.files_deleted == len(read_tree(host.target))
    for path in ("index.html", "static", "ü"):
        (shutil.rmtree if (source / path).is_dir() else os.unlink)(source / path)
    sums = await foreseen(source, host, max_delete=0.1, after=("restart", "reload"))
    assert [guard.reason for guard in sums.guards] == ["TooManyDeletions", "CommandNotAllowed"]
    assert sums.counts == {"delete": 7}
    assert sums.after == ("restart", "reload")
    write_tree(source, {"ü": b"a file"})
    write_tree(host.target, {"ü/mine": b"1"})
    sums = await foreseen(source, host)
    assert [guard.reason for guard in sums.guards] == ["ForeignFiles"]
    assert sums.counts == {}
    outcome = await synchronise(source, host)
    assert outcome.state == "FAILED ForeignFiles"
    assert outcome.report.message == sums.guards[0].message


async def test_what_an_earlier_task_staged_stays_and_takes_no_room(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "host/srv", "size=2m"):
        host = Host(tmp_path / "host")
        source = write_tree(tmp_path / "source", {"a": b"1"})
        assert (await synchronise(source, host)).state == "SUCCESS"
        (host.target / STAGING).mkdir(0o700)
        (host.target / STAGING / "0").write_bytes(b"x" * 1_500_000)
        write_tree(source, {"b": os.urandom(3_000_000)})
        before = inodes(host.base)
        assert [guard.reason for guard in (await foreseen(source, host)).guards] == ["DiskFull"]
        (source / "b").write_bytes(os.urandom(1_000_000))
        assert (await foreseen(source, host)).guards == ()
        assert inodes(host.base) == before
        assert (await synchronise(source, host)).state == "SUCCESS"


async def test_what_is_ignored_is_counted_and_names_that_are_no_text_are_escaped(
    source: Path, host: Host
) -> None:
    await synchronise(source, host)
    (host.target / "a.log").write_bytes(b"1")
    (host.target / os.fsdecode(b"\xff")).write_bytes(b"1")
    _, itemising = await itemise(source, host, delete_foreign=True, ignore=("*.log",))
    assert deeds(itemising) == {"\\xff": "delete"}
    assert itemising.sums is not None
    assert itemising.sums.ignored == 1


async def test_an_agent_that_is_not_asked_to_itemise_only_observes(source: Path, host: Host) -> None:
    report, itemising = await itemise(source, host, features=())
    assert report.state == "SUCCESS"
    assert itemising.sums is None


async def test_more_than_is_listed_is_counted(host: Host, tmp_path: Path) -> None:
    names = {f"{number:05}": None for number in range(MAX_ITEMS + 3)}
    sums = await _list(write_tree(tmp_path / "many", names), host)
    assert sums.unlisted == 3
    assert sums.counts == {"create": MAX_ITEMS + 3}


async def _list(source: Path, host: Host) -> Sums:
    _, itemising = await itemise(source, host)
    assert len(itemising.items) == MAX_ITEMS
    assert itemising.sums is not None
    return itemising.sums


@pytest.mark.parametrize(
    "forecasts",
    [
        pytest.param([Forecast(task="t1", items=(Item("erase", "a"),))], id="unknown-deed"),
        pytest.param([Forecast(task="t1", sums=Sums(counts={"erase": 1}))], id="unknown-count"),
        pytest.param([Forecast(task="t1", items=(Item("create", "a"),) * (MAX_ITEMS + 1))], id="too-many"),
        pytest.param([Forecast(task="t1", items=(Item("create", "a" * 4_500_000),))], id="too-long"),
        pytest.param([Forecast(task="t1", sums=Sums()), Forecast(task="t1")], id="after-the-last"),
    ],
)
async def test_what_no_agent_foresees_ends_the_session(source: Path, forecasts: list[Forecast]) -> None:
    tree = await TreeSource.build(source)
    send, take = trio.open_memory_channel[Forecast](10)
    for forecast in forecasts:
        send.send_nowait(forecast)

    class Agent:
        async def receive(self) -> tuple[Forecast, None]:
            return await take.receive(), None

        async def send(self, *_: object) -> None: ...

    with pytest.raises(RemoteProtocolError):
        await Itemising().serve(Agent(), tree)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=trees(), found=trees(), after=trees())
async def test_any_forecast_comes_true(tmp_path: Path, before: Tree, found: Tree, after: Tree) -> None:
    base = tmp_path / os.urandom(8).hex()
    host = Host(base / "host")
    await synchronise(write_tree(base / "before", before), host, allow_empty=True)
    # What somebody did in the target meanwhile.
    for name, content in found.items():
        path = host.target / name
        is_free = not (path.parent.is_symlink() or path.is_symlink() or path.exists())
        if content is not None and path.parent.is_dir() and is_free:
            write_tree(host.target, {name: content})
    source = write_tree(base / "after", after)
    state = inodes(host.base)
    sums = await foreseen(source, host, allow_empty=True)
    assert inodes(host.base) == state
    outcome = await synchronise(source, host, allow_empty=True)
    if outcome.report.state == "FAILED":
        assert [guard.reason for guard in sums.guards] == [outcome.report.reason]
        return
    assert not sums.guards
    assert_came_true(sums, outcome)
    # A name that was foreign is ours by now, so nothing is left to do.
    assert not (await foreseen(source, host, allow_empty=True)).counts


async def test_what_others_put_there_is_told_apart_and_guarded(source: Path, host: Host) -> None:
    write_tree(host.target, {f"of-others/{number}": b"1" for number in range(60)})
    before = inodes(host.base)
    sums = await foreseen(source, host, delete_foreign=True, max_delete=0.0)
    [guard] = sums.guards
    assert guard.reason == "TooManyDeletions"
    assert "61 of 61 entries there would be deleted, 61 of them foreign" in guard.message
    assert (sums.counts["delete"], sums.foreign_deleted) == (61, 61)
    failed = await synchronise(source, host, delete_foreign=True, max_delete=0.0)
    assert failed.state == "FAILED TooManyDeletions"
    assert read_tree(host.target).keys() == {"of-others", *(f"of-others/{number}" for number in range(60))}
    assert inodes(host.target).items() <= before.items()
    assert (await foreseen(source, host)).foreign_deleted == 0
    assert (await synchronise(source, host, delete_foreign=True, max_delete=1.0)).state == "SUCCESS"
    assert read_tree(host.target) == read_tree(source)
