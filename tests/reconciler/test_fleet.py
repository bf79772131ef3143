"""The agents as a pass sees them, over real sessions: attempts, their record, and what agents say."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from agent.wire.channel import Channel
from agent.wire.messages import (
    OWNERS,
    PROGRESS,
    AfterResult,
    Command,
    Removal,
    Task,
    TaskProgress,
    TaskReport,
    Work,
)
from agent.workers import Runner
from reconciler.bulletin import Bulletin
from reconciler.deploy.request import NodeCommand
from reconciler.fleet import Fleet, TaskFailed
from reconciler.journal import Journal
from reconciler.lanes import Place
from reconciler.progress import Progress
from reconciler.running import Running
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.spec.model import Retry
from reconciler.status.conditions import Reason
from reconciler.sync.hub import AgentTooOld, AgentUnreachable, Serve
from reconciler.sync.serving import TreeSource
from reconciler.task_reports import MAX_WARNINGS, report_details
from tests.canaries import canary
from tests.connected import connected, make_node, running_hub
from tests.reconciler.facts import only_sync

SYNC = only_sync(
    "projects: {site: {repository: app, branch: main, path: site,"
    " sync: {nodes: [{node_id: web-1, target_path: /srv/site, exclude: ['*.bak']}]}}}\n"
)
TREE = b"\1" * 32
RETRY = Retry(attempts=3, backoff=0.001, max_backoff=0.002)


class Script:
    """An agent that reports what it was told to, one report for each task."""

    def __init__(self, *reports: dict[str, object]) -> None:
        self.reports = list(reports)
        self.tasks: list[Any] = []

    async def __call__(self, task: Work, channel: Channel) -> TaskReport:
        self.tasks.append(task)
        fields = {"state": "SUCCESS", "established": TREE, **self.reports.pop(0)}
        return TaskReport(task=task.id, **fields)  # type: ignore[arg-type]


FAILED: dict[str, object] = {"state": "FAILED", "reason": "SyncFailed", "message": "not this time"}
FULL: dict[str, object] = {"state": "FAILED", "reason": "DiskFull", "message": "the disk is full"}


async def serve(channel: Channel, source: TreeSource) -> TaskReport:
    message, _ = await channel.receive()
    assert isinstance(message, TaskReport)
    return message


@asynccontextmanager
async def fleet(
    tmp_path: Path, runner: Runner | None, *, serve: Serve = serve, **options: Any
) -> AsyncIterator[tuple[Fleet, Journal]]:
    """A fleet of one node, whose agent is connected unless there is none."""
    node = make_node(tmp_path)
    with Journal(tmp_path / "journal.sqlite") as journal:
        async with running_hub(tmp_path, [node.enrolment(paired=True)], serve=serve) as setup:
            node.memory.remember_server(setup.hub.fingerprint)
            agents = Fleet(setup.hub, journal, patience=0.05, **options)
            if runner is None:
                yield agents, journal
                return
            async with connected(setup, node, runner):
                yield agents, journal


@pytest.fixture
async def source(tmp_path: Path) -> TreeSource:
    directory = tmp_path / "source"
    directory.mkdir()
    return await TreeSource.build(directory)


def attempts(journal: Journal) -> tuple[str, str, list[tuple[int, str, str]]]:
    [task] = journal.tasks()
    assert (task.resource, task.node) == (SYNC.id, "web-1")
    return task.node, task.state, [(each.number, each.state, each.reason) for each in task.attempts]


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


async def test_an_agent_that_knows_no_owners_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    owned = await TreeSource.build(tmp_path / "data", owners=True)
    alone = await TreeSource.build(tmp_path / "data")
    script = Script({"warnings": ("b",)}, {"owners_compared": True}, {}, {"observed": owned.tree}, {})
    async with fleet(tmp_path, script) as (agents, journal):
        old = await agents.sync(SYNC, owned, RETRY)
        assert [warning.partition(":")[0] for warning in old.warnings] == [
            "owners and groups were left as they are",
            "b",
        ]
        assert "`trueup node install web-1`" in old.warnings[0]
        [record] = journal.tasks()
        assert "the agent of the node web-1 is too old" in str(record.attempts)
        assert (await agents.sync(SYNC, owned, RETRY)).warnings == ()
        assert (await agents.sync(SYNC, alone, RETRY)).warnings == ()
        assert (await agents.look(SYNC, owned.tree, owned.owners)).warnings == ()
        await agents.look(SYNC, owned.tree)
    assert [(task.observe, OWNERS in task.features, task.owners) for task in script.tasks] == [
        (False, True, owned.owners),
        (False, True, owned.owners),
        (False, False, b""),
        (True, True, owned.owners),
        (True, False, b""),
    ]


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


async def test_a_node_that_is_away(tmp_path: Path, source: TreeSource) -> None:
    async with fleet(tmp_path, None) as (agents, journal):
        assert await agents.wait_connected(["web-1"]) == set()
        assert await agents.wait_connected([]) == set()
        assert agents.why_not_connected("web-1").reason == Reason.AGENT_UNREACHABLE
        assert agents.why_not_connected("stranger").reason == Reason.REVOKED
        with pytest.raises(AgentUnreachable):
            await agents.sync(SYNC, source, RETRY)
        assert attempts(journal)[1:] == ("FAILED", [(1, "FAILED", "AgentUnreachable")])


async def test_a_long_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.fleet.QUIET", 0.001)
    async with fleet(tmp_path, None) as (agents, _):
        with capture_logs() as logs:
            assert await agents.wait_connected(["web-1", "web-2"]) == set()
    assert [(entry["event"], entry["nodes"]) for entry in logs] == [
        ("waiting for agents, 0.05s at most", "web-1, web-2")
    ]


async def test_a_look_that_failed_is_an_error(tmp_path: Path) -> None:
    script = Script({"observed": TREE}, {"state": "FAILED", "message": "it does not answer"})
    async with fleet(tmp_path, script) as (agents, journal):
        assert (await agents.look(SYNC, TREE)).observed == TREE
        with pytest.raises(TaskFailed, match="it does not answer") as caught:
            await agents.look(SYNC, TREE)
        assert caught.value.reason == Reason.OBSERVATION_FAILED
        assert journal.tasks() == ()
    assert all(task.observe for task in script.tasks)


@pytest.mark.parametrize("reason", ["", "[bold]", "\x1b[31mRed", "lower", "A" * 65, "With Space"])
def test_an_agent_cannot_make_up_a_reason_that_is_none(reason: str) -> None:
    report = TaskReport(task="t", state="FAILED", reason=reason, message="bad\x1b[31m\nnews")
    error = TaskFailed(report, unnamed=Reason.SYNC_FAILED)
    assert (error.reason, str(error)) == (Reason.SYNC_FAILED, "bad [31m news")


def test_what_an_agent_says_is_bounded() -> None:
    many = tuple(f"warning\n{number}" for number in range(100))
    after = (AfterResult(name="re\x1bload", exit_code=1),)
    details = report_details(TaskReport(task="t", state="SUCCESS", warnings=many, after=after), ["unsent"])
    warnings = details["warnings"]
    assert isinstance(warnings, list)
    assert (len(warnings), warnings[:2]) == (MAX_WARNINGS, ["unsent", "warning 0"])
    assert details["after"] == ["re load: exit code 1"]


COMMAND = NodeCommand(
    resource=SYNC.id,
    node="web-1",
    project="site",
    target_path="/srv/site",
    command="up",
    timeout=30.0,
    retry=RETRY,
    variables={"LEVEL": "info", "PASSWORD": Secret(canary("fleet-command"))},
)


async def test_a_command_carries_its_variables_and_is_recorded(tmp_path: Path) -> None:
    busy: dict[str, object] = {"state": "FAILED", "reason": "TargetBusy"}
    script = Script(busy, {"after": (AfterResult(name="up", exit_code=0),)})
    async with fleet(tmp_path, script) as (agents, journal):
        report = await agents.run_command(COMMAND)
        assert report.after[0].exit_code == 0
        assert attempts(journal)[1:] == ("SUCCESS", [(1, "RETRYING", "TargetBusy"), (2, "SUCCESS", "")])
    sent = script.tasks[-1]
    assert isinstance(sent, Command)
    assert sent.environment == {"LEVEL": "info", "PASSWORD": canary("fleet-command")}
    assert (sent.secret, sent.timeout, sent.target_path) == (("PASSWORD",), 30.0, "/srv/site")
    assert canary("fleet-command") not in repr(sent)
    assert canary("fleet-command") not in repr(COMMAND)


async def test_a_command_that_failed_is_not_tried_again(tmp_path: Path) -> None:
    failed: dict[str, object] = {"state": "FAILED", "reason": "CommandFailed", "message": "ended with 3"}
    async with fleet(tmp_path, Script(failed)) as (agents, journal):
        with pytest.raises(TaskFailed, match="ended with 3"):
            await agents.run_command(COMMAND)
        assert attempts(journal)[1:] == ("FAILED", [(1, "FAILED", "CommandFailed")])


async def test_a_removal_is_asked_for_once(tmp_path: Path) -> None:
    script = Script({"files_deleted": 3})
    async with fleet(tmp_path, script) as (agents, journal):
        report = await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")
        assert report.files_deleted == 3
        assert attempts(journal)[1:] == ("SUCCESS", [(1, "SUCCESS", "")])
    [removal] = script.tasks
    assert isinstance(removal, Removal)
    assert (removal.project, removal.target_path) == ("site", "/srv/site")


async def test_a_removal_on_a_node_that_is_away(tmp_path: Path) -> None:
    async with fleet(tmp_path, None) as (agents, _):
        with pytest.raises(AgentUnreachable):
            await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")


async def test_an_older_agent_is_asked_nothing_that_it_does_not_know(
    tmp_path: Path, source: TreeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.session.PROTOCOL_VERSIONS", (3, 2))
    monkeypatch.setattr("agent.wire.messages._STRATEGIES_SINCE", {"mirror": 4})
    script = Script({"files_deleted": 1})
    async with fleet(tmp_path, script) as (agents, journal):
        told = r"web-1 is too old .* speaks version 3 .* 4 is needed; update trueup on that host"
        with pytest.raises(AgentTooOld, match=told):
            await agents.sync(SYNC, source, RETRY)
        # Its session stands, and it goes on doing what it knows.
        assert (await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")).files_deleted == 1
        assert [task.state for task in journal.tasks()] == ["SUCCESS", "FAILED"]


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
