"""What an agent says a sync would do goes to terminals, the API and the page: no secret is in it."""

import base64
from pathlib import Path

import pytest

from agent.wire.channel import Channel
from agent.wire.forecast import Forecast, Guard, Sums
from agent.wire.messages import TaskReport, Work
from reconciler.fleet import TaskFailed
from reconciler.secrets.known import KNOWN
from reconciler.secrets.values import Secret
from reconciler.sync.serving import TreeSource
from tests.canaries import canary
from tests.reconciler.scripted_fleet import SYNC, fleet

KNOWN_VALUE = canary("itemise")
ENCODED = base64.b64encode(KNOWN_VALUE.encode()).decode()
assert not ENCODED.endswith("=")  # all of its characters are the value's alone


@pytest.fixture
async def source(tmp_path: Path) -> TreeSource:
    KNOWN.learn([Secret(KNOWN_VALUE)])
    directory = tmp_path / "source"
    directory.mkdir()
    return await TreeSource.build(directory)


async def test_guards_and_commands(tmp_path: Path, source: TreeSource) -> None:
    async def agent(task: Work, channel: Channel) -> TaskReport:
        guard = Guard(reason="DiskFull", message=f"no room for {ENCODED}, that is {KNOWN_VALUE}")
        sums = Sums(counts={"create": 1}, unlisted=1, guards=(guard,), after=(f"tell-{KNOWN_VALUE}",))
        await channel.send(Forecast(task=task.id, sums=sums))
        return TaskReport(task=task.id, state="SUCCESS")

    async with fleet(tmp_path, agent) as (agents, _):
        told = await agents.itemise(SYNC, source)
    assert told.sums == Sums(
        counts={"create": 1},
        unlisted=1,
        guards=(Guard(reason="DiskFull", message="no room for ***, that is ***"),),
        after=("tell-***",),
    )


async def test_why_it_could_not_look(tmp_path: Path, source: TreeSource) -> None:
    async def agent(task: Work, _: Channel) -> TaskReport:
        return TaskReport(task=task.id, state="FAILED", message=f"could not look: {ENCODED}")

    async with fleet(tmp_path, agent) as (agents, _):
        with pytest.raises(TaskFailed, match=r"^could not look: \*\*\*$"):
            await agents.itemise(SYNC, source)
