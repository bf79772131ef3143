"""The strategy `release`: a directory for each tree, one switch, and what is left alone or refused."""

import os
from pathlib import Path
from typing import Any

import msgspec
import trio

from agent.blocks import MIN_BLOCK
from agent.compare import Remembered
from agent.manifest import other_targets
from agent.release_drift import compare_any
from agent.versions import BUILDING
from agent.wire.messages import Command, Removal, RenderedContent, TaskReport
from agent.work import run_work
from tests.agent.releasing import ONE, TWO, current, names, release, trees
from tests.agent.syncing import Host, Tree, modes, observe, read_tree, synchronise, write_tree
from tests.canaries import canary, may_hold
from tests.channelpair import channel_pair

THREE: Tree = {"index": b"three"}


async def order(host: Host, work: Command | Removal) -> TaskReport:
    _, agent = channel_pair()
    with trio.fail_after(60):
        return await run_work(work, agent, rules=host.rules, state_dir=host.state)


async def test_each_tree_gets_a_directory_and_current_leads_to_the_last(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, second, _ = trees(tmp_path, ONE, TWO, THREE)
    may_hold(host.target)
    secret = RenderedContent(path=".env", content=f"A={canary('release')}\n".encode())
    host.allow(
        commands={
            "note": ("/bin/sh", "-c", "cat index >> $TRUEUP_TARGET/../ran; pwd >> $TRUEUP_TARGET/../where")
        }
    )
    assert (await observe(host, strategy="release")).observed == b""
    outcome = await release(first, host, rendered=(secret,), after=("note",), revision="v1")
    assert outcome.state == "SUCCESS"
    assert current(host) == read_tree(first) | {".env": secret.content}
    assert modes((host.target / "current").resolve())[".env"] == 0o600
    assert sorted(os.listdir(host.target)) == ["current", "releases"]
    link = (host.target / "current").readlink()
    assert not link.is_absolute()

    # Nothing to do: one round trip, and the commands do not run again.
    again = await release(first, host, rendered=(secret,), after=("note",), revision="v1")
    assert (again.state, again.from_agent.messages) == ("SUCCESS", ["TaskReport"])
    assert (host.base / "srv/ran").read_bytes() == b"one"

    outcome = await release(second, host, rendered=(secret,), after=("note",), revision="v2")
    assert outcome.state == "SUCCESS"
    assert current(host) == read_tree(second) | {".env": secret.content}
    assert (host.base / "srv/ran").read_bytes() == b"onetwo"
    assert len(names(host)) == 2
    assert read_tree(host.target / link) == read_tree(first) | {".env": secret.content}
    report = outcome.report
    assert [each.revision for each in report.kept] == ["v1", "v2"]
    assert report.current == report.kept[-1].name == (host.target / "current").readlink().name
    assert str(host.target / "releases" / report.current) in (host.base / "srv/where").read_text()
    seen = await observe(host, strategy="release", rendered=(secret,), after=("note",))
    assert (seen.observed, seen.rendered_equal, seen.after_done) == (report.established, True, True)
    assert (seen.kept, seen.current) == (report.kept, report.current)


async def test_what_did_not_change_is_copied_and_shares_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    large = os.urandom(40 * MIN_BLOCK)
    first, second = trees(
        tmp_path,
        {"large": large, "same": b"s" * 50_000, "seen": b"x"},
        {"large": large[:-10] + b"0123456789", "same": b"s" * 50_000, "seen": b"x"},
    )
    await release(first, host)
    outcome = await release(second, host)
    assert outcome.state == "SUCCESS"
    assert 0 < outcome.report.bytes_received <= MIN_BLOCK
    assert outcome.report.files_written == 1
    old, new = (host.target / "releases" / each.name for each in outcome.report.kept)
    assert read_tree(new) == read_tree(second)
    assert (old / "same").stat().st_ino != (new / "same").stat().st_ino
    (new / "same").write_bytes(b"in place")
    assert (old / "same").read_bytes() == b"s" * 50_000
    assert (new / "seen").stat().st_mtime_ns == (second / "seen").stat().st_mtime_ns
    assert modes(new) == modes(second)


async def test_drift_in_the_current_one_is_mended_in_place(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    (source,) = trees(tmp_path, ONE)
    name = (await release(source, host)).report.current
    tree = host.target / "current"
    (tree / "index").write_bytes(b"edited")
    (tree / "lib/b").unlink()
    assert (await observe(host, strategy="release")).local_edits == 1
    outcome = await release(source, host, on_local_edit="backup")
    assert (outcome.state, outcome.report.current, names(host)) == ("SUCCESS", name, [name])
    saved = current(host)
    assert {path: saved[path] for path in read_tree(source)} == read_tree(source)
    assert b"edited" in saved.values()


async def test_local_edits_that_are_kept_go_along(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, second = trees(tmp_path, ONE, TWO)
    await release(first, host)
    (host.target / "current/index").write_bytes(b"edited, and longer")
    await release(second, host, on_local_edit="keep")
    assert current(host)["index"] == b"edited, and longer"
    assert current(host)["fresh"] == b"f"
    await release(first, host, on_local_edit="overwrite", keep=1)
    assert current(host) == read_tree(first)


async def test_edits_that_stay_are_counted_where_current_leads_now(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, second = trees(tmp_path, ONE, TWO)
    await release(first, host, on_local_edit="keep")
    await release(second, host, on_local_edit="keep")
    (host.target / "current/fresh").write_bytes(b"edited, and longer")
    (host.target / "current/index").write_bytes(b"edited, and longer")
    for kept_only in (True, False):
        # The first has none of them, and the second still has them.
        for source, edits in [(first, 0), (second, 2)]:
            outcome = await release(source, host, on_local_edit="keep", kept_only=kept_only)
            assert (outcome.state, outcome.report.local_edits) == ("SUCCESS", edits), (kept_only, source)
            again = await release(source, host, on_local_edit="keep", kept_only=kept_only)
            assert (again.state, again.report.local_edits) == ("SUCCESS", edits), (kept_only, source)
    # One goes along into a new one, which has nothing where the other was.
    third = write_tree(tmp_path / "third", {"index": b"three"})
    outcome = await release(third, host, on_local_edit="keep")
    assert (outcome.state, outcome.report.local_edits) == ("SUCCESS", 1)
    again = await release(third, host, on_local_edit="keep")
    assert (again.state, again.report.local_edits) == ("SUCCESS", 1)
    # Whoever does not keep any hears of what is left behind.
    outcome = await release(first, host, on_local_edit="overwrite")
    assert (outcome.state, outcome.report.local_edits) == ("SUCCESS", 1)
    assert current(host) == read_tree(first)


async def test_guards_leave_the_old_one_current(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, other = trees(tmp_path, {f"f{n}": b"x" for n in range(60)}, {"f1": b"y"})
    empty = tmp_path / "empty"
    empty.mkdir()
    await release(first, host)
    assert (await release(other, host, max_delete=0.5)).state == "FAILED TooManyDeletions"
    assert (await release(empty, host)).state == "FAILED EmptyTree"
    assert current(host) == read_tree(first)
    assert (await release(first, host)).state == "SUCCESS"
    assert BUILDING not in os.listdir(host.target / "releases")
    assert (await release(other, host, max_delete=1.0)).state == "SUCCESS"
    assert current(host) == read_tree(other)


async def test_a_transfer_that_was_cut_is_carried_on(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first = write_tree(tmp_path / "first", ONE)
    second = write_tree(tmp_path / "second", {f"f{n}": os.urandom(200_000) for n in range(30)} | ONE)
    await release(first, host)

    def cut(primary: Any, _agent: Any) -> None:
        def alter(message: Any, payload: bytes | None) -> list[tuple[Any, bytes | None]]:
            if payload is not None and len(primary.sent.messages) > 6:
                primary.cut()
            return [(message, payload)]

        primary.alter = alter

    try:
        await release(second, host, prepare=cut)
    except* Exception:
        pass
    assert current(host) == read_tree(first)
    outcome = await release(second, host)
    assert outcome.state == "SUCCESS"
    assert 0 < outcome.report.bytes_received < 30 * 200_000
    assert current(host) == read_tree(second)


async def test_places_that_are_something_else_are_left_alone(tmp_path: Path) -> None:
    (source,) = trees(tmp_path, ONE)
    places: list[Tree] = [{"current/x": b"1"}, {"current": "/etc"}, {"current": b"file"}]
    for number, tree in enumerate(places):
        host = Host(tmp_path / f"host{number}")
        write_tree(host.target, tree)
        assert (await release(source, host)).state == "FAILED PathOccupied"
        assert {path: read_tree(host.target)[path] for path in tree} == tree
    outside = tmp_path / "outside"
    outside.mkdir()
    host = Host(tmp_path / "linked")
    write_tree(host.target, {"releases": str(outside)})
    assert (await release(source, host)).report.state == "FAILED"
    assert list(outside.iterdir()) == []
    # A link of another tool into the same directory is what a release replaces.
    host = Host(tmp_path / "capistrano")
    write_tree(host.target, {"releases/20240101/x": b"1"})
    (host.target / "current").symlink_to(host.target / "releases/20240101")
    assert (await release(source, host)).state == "SUCCESS"
    assert current(host) == read_tree(source)
    assert read_tree(host.target / "releases/20240101") == {"x": b"1"}


async def test_the_strategy_of_a_place_does_not_change(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    (source,) = trees(tmp_path, ONE)
    await synchronise(source, host)
    outcome = await release(source, host)
    assert outcome.state == "FAILED StrategyChanged"
    assert "target_path" in outcome.report.message
    assert read_tree(host.target) == read_tree(source)
    other = Host(tmp_path / "other")
    await release(source, other)
    assert (await synchronise(source, other)).state == "FAILED StrategyChanged"
    assert current(other) == read_tree(source)
    # Nobody else's task takes it for foreign.
    assert other_targets(other.state, str(other.base / "srv")) == ["app"]


async def test_a_removal_takes_what_is_ours(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    secret = RenderedContent(path="conf/.env", content=f"A={canary('removed')}\n".encode())
    first, second = trees(tmp_path, ONE, TWO)
    removal = Removal(id="r", project="web", target_path=str(host.target))
    may_hold(host.target)
    await release(first, host, rendered=(secret,))
    await release(second, host, rendered=(secret,))
    (host.target / "releases" / names(host)[0] / "mine").write_bytes(b"mine")
    other = msgspec.structs.replace(removal, project="other")
    assert "nothing was removed" in (await order(host, other)).warnings[0]
    assert current(host) == read_tree(second) | {"conf": None, "conf/.env": secret.content}
    report = await order(host, removal)
    assert report.state == "SUCCESS"
    (left,) = names(host)
    assert read_tree(host.target) == {
        "releases": None,
        f"releases/{left}": None,
        f"releases/{left}/mine": b"mine",
    }
    assert [path for path in host.state.rglob("*") if path.is_file()] == []
    assert "nothing was removed" in (await order(host, removal)).warnings[0]
    whole = Host(tmp_path / "whole")
    await release(first, whole)
    removal = msgspec.structs.replace(removal, target_path=str(whole.target))
    assert (await order(whole, removal)).state == "SUCCESS"
    assert not whole.target.exists()


async def test_a_deploys_command_runs_in_the_current_one(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    (source,) = trees(tmp_path, ONE)
    host.allow(commands={"where": ("/bin/sh", "-c", "pwd; echo $TRUEUP_TARGET; cat index")})
    await release(source, host)
    work = Command(id="c", project="web", target_path=str(host.target), command="where")
    report = await order(host, work)
    (result,) = report.after
    assert result.output.split() == [str((host.target / "current").resolve()), str(host.target), "one"]


async def test_what_no_primary_should_ask(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    (source,) = trees(tmp_path, ONE)
    for changes in ({"keep": 0}, {"keep": 10_000}, {"revision": "a\nb"}, {"revision": "x" * 300}):
        assert (await release(source, host, **changes)).report.state == "FAILED"
    assert (await release(source, host, after=("rm",))).state == "FAILED CommandNotAllowed"
    host.allow(private=(str(host.target / "releases/own"),))
    assert (await release(source, host)).report.state == "FAILED"
    assert not host.target.exists()


async def test_drift_is_told_of_the_current_one_and_of_the_link(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    first, second = trees(tmp_path, ONE, TWO)
    await release(first, host)
    old = (await release(second, host)).report.kept[0].name
    (record,) = (host.state / "targets").iterdir()

    async def count() -> tuple[str, int]:
        found = await compare_any(record, rules=host.rules, state_dir=host.state, memory=Remembered())
        assert found is not None
        return found.target, found.count

    (host.target / "releases" / old / "index").write_bytes(b"nobody cares")
    assert await count() == (str(host.target), 0)
    (host.target / "current/index").write_bytes(b"edited")
    assert await count() == (str(host.target), 1)
    (host.target / "current").unlink()
    (host.target / "current").symlink_to(f"releases/{old}")
    assert await count() == (str(host.target), 2)
    assert (await release(second, host)).state == "SUCCESS"
    assert await count() == (str(host.target), 0)
    assert current(host) == read_tree(second)
