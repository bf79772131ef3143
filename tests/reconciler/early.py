"""A primary's end of one host whose agent, a real one, answers as a test says: for looks that begin early."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from agent.wire.channel import Channel
from agent.wire.messages import Task, TaskReport
from reconciler.desired import Desired, DesiredSync
from reconciler.early_looks import AskedLast, early_looks
from reconciler.fleet import Fleet
from reconciler.hashing import Inputs
from reconciler.journal import Journal
from reconciler.metrics.registry import Metrics
from reconciler.observation import Observation, Present
from reconciler.observe import Observed, observe
from reconciler.status.documents import InputDigests, Recorded, SyncStatus
from tests.connected import DEADLINE, Node, Setup, make_node, running_hub
from tests.reconciler.facts import desired
from tests.reconciler.scripted_fleet import serve
from tests.reconciler.test_observe import NoExports, NoTargets

TREE = b"\1" * 32
INPUTS = Inputs({"path site": "p"}, {})
SITE = "projects/branch/site/web-1/srv+site"


def wanted(*paths: str) -> Desired:
    """A project with these targets on one node."""
    targets = ", ".join(f"{{node_id: web-1, target_path: /srv/{path}}}" for path in paths or ("site",))
    return desired(
        f"projects: {{site: {{repository: app, branch: main, path: site, sync: {{nodes: [{targets}]}}}}}}\n"
    )


def changed(whole: Desired, **changes: object) -> Desired:
    return replace(
        whole,
        resources=tuple(
            replace(each, **changes) if isinstance(each, DesiredSync) else each  # type: ignore[arg-type]
            for each in whole.resources
        ),
    )


def placed(whole: Desired, tree: bytes = TREE) -> Recorded:
    recorded = Recorded()
    for sync in whole.syncs().values():
        recorded = recorded.put(
            SyncStatus(
                id=sync.id,
                node=sync.target.node,
                target_path=sync.target.target_path,
                config_hash="v1:11111111:a:b",
                inputs=InputDigests.of(INPUTS),
                tree_digest=tree.hex(),
                last_attempted_revision="main@sha1:1",
            )
        )
    return recorded


@dataclass
class Host:
    """What an agent is asked, and answers: all is as it was placed, unless `answers` has something else."""

    tasks: list[Task] = field(default_factory=list)
    answers: list[dict[str, object]] = field(default_factory=list)
    held: Collection[str] = ()
    """Targets at which a look ends only after `release`, also once it was called off."""
    release: trio.Event = field(default_factory=trio.Event)
    called_off: trio.Event = field(default_factory=trio.Event)
    _came: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, task: Task, channel: Channel) -> TaskReport:
        self.tasks.append(task)
        self._came.set()
        self._came = trio.Event()
        answer = self.answers.pop(0) if self.answers else {}
        if task.observe and task.target_path in self.held and not self.release.is_set():
            try:
                await self.release.wait()
            except trio.Cancelled:
                self.called_off.set()
                with trio.CancelScope(shield=True):
                    await self.release.wait()
                raise
        fields = {
            "state": "SUCCESS",
            "observed": task.tree,
            "established": task.tree,
            "rendered_equal": True,
            "after_done": True,
            "files_known": 7,
            **answer,
        }
        return TaskReport(task=task.id, **fields)  # type: ignore[arg-type]

    async def asked(self, count: int) -> None:
        """Until that many tasks have come in all."""
        with trio.fail_after(DEADLINE):
            while len(self.tasks) < count:
                await self._came.wait()


async def nothing() -> None:
    """Between the beginning of a pass and the look at hosts."""


@dataclass
class Installation:
    setup: Setup
    node: Node
    host: Host
    fleet: Fleet
    journal: Journal
    metrics: Metrics
    last: AskedLast = field(default_factory=AskedLast)

    async def one_pass(
        self,
        whole: Desired,
        recorded: Recorded | None = None,
        *,
        meanwhile: Callable[[], Awaitable[None]] = nothing,
        spec_commit: str = "c1",
        acted_on: Collection[str] = (),
    ) -> Observed:
        """The part of a pass that looks at hosts; `meanwhile` is when everything else is looked at."""
        known = placed(whole) if recorded is None else recorded
        async with early_looks(self.last) as early:
            agents = early.begin(self.fleet, known, spec_commit=spec_commit, acted_on=acted_on)
            await meanwhile()
            return await observe(whole, known, agents, secret_targets=NoTargets(), secret_exports=NoExports())

    async def first_pass(self, whole: Desired) -> None:
        """One with nothing known of earlier ones, whose tasks are not counted."""
        await self.one_pass(whole)
        self.host.tasks.clear()


@asynccontextmanager
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    """A node that is enrolled, and not connected."""
    node, host, metrics = make_node(tmp_path), Host(), Metrics()
    metrics.open()
    with Journal(tmp_path / "journal.sqlite") as journal:
        async with running_hub(tmp_path, [node.enrolment(paired=True)], serve=serve) as setup:
            node.memory.remember_server(setup.hub.fingerprint)
            fleet = Fleet(setup.hub, journal, patience=0.05, metrics=metrics)
            yield Installation(setup, node, host, fleet, journal, metrics)


def intact(drift: str = "") -> Observation:
    return Present("v1:11111111:a:b", INPUTS, drift)
