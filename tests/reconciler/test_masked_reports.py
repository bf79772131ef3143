"""What agents report is looked through for secrets, all of it, and beside the event loop."""

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from agent.wire.channel import Channel
from agent.wire.forecast import Forecast, Guard, Sums
from agent.wire.messages import AfterResult, Task, TaskReport, Work
from reconciler.fleet import Fleet, TaskFailed
from reconciler.journal import Journal
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.sync.serving import TreeSource
from tests.canaries import canary, may_hold, search_text
from tests.reconciler.scripted_fleet import COMMAND, RETRY, SYNC, fleet

LINES = 2000
"""Of what a command printed."""


class Watched(Secret):
    """A secret that is looked for only while the event loop turns.

    Another thread can wait for that; on the event loop itself it raises RuntimeError.
    """

    is_watched = True
    times = 0

    def reveal(self) -> str:
        if self.is_watched:
            trio.from_thread.run(trio.lowlevel.checkpoint)
            self.times += 1
        return super().reveal()


def forms(name: str) -> tuple[str, str]:
    """A secret of that name as it is, and in base64."""
    value = canary(name)
    return value, base64.b64encode(value.encode()).decode().rstrip("=")


def said(task: Work, name: str, state: str) -> TaskReport:
    """A long report that tells the secret in each of its texts."""
    plain, coded = forms(name)
    printed = "".join(f"{line}: {plain} {coded}\n" for line in range(LINES))
    return TaskReport(
        task=task.id,
        state=state,  # type: ignore[arg-type]
        reason="CommandFailed" if state == "FAILED" else "",
        message=f"it was {plain}",
        warnings=(f"first {coded}", f"second {plain}"),
        after=tuple(AfterResult(name=f"run {plain}", exit_code=1, output=printed) for _ in range(3)),
    )


async def look(agents: Fleet, source: TreeSource) -> TaskReport:
    return await agents.look(SYNC, source.tree)


async def sync(agents: Fleet, source: TreeSource) -> TaskReport:
    return await agents.sync(SYNC, source, RETRY)


async def command(agents: Fleet, _: TreeSource) -> TaskReport:
    return await agents.run_command(COMMAND)


async def remove(agents: Fleet, _: TreeSource) -> TaskReport:
    return await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")


async def itemise(agents: Fleet, source: TreeSource) -> TaskReport:
    sums = (await agents.itemise(SYNC, source)).sums
    assert sums is not None
    return TaskReport(
        task="",
        state="SUCCESS",
        message=sums.guards[0].message,
        warnings=sums.after,
        after=(AfterResult(name=sums.guards[0].reason, exit_code=0),),
    )


@pytest.mark.parametrize("state", ["SUCCESS", "FAILED"])
@pytest.mark.parametrize("ask", [look, sync, command, remove, itemise])
async def test_a_report_is_looked_through_beside_the_event_loop(
    tmp_path: Path,
    ask: Callable[[Fleet, TreeSource], Awaitable[TaskReport]],
    state: str,
) -> None:
    (tmp_path / "source").mkdir()
    source = await TreeSource.build(tmp_path / "source")
    may_hold(tmp_path / "web-1" / "status.json")  # this agent tells everybody
    name = f"report-{ask.__name__}-{state}"
    secret = Watched(canary(name))
    plain, coded = forms(name)

    async def agent(task: Work, channel: Channel) -> TaskReport:
        if ask is itemise and state == "SUCCESS":
            guard = Guard(reason=plain, message=f"{coded}\n" * LINES)
            assert isinstance(task, Task)
            await channel.send(Forecast(task=task.id, sums=Sums(guards=(guard,), after=(plain, coded))))
            return TaskReport(task=task.id, state="SUCCESS")
        return said(task, name, state)

    async with fleet(tmp_path, agent) as (agents, journal):
        # What is made of all that is known is made anew for the text that comes next.
        KNOWN.learn([secret])
        try:
            report = await ask(agents, source)
            assert state == "SUCCESS"
        except TaskFailed as error:
            assert state == "FAILED"
            report = error.report
            assert search_text(f"{error} {error.output} {error.details}", "an error") == []
        finally:
            secret.is_watched = False
        assert secret.times > 0
        assert_masked(report)
        assert_masked_in(journal)


def assert_masked(report: TaskReport) -> None:
    texts = [report.message, *report.warnings]
    texts += [text for ran in report.after for text in (ran.name, ran.output)]
    assert all("***" in text for text in texts if text)
    assert search_text("\n".join(texts), "a report") == []


def assert_masked_in(journal: Journal) -> None:
    for listed in journal.tasks():
        task = journal.task(listed.id)
        assert task is not None
        assert all("***" in attempt.log for attempt in task.attempts)
        assert search_text(repr(task), "the journal") == []
