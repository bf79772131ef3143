"""Looks at everything that the page shows, and renders it: once for all who watch, however many they are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from reconciler.control.state import fold
from reconciler.enrolling import LONGEST_LOOK, newest_spec
from reconciler.errors import TrueupError
from reconciler.runner import Runner
from reconciler.secret_uses import asked_environments
from reconciler.secrets.freshness import Freshness
from reconciler.spec.model import Node, Spec
from reconciler.status.documents import Recorded
from reconciler.web.page.facts import Facts, Setup
from reconciler.web.page.render import Section, sections
from reconciler.web.page.view import page_of

if TYPE_CHECKING:
    from reconciler.journal import Journal
    from reconciler.journal_records import EventRecord, StepRecord, TaskRecord
    from reconciler.sync.hub import Hub

TASKS: Final = 30
EVENTS: Final = 50
STEPS: Final = 1000

SHORTEST: Final = 0.5
"""Seconds that one look serves, also where something changed since."""

LONGEST: Final = 1.5
"""Seconds that one look serves where nobody told of a change."""


@dataclass(frozen=True, slots=True)
class _Looked:
    version: int
    at: float
    facts: Facts
    rendered: Mapping[frozenset[str], tuple[Section, ...]]


class Looking:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._one_at_a_time = trio.Lock()
        self._last: _Looked | None = None

    async def sections(self, deeds: Collection[str], *, anew: bool = False) -> tuple[Section, ...]:
        """The page as it is now, for somebody who may do these deeds. `anew`: nothing older will do."""
        wanted = frozenset(deeds)
        async with self._one_at_a_time:
            looked = self._last
            if looked is None or anew or self._is_old(looked):
                version = self._runner.primary.bulletin.version
                looked = _Looked(version, trio.current_time(), await self._look(), {})
            if wanted not in looked.rendered:
                made = await trio.to_thread.run_sync(_render, looked.facts, wanted)
                looked = replace(looked, rendered={**looked.rendered, wanted: made})
            self._last = looked
            return looked.rendered[wanted]

    def _is_old(self, looked: _Looked) -> bool:
        age = trio.current_time() - looked.at
        changed = looked.version != self._runner.primary.bulletin.version
        return age >= LONGEST or (changed and age >= SHORTEST)

    async def _look(self) -> Facts:
        runner, primary = self._runner, self._runner.primary
        settings, last = primary.settings, self._runner.last
        before = self._last.facts if self._last is not None else Facts()
        recorded = primary.status.known
        # Where git cannot be read, the last pass counts, as for the API.
        control = primary.looked.control if primary.looked is not None else before.control
        tip, trouble = None, ""
        with trio.move_on_after(LONGEST_LOOK) as looking:
            try:
                recorded = await primary.status.read()
                control = fold(await primary.operators.read_after(recorded))
            except TrueupError as error:
                # Before the first pass nothing was fetched yet; later it is worth to be told.
                trouble = str(error) if runner.last is not None else ""
            tip = await self._tip(recorded)
        if looking.cancelled_caught and last is not None:
            trouble = trouble or "what git has could not be read in time; this is what the last pass found"
        tasks, events, steps = before.tasks, before.events, before.steps
        try:
            tasks, events, steps = await trio.to_thread.run_sync(_read_journal, primary.journal)
        except TrueupError as error:
            trouble = trouble or str(error)
        spec = primary.spec
        return Facts(
            setup=Setup(
                branch=settings.spec_branch,
                webhook=settings.webhook_secret is not None or settings.infisical_webhook_secret is not None,
                interval=settings.interval,
            ),
            passed=last is not None,
            ended_at=last.ended_at if last is not None else None,
            error=(last.error or "") if last is not None else "",
            trouble=trouble,
            spec=spec,
            tip=tip,
            recorded=recorded,
            control=control,
            connected=primary.hub.connected() if primary.hub is not None else frozenset(),
            versions=_versions(primary.hub),
            tasks=tasks,
            progress={each.id: found for each in tasks if (found := primary.running.progress(each.id))},
            events=events,
            steps=steps,
            sources=primary.secret_sources(spec) if spec is not None else {},
            freshness=self._freshness(spec) if spec is not None else {},
        )

    async def _tip(self, recorded: Recorded) -> Mapping[str, Node] | None:
        try:
            return (await newest_spec(self._runner.primary, recorded)).nodes
        except TrueupError:  # the pass that comes upon it tells why
            return None

    def _freshness(self, spec: Spec) -> dict[tuple[str, str], Freshness]:
        store = self._runner.primary.secret_store(spec)
        asked = [(name, each) for name, all in asked_environments(spec).items() for each in all]
        return {pair: store.freshness_in(*pair) for pair in asked}


def _versions(hub: "Hub | None") -> dict[str, str]:
    peers = {node: hub.peer(node) for node in hub.connected()} if hub is not None else {}
    return {node: peer.agent_version for node, peer in peers.items() if peer is not None}


def _render(facts: Facts, deeds: frozenset[str]) -> tuple[Section, ...]:
    return sections(page_of(facts), deeds)


def _read_journal(
    journal: "Journal",
) -> "tuple[tuple[TaskRecord, ...], tuple[EventRecord, ...], tuple[StepRecord, ...]]":
    tasks = journal.tasks(TASKS, with_logs=True)
    return tasks, journal.events(EVENTS), journal.steps(limit=STEPS, in_short=True)
