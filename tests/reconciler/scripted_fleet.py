"""A fleet of one node for tests: its agent, a real one, reports what a test says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.wire.channel import Channel
from agent.wire.messages import TaskReport, Work
from agent.workers import Runner
from reconciler.deploy.request import NodeCommand
from reconciler.fleet import Fleet
from reconciler.journal import Journal
from reconciler.secrets.values import Secret
from reconciler.spec.model import Retry
from reconciler.sync.hub import Serve
from reconciler.sync.serving import TreeSource
from tests.canaries import canary
from tests.connected import connected, make_node, running_hub
from tests.reconciler.facts import only_sync

SYNC = only_sync(
    "projects: {site: {repository: app, branch: main, path: site,"
    " sync: {nodes: [{node_id: web-1, target_path: /srv/site, exclude: ['*.bak']}]}}}\n"
)
TREE = b"\1" * 32
RETRY = Retry(attempts=3, backoff=0.001, max_backoff=0.002)
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


class Script:
    """An agent that reports what it was told to, one report for each task."""

    def __init__(self, *reports: dict[str, object]) -> None:
        self.reports = list(reports)
        self.tasks: list[Any] = []

    async def __call__(self, task: Work, channel: Channel) -> TaskReport:
        self.tasks.append(task)
        fields = {"state": "SUCCESS", "established": TREE, **self.reports.pop(0)}
        return TaskReport(task=task.id, **fields)  # type: ignore[arg-type]


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
