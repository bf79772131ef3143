"""Looks that begin with a pass: what they find, when they do not count, and that they are in nobody's way."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from agent.wire.messages import RenderedContent, Task
from reconciler.early_looks import AskedLast, early_looks
from reconciler.errors import LookFailed
from reconciler.observation import Present, Unknown
from reconciler.observe import Observed, observe
from reconciler.spec.model import Retry
from reconciler.status.documents import Recorded
from reconciler.sync.serving import TreeSource
from tests.connected import DEADLINE, connected, until
from tests.reconciler.early import (
    SITE,
    TREE,
    Host,
    Installation,
    changed,
    installation,
    intact,
    placed,
    wanted,
)
from tests.reconciler.test_observe import NoExports, NoTargets


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Installation]:
    """One whose agent is connected."""
    async with installation(tmp_path) as it, connected(it.setup, it.node, it.host):
        yield it


async def test_a_host_is_asked_while_everything_else_is_looked_at(it: Installation) -> None:
    """Everything else ends only once the host was asked: one after the other would never end."""
    whole = wanted()
    await it.first_pass(whole)
    it.host.answers = [{"observed": b"\2" * 32}]
    found = await it.one_pass(whole, meanwhile=lambda: it.host.asked(1))
    assert found.resources[SITE] == intact("files differ from what was placed")
    assert found.connected == {"web-1"}

    # Each pass asks anew.
    found = await it.one_pass(whole, meanwhile=lambda: it.host.asked(2))
    assert found.resources[SITE] == intact()
    assert [task.observe for task in it.host.tasks] == [True, True]
    assert len({task.id for task in it.host.tasks}) == 2


async def test_an_early_look_counts_as_one_and_is_no_task_of_the_journal(it: Installation) -> None:
    def known() -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(it.metrics.text().decode())
            for sample in family.samples
            if sample.name == "trueup_node_files_total" and sample.labels["how"] == "known"
        )

    whole = wanted()
    await it.one_pass(whole)
    assert known() == 7
    await it.one_pass(whole, meanwhile=lambda: it.host.asked(2))
    assert known() == 14
    assert it.journal.tasks() == ()


@pytest.mark.parametrize(
    "change",
    [
        {"rendered": (RenderedContent(path=".env", content=b"another value"),)},
        {"ignore": ("*.log",)},
    ],
    ids=["rendered", "ignored"],
)
async def test_what_is_wanted_otherwise_is_asked_anew(it: Installation, change: dict[str, object]) -> None:
    before = wanted()
    await it.first_pass(before)
    it.host.answers = [{"rendered_equal": False, "observed": b"\2" * 32}, {}]
    found = await it.one_pass(changed(before, **change), meanwhile=lambda: it.host.asked(1))
    early, late = it.host.tasks
    for name, value in change.items():
        assert getattr(early, name) != value
        assert getattr(late, name) == value
    assert found.resources[SITE] == intact()


async def test_a_tree_that_was_placed_since_is_the_one_that_is_asked_for(it: Installation) -> None:
    whole = wanted()
    await it.first_pass(whole)
    newer = placed(whole, b"\3" * 32)
    found = await it.one_pass(whole, newer, meanwhile=lambda: it.host.asked(1))
    assert [task.tree for task in it.host.tasks] == [b"\3" * 32]
    assert found.resources[SITE] == intact()


@pytest.mark.parametrize("why", ["another commit", "acted on", "never placed", "forgotten", "no pass before"])
async def test_who_is_not_asked_early_is_asked_as_ever(it: Installation, why: str) -> None:
    whole, other = wanted(), wanted("other")
    recorded = placed(whole)
    if why != "no pass before":
        await it.first_pass(whole)
    if why == "forgotten":
        it.last.forget()
    early: list[Task] = []

    async def meanwhile() -> None:
        # What was sent before this has come before it.
        marker = next(iter(other.syncs().values()))
        await it.fleet.look(marker, TREE)
        early.extend(task for task in it.host.tasks if task.target_path == "/srv/site")

    found = await it.one_pass(
        whole,
        Recorded() if why == "never placed" else recorded,
        meanwhile=meanwhile,
        spec_commit="c2" if why == "another commit" else "c1",
        acted_on=[SITE] if why == "acted on" else [],
    )
    assert early == []
    asked = [task.target_path for task in it.host.tasks]
    assert asked == (["/srv/other"] if why == "never placed" else ["/srv/other", "/srv/site"])
    assert isinstance(found.resources[SITE], Present) == (why != "never placed")


async def test_an_early_look_that_failed_is_made_again(it: Installation) -> None:
    whole = wanted()
    await it.first_pass(whole)
    it.host.answers = [{"state": "FAILED", "reason": "InputOutputError", "message": "the disk"}]
    found = await it.one_pass(whole, meanwhile=lambda: it.host.asked(1))
    assert found.resources[SITE] == intact()
    it.host.answers = [{"state": "FAILED", "reason": "InputOutputError", "message": "the disk"}] * 2
    found = await it.one_pass(whole, meanwhile=lambda: it.host.asked(3))
    assert found.resources[SITE] == Unknown("InputOutputError", "the disk")


async def test_an_early_look_that_is_given_up_is_in_nobodys_way(tmp_path: Path, it: Installation) -> None:
    """Neither of the look that follows nor of a step, although the agent is still at it when they come."""
    before = wanted()
    after = changed(before, rendered=(RenderedContent(path=".env", content=b"another value"),))
    (tmp_path / "source").mkdir()
    source = await TreeSource.build(tmp_path / "source")
    await it.first_pass(before)
    it.host.held = ["/srv/site"]
    seen: list[Observed] = []

    async def one_pass() -> None:
        seen.append(await it.one_pass(after, meanwhile=lambda: it.host.asked(1)))
        await it.fleet.sync(after.syncs()[SITE], source, Retry(attempts=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one_pass)
        try:
            with trio.fail_after(DEADLINE):
                await it.host.called_off.wait()
        finally:
            it.host.release.set()
    [found] = seen
    assert found.resources[SITE] == intact()
    [task] = it.journal.tasks()
    assert [(each.number, each.state) for each in task.attempts] == [(1, "SUCCESS")]
    assert [task.observe for task in it.host.tasks] == [True, True, False]


async def test_what_nobody_wants_any_more_is_not_waited_for(it: Installation) -> None:
    whole = wanted("site", "gone")
    await it.first_pass(whole)
    it.host.held = ["/srv/gone"]
    found = await it.one_pass(wanted(), placed(whole), meanwhile=lambda: it.host.asked(2))
    assert found.resources[SITE] == intact()
    with trio.fail_after(DEADLINE):
        await it.host.called_off.wait()
    it.host.release.set()
    # Nor is it asked for again.
    it.host.tasks.clear()
    await it.one_pass(wanted(), placed(whole), meanwhile=lambda: it.host.asked(1))
    assert [task.target_path for task in it.host.tasks] == ["/srv/site"]


async def test_so_many_at_once(it: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for a place are asked as ever once it is known what is wanted."""
    monkeypatch.setattr("reconciler.early_looks.MAX_PARALLEL_LOOKS", 1)
    whole = wanted("a", "b", "c")
    marker = next(iter(wanted("marker").syncs().values()))
    await it.first_pass(whole)
    it.host.held = ["/srv/a", "/srv/b", "/srv/c"]

    async def meanwhile() -> None:
        await it.host.asked(1)
        # What was sent before this has come before it.
        await it.fleet.look(marker, TREE)
        assert [task.target_path == "/srv/marker" for task in it.host.tasks] == [False, True]

    async with trio.open_nursery() as nursery:

        async def let_go() -> None:
            await it.host.asked(4)
            it.host.release.set()

        nursery.start_soon(let_go)
        found = await it.one_pass(whole, meanwhile=meanwhile)
    assert list(found.resources.values()) == [intact()] * 3
    assert sorted(task.target_path for task in it.host.tasks) == ["/srv/a", "/srv/b", "/srv/c", "/srv/marker"]


async def test_an_agent_that_goes_away_meanwhile(tmp_path: Path) -> None:
    whole = wanted()
    async with installation(tmp_path) as it:
        async with connected(it.setup, it.node, it.host):
            await it.first_pass(whole)
        # It is not waited for longer than ever, and not asked.
        found = await it.one_pass(whole)
        assert found.resources[SITE] == it.fleet.why_not_connected("web-1")
        async with connected(it.setup, it.node, it.host):
            await it.first_pass(whole)
            it.host.held = ["/srv/site"]
            async with early_looks(it.last) as early:
                agents = early.begin(it.fleet, placed(whole), spec_commit="c1", acted_on=())
                await it.host.asked(1)
                assert await agents.wait_connected(["web-1"]) == {"web-1"}
                await it.setup.hub.update([])
                await until(it.setup, lambda: not it.setup.hub.connected())
                it.host.release.set()
                seen = await observe(
                    whole, placed(whole), agents, secret_targets=NoTargets(), secret_exports=NoExports()
                )
        assert seen.resources[SITE] == it.fleet.why_not_connected("web-1")
        assert seen.asked - seen.connected == {"web-1"}


async def test_an_agent_that_comes_back_meanwhile_is_asked_again(tmp_path: Path) -> None:
    whole = wanted()
    async with installation(tmp_path) as it:
        async with connected(it.setup, it.node, it.host):
            await it.first_pass(whole)
        again = Host(answers=[{"observed": b"\2" * 32}])
        async with trio.open_nursery() as nursery:
            gone, back = trio.Event(), trio.Event()

            async def agent() -> None:
                async with connected(it.setup, it.node, it.host):
                    await gone.wait()
                await until(it.setup, lambda: not it.setup.hub.connected())
                async with connected(it.setup, it.node, again):
                    back.set()
                    await trio.sleep_forever()

            async def meanwhile() -> None:
                await it.host.asked(1)
                gone.set()
                it.host.release.set()
                await back.wait()

            nursery.start_soon(agent)
            await until(it.setup, lambda: it.setup.hub.connected() == {"web-1"})
            it.host.answers = [{"state": "FAILED", "reason": "Cancelled"}]
            found = await it.one_pass(whole, meanwhile=meanwhile)
            nursery.cancel_scope.cancel()
    assert found.resources[SITE] == intact("files differ from what was placed")
    assert len(again.tasks) == 1


async def test_an_error_of_the_pass_is_itself_and_ends_the_looks(it: Installation) -> None:
    whole = wanted()
    await it.first_pass(whole)
    it.host.held = ["/srv/site"]

    async def broken() -> None:
        await it.host.asked(1)
        raise LookFailed("git is away")

    with pytest.raises(LookFailed, match="git is away"):
        await it.one_pass(whole, meanwhile=broken)
    with trio.fail_after(DEADLINE):
        await it.host.called_off.wait()
    it.host.release.set()
    # The next pass still knows what to ask.
    await it.one_pass(whole, meanwhile=lambda: it.host.asked(2))
    assert len(it.host.tasks) == 2


def test_what_was_asked_shows_no_secret() -> None:
    rendered = RenderedContent(path=".env", content=b"PASSWORD=hidden")
    assert "hidden" not in repr(AskedLast("c1", changed(wanted(), rendered=(rendered,)).syncs()))
