"""Looks at hosts that begin with the pass, before it is known what is wanted there.

While directories are read and secrets are fetched, agents are asked what they will most likely be asked: what
they were asked last time. Where that is what is wanted to be known, they have answered when it comes to it;
where it is not, they are asked as if nothing had been asked before.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from agent.wire.messages import Task, TaskReport
from reconciler.background import background
from reconciler.desired_model import DesiredSync
from reconciler.errors import TrueupError
from reconciler.fleet import Fleet
from reconciler.observation import Unknown
from reconciler.observe import MAX_PARALLEL_LOOKS, Placed, placed_at, recorded_observation
from reconciler.status.documents import Recorded
from reconciler.sync_task import look_task


@dataclass(slots=True)
class AskedLast:
    """The sync targets that agents were last asked about, as they were wanted then: secrets among it, which
    leave memory for their agent alone."""

    spec_commit: str = ""
    syncs: Mapping[str, DesiredSync] = field(default_factory=dict, repr=False)

    def forget(self) -> None:
        self.spec_commit, self.syncs = "", {}


@dataclass(frozen=True, slots=True)
class Question:
    sync: DesiredSync
    placed: Placed

    @property
    def task(self) -> Task:
        """What the agent is told, but for the id."""
        return look_task("", self.sync, self.placed.tree, self.placed.owners)


def expected(
    last: AskedLast,
    recorded: Recorded,
    *,
    spec_commit: str,
    connected: Collection[str],
    acted_on: Collection[str],
) -> dict[str, Question]:
    """What agents will be asked if all is wanted as it was, by resource, save what is `acted_on`. Pure.

    Nothing where the spec has another commit: what was meant for a node then may be no more.
    """
    found: dict[str, Question] = {}
    if last.spec_commit != spec_commit:
        return found
    for id, sync in last.syncs.items():
        if id in acted_on or sync.target.node not in connected:
            continue
        status = recorded.syncs.get(id)
        placed = placed_at(sync, recorded_observation(status, interrupted=False), status)
        if isinstance(placed, Placed):
            found[id] = Question(sync, placed)
    return found


class _Look:
    """At one target; begun once there was a place for it."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.scope = trio.CancelScope()
        self.begun = False
        self.ended = trio.Event()
        self.report: TaskReport | None = None
        """None: there is none yet, or never will be."""

    async def run(self, fleet: Fleet) -> None:
        self.begun = True
        asked = self.question
        try:
            self.report = await fleet.look(asked.sync, asked.placed.tree, asked.placed.owners)
        except TrueupError:
            pass  # it is asked again, and that tells why if it is still so
        finally:
            self.ended.set()


class EarlyLooks:
    """Those of one pass. They run in `nursery`."""

    def __init__(self, last: AskedLast, nursery: trio.Nursery) -> None:
        self._last = last
        self._nursery = nursery
        self._agents: _AgentsAsked | None = None

    def begin(
        self, fleet: Fleet, recorded: Recorded, *, spec_commit: str, acted_on: Collection[str]
    ) -> "_AgentsAsked":
        """Ask what is expected of agents that are there; gives the agents as who looks later sees them."""
        questions = expected(
            self._last, recorded, spec_commit=spec_commit, connected=fleet.connected(), acted_on=acted_on
        )
        self._agents = agents = _AgentsAsked(fleet, spec_commit, questions.values())
        agents.start(self._nursery)
        return agents

    def keep(self) -> None:
        """Remember for the next pass what this one has asked."""
        self._last.forget()
        if self._agents is not None:
            self._last.spec_commit, self._last.syncs = self._agents.spec_commit, self._agents.asked


@asynccontextmanager
async def early_looks(last: AskedLast) -> AsyncIterator[EarlyLooks]:
    """For one look at everything, at whose end none of them goes on."""
    async with background() as nursery:
        looks = EarlyLooks(last, nursery)
        yield looks
        looks.keep()


class _AgentsAsked:
    """Agents some of whom have been asked already. Implements `observe.Agents`."""

    def __init__(self, fleet: Fleet, spec_commit: str, questions: Iterable[Question]) -> None:
        self._fleet = fleet
        self._early = {question.sync.id: _Look(question) for question in questions}
        self._is_early = True
        self.spec_commit = spec_commit
        self.asked: dict[str, DesiredSync] = {}

    def start(self, nursery: trio.Nursery) -> None:
        places = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)

        async def run(look: _Look) -> None:
            with look.scope:
                async with places:
                    if self._is_early:
                        await look.run(self._fleet)

        for look in self._early.values():
            nursery.start_soon(run, look)

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        return await self._fleet.wait_connected(nodes)

    def why_not_connected(self, node: str) -> Unknown:
        return self._fleet.why_not_connected(node)

    async def look(self, sync: DesiredSync, tree: bytes, owners: bytes = b"") -> TaskReport:
        """What the agent was asked early if that is the same; otherwise it is asked now.

        One task waits for another of its target at the agent, so one that was given up is in nobody's way. No
        more than find a place at once ever are: from now on none begins early.
        """
        self._is_early = False
        self.asked[sync.id] = sync
        early = self._early.pop(sync.id, None)
        if early is not None:
            # The id names the node: it is the same agent.
            if early.begun and early.question.task == Question(sync, Placed(tree, owners)).task:
                await early.ended.wait()
                if early.report is not None:
                    return early.report
            early.scope.cancel()
        return await self._fleet.look(sync, tree, owners)
