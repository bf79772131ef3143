"""A sync at a node, over a real session: its attempts, what is tried again, and what is recorded of them."""

from pathlib import Path

import pytest
import trio

from agent.wire.channel import Channel
from agent.wire.messages import PROGRESS, AfterResult, Task, TaskProgress, TaskReport, Work
from reconciler.bulletin import Bulletin
from reconciler.fleet import TaskFailed
from reconciler.lanes import Place
from reconciler.progress import Progress
from reconciler.running import Running
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.spec.model import Retry
from reconciler.sync.serving import TreeSource
from tests.canaries import canary
from tests.reconciler.facts import only_sync
from tests.reconciler.scripted_fleet import RETRY, SYNC, TREE, Script, attempts, fleet, serve, source

__all__ = ["source"]

FAILED: dict[str, object] = {"state": "FAILED", "reason": "SyncFailed", "message": "not this time"}
FULL: dict[str, object] = {"state": "FAILED", "reason": "DiskFull", "message": "the disk is full"}


async def test_a_sync_is_one_task_with_one_attempt(tmp_path: Path, source: TreeSource) -> None:
    script = Script({})
    async with fleet(tmp_path, script) as (agents, journal):
        report = await agents.sync(SYNC, source, RETRY)
        assert attempts(journal) == ("web-1", "SUCCESS", [(1, "SUCCESS", "")])
    assert report.established == TREE
    [task] = script.tasks
    assert (task.target_path, task.tree, task.observe) == ("/srv/site", source.tree, False)
    assert task.ignore == (".git", "runtime/", "tmp/", "*.bak")


async def test_a_sync_keeps_to_the_bandwidths_of_its_project_and_its_node(
    tmp_path: Path, source: TreeSource
) -> None:
    limited = only_sync(
        "projects: {site: {repository: app, branch: main, path: site,"
        " sync: {bandwidth: 4MiB/s, nodes: [{node_id: web-1, target_path: /srv/site}]}}}\n"
    )
    served: list[TreeSource] = []

    async def see(channel: Channel, source: TreeSource) -> TaskReport:
        served.append(source)
        return await serve(channel, source)

    script = Script({}, {})
    async with fleet(tmp_path, script, serve=see) as (agents, _):
        await agents.sync(limited, source, RETRY, node_bandwidth=float(2**20))
        await agents.sync(SYNC, source, RETRY)
    assert [[bucket.rate for bucket in each.throttle.buckets] for each in served] == [[4 * 2**20, 2**20], []]
    assert [task.patience for task in script.tasks] == [32, 0]


async def test_what_may_pass_is_tried_again(tmp_path: Path, source: TreeSource) -> None:
    script = Script(FAILED, FAILED, {})
    async with fleet(tmp_path, script) as (agents, journal):
        await agents.sync(SYNC, source, RETRY)
        assert attempts(journal)[1:] == (
            "SUCCESS",
            [(1, "RETRYING", "SyncFailed"), (2, "RETRYING", "SyncFailed"), (3, "SUCCESS", "")],
        )
    assert len({task.id for task in script.tasks}) == 3


async def test_the_last_attempt_ends_the_task(tmp_path: Path, source: TreeSource) -> None:
    async with fleet(tmp_path, Script(FAILED, FAILED, FAILED)) as (agents, journal):
        with pytest.raises(TaskFailed, match="not this time"):
            await agents.sync(SYNC, source, RETRY)
        assert attempts(journal)[1:] == (
            "FAILED",
            [(1, "RETRYING", "SyncFailed"), (2, "RETRYING", "SyncFailed"), (3, "FAILED", "SyncFailed")],
        )


async def test_the_pauses_double_with_jitter_and_hold_no_place(tmp_path: Path, source: TreeSource) -> None:
    slept: list[float] = []
    drawn = iter([0.0, 1.0, 0.5, 0.0])
    limit = trio.CapacityLimiter(1)
    place = Place(lambda: limit)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert limit.borrowed_tokens == 0

    class Held(Script):
        async def __call__(self, task: Work, channel: Channel) -> TaskReport:
            assert limit.borrowed_tokens == 1
            return await super().__call__(task, channel)

    script = Held(*[FAILED] * 4, {})
    async with fleet(tmp_path, script, sleep=sleep, draw=lambda: next(drawn)) as (agents, journal):
        await place.take()
        await agents.sync(SYNC, source, Retry(attempts=5, backoff=1.0, max_backoff=5.0), place)
        await place.give_back()
        assert attempts(journal)[1] == "SUCCESS"
    assert slept == [0.5, 2.0, 3.0, 2.5]


@pytest.mark.parametrize("when", ["at work", "in a pause"])
async def test_what_is_called_off_is_no_longer_under_way(
    tmp_path: Path, source: TreeSource, when: str
) -> None:
    reached, cancelled = trio.Event(), trio.Event()

    async def pause(_seconds: float = 0.0) -> None:
        reached.set()
        await trio.sleep_forever()

    async def runner(task: Work, channel: Channel) -> TaskReport:
        if when == "at work":
            try:
                await pause()
            finally:
                cancelled.set()
        return await Script(FAILED)(task, channel)

    async with fleet(tmp_path, runner, sleep=pause) as (agents, journal):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agents.sync, SYNC, source, RETRY)
            await reached.wait()
            nursery.cancel_scope.cancel()
        if when == "at work":
            with trio.fail_after(60):
                await cancelled.wait()
        reason = "Cancelled" if when == "at work" else "SyncFailed"
        assert attempts(journal)[1:] == ("FAILED", [(1, "FAILED", reason)])


async def test_what_will_not_pass_is_not_tried_again(tmp_path: Path, source: TreeSource) -> None:
    async with fleet(tmp_path, Script(FULL)) as (agents, journal):
        with pytest.raises(TaskFailed) as caught:
            await agents.sync(SYNC, source, RETRY)
        assert caught.value.reason == "DiskFull"
        assert attempts(journal)[1:] == ("FAILED", [(1, "FAILED", "DiskFull")])


async def test_what_commands_printed_is_in_the_log_of_the_attempt(tmp_path: Path, source: TreeSource) -> None:
    known = canary("a-known-value")
    KNOWN.learn([Secret(known)])
    ran = AfterResult(name="restart", exit_code=3, output=f"starting\nbad password {known}\x1b[2J")
    failed = {**FAILED, "reason": "CommandFailed", "message": "exit code 3", "after": (ran,)}
    async with fleet(tmp_path, Script(failed)) as (agents, journal):
        with pytest.raises(TaskFailed):
            await agents.sync(SYNC, source, RETRY)
        [listed] = journal.tasks()
        task = journal.task(listed.id)
    assert task is not None
    assert task.project == "site"
    assert task.attempts[0].log.splitlines() == [
        "$ restart",
        "starting",
        "bad password ***\\x1b[2J",
        "exit code 3",
        "CommandFailed: exit code 3",
    ]
    assert task.attempts[0].details["files_written"] == 0


async def test_how_far_an_attempt_is_can_be_seen_while_it_runs(tmp_path: Path, source: TreeSource) -> None:
    running, told = Running(), Bulletin()
    seen: list[Progress | None] = []

    async def agent(task: Work, channel: Channel) -> TaskReport:
        [record] = journal.tasks()
        assert isinstance(task, Task)
        assert PROGRESS in task.features
        word = TaskProgress(task=task.id, phase="copy", files_done=1, files_total=2, beats=1)
        await channel.send(word)
        with trio.fail_after(60):
            while (progress := running.progress(record.id)) is None or not progress.phase:
                await trio.lowlevel.checkpoint()
        seen.append(progress)
        return TaskReport(task=task.id, state="SUCCESS", established=TREE)

    async with fleet(tmp_path, agent, running=running, tell=told.tell) as (agents, journal):
        await agents.sync(SYNC, source, RETRY)
        [record] = journal.tasks()
    [progress] = seen
    assert progress is not None
    assert (progress.task, progress.attempt, progress.total_bytes) == (record.id, 1, source.bytes)
    assert progress.sent_bytes > 0
    assert (progress.resource, progress.phase) == (SYNC.id, "copy")
    assert (progress.files_done, progress.files_total) == (1, 2)
    assert running.progress(record.id) is None
    assert told.version == 3
