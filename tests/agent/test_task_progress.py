"""How far a task is: said by the agent where that is wanted, once a second at most; kept and shown."""

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from agent.blocks import MIN_BLOCK
from agent.pulse import Measured, Pulse, beat, enter
from agent.routing import Traffic
from agent.wire.channel import Channel
from agent.wire.messages import PROGRESS, Task, TaskProgress, TaskReport
from agent.workers import PROGRESS_SECONDS
from reconciler.progress import STILL, Progress, in_words, share_of
from reconciler.running import Running
from reconciler.sync.watch import Watched
from tests.agent.syncing import Host, synchronise, write_tree
from tests.agent.test_pulse import sessions
from tests.connected import make_task, succeed


async def steps(clock: trio.testing.MockClock, count: int) -> None:
    for _ in range(count):
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(PROGRESS_SECONDS)
    await trio.testing.wait_all_tasks_blocked()


async def heard_of(
    tmp_path: Path, clock: trio.testing.MockClock, features: tuple[str, ...]
) -> list[TaskProgress]:
    """What a primary hears of a task that copies for five seconds, waits for five and runs a command."""
    heard: list[TaskProgress] = []
    done = [0]
    began = trio.Event()

    async def runner(task: Task, channel: Channel) -> TaskReport:
        began.set()
        enter("copy", lambda: Measured(done[0], 5, done[0] * 10, 50))
        for _ in range(5):
            await trio.sleep(1)
            done[0] += 1
        await trio.sleep(5)
        enter("command")
        await trio.sleep(2)
        return await succeed(task, channel)

    async with sessions(tmp_path, runner) as (_, primary), trio.open_nursery() as nursery:
        task = msgspec.structs.replace(make_task("t1"), features=features)
        channel = primary.open("t1")

        async def talk() -> None:
            await channel.send(task)
            message, _ = await Watched(channel, "n", heard=heard.append).receive()
            assert isinstance(message, TaskReport)
            nursery.cancel_scope.cancel()

        nursery.start_soon(talk)
        await began.wait()
        await steps(clock, 30)
    primary.close(channel)
    return heard


async def test_an_agent_tells_how_far_it_is_while_that_changes(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    heard = await heard_of(tmp_path, mock_clock, (PROGRESS,))
    copied = [each for each in heard if each.phase == "copy"]
    assert [each.files_done for each in copied] == sorted({each.files_done for each in copied})
    assert (copied[-1].files_done, copied[-1].files_total) == (5, 5)
    assert (copied[-1].bytes_done, copied[-1].bytes_total) == (50, 50)
    # Nothing is said while nothing changes.
    assert len(copied) <= 6
    assert [each.phase for each in heard if each.phase != "copy"][-1] == "command"


async def test_whoever_does_not_ask_hears_nothing_of_it(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    assert await heard_of(tmp_path, mock_clock, ()) == []


async def test_a_sync_measures_what_it_does(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    source = write_tree(tmp_path / "source", {"a/b": b"1" * (2 * MIN_BLOCK), "gone": b"2", "link": "a"})
    pulse = Pulse()
    assert pulse.phase == "wait"
    pulse.install()
    assert pulse.phase == "look"
    await synchronise(source, host)
    assert pulse.phase == "place"
    assert pulse.measure() == Measured(3, 3, 2 * MIN_BLOCK + 1, 2 * MIN_BLOCK + 1)
    (source / "gone").unlink()
    await synchronise(source, host)
    assert pulse.measure() == Measured(1, 1, 0, 0)
    beat()


async def test_only_the_newest_word_is_kept_and_no_more_than_can_be_shown(
    mock_clock: trio.testing.MockClock,
) -> None:
    running, traffic = Running(), Traffic()
    with running.attempt("t1", 2, 100, lambda: traffic, resource="projects/p/site/web-1/srv"):
        running.heard("other", TaskProgress(task="x"))
        assert running.progress("t1") == Progress("t1", 2, 100, 0, 0, "projects/p/site/web-1/srv")
        running.heard("t1", TaskProgress(task="t1-2", phase="erase", files_done=7, files_total=-1))
        [found] = running.all()
        assert (found.phase, found.files_done, found.files_total) == ("", 0, 0)
        files = {"files_done": 9, "files_total": 3}
        told = TaskProgress(task="t1-2", phase="copy", bytes_done=1, bytes_total=4, **files)
        running.heard("t1", told)
        mock_clock.jump(STILL)
        running.heard("t1", told)
        [found] = running.all()
        assert (found.files_done, found.bytes_done, found.still_seconds) == (3, 1, STILL)
        assert in_words(found) == f"copies, 3 of 3 entries, 1 B of 4 B, no progress for {STILL} s"
        assert share_of(found) == (1, 4)
        traffic.sent = 2048
        [found] = running.all()
        assert found.still_seconds == 0
        assert in_words(found) == "copies, 3 of 3 entries, 1 B of 4 B, 2.0 KiB sent"
    assert running.progress("t1") is None


@pytest.mark.parametrize(
    ("progress", "share"),
    [
        pytest.param(Progress("t", 1, 5, 0, 0), (0, 0), id="nothing-told"),
        pytest.param(Progress("t", 1, 5, 0, 0, files_done=1, files_total=2), (1, 2), id="entries"),
        pytest.param(Progress("t", 1, 5, 0, 0, files_total=2, bytes_total=9), (0, 9), id="bytes"),
    ],
)
def test_the_share_that_is_done(progress: Progress, share: tuple[int, int]) -> None:
    assert share_of(progress) == share
