"""The loop of a running primary: a pass at its start, at intervals, and whenever somebody says "look now".

Requests coalesce: one pass runs at a time, and however many ask meanwhile, one more follows. No error of a
pass ends the loop.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

import structlog
import trio

from agent.backoff import Backoff
from agent.failures import single
from agent.routing import Session
from reconciler.apply import Outcome
from reconciler.back_off import FIRST, LONGEST, BackOff
from reconciler.directory_watch import DirectoryWatch
from reconciler.drift import resources_of
from reconciler.errors import JournalUnavailable, SpecInvalid
from reconciler.exit_codes import ExitCode, pass_exit_code
from reconciler.healing import heal
from reconciler.inbox import Inbox
from reconciler.journal_events import NewEvent
from reconciler.metrics.declared import LAST_GOOD_PASS, PASS_DURATION, PASSES
from reconciler.mishaps import line_for_log, way_to
from reconciler.notifications.notifier import Notifier
from reconciler.ongoing import Ongoing
from reconciler.pass_requests import PassRequest, request_for
from reconciler.plan import Action, Step
from reconciler.primary import Primary
from reconciler.reconcile import Pass, reconcile
from reconciler.status.conditions import Reason
from reconciler.timetable import FIRST_BACKOFF, Timetable
from reconciler.tracing import new_trace, trace

log: structlog.stdlib.BoundLogger = structlog.get_logger()

START_PATIENCE: Final = 10.0
PATIENCE: Final = 2.0
"""Seconds to wait for agents that are away. After a start all of them are, and most come within seconds; one
that comes later asks for a pass itself."""


OF_STEPS: Final = frozenset({Reason.PROGRESSING, Reason.BACKING_OFF})
"""Reasons of findings that tell of no trouble of their own."""


@dataclass(frozen=True, slots=True)
class LastPass:
    """How the last pass ended."""

    ended_at: datetime
    exit_code: ExitCode
    error: str | None = None
    """Why it could not be made."""


class Runner:
    """Makes the passes of one primary. `draw` gives numbers from 0 to 1."""

    def __init__(self, primary: Primary, *, draw: Callable[[], float] = random.random) -> None:
        self.primary = primary
        self.last: LastPass | None = None
        self.inbox = Inbox(primary, self.ask)
        self.notifier = Notifier(primary, draw=draw)
        interval = primary.settings.interval
        backoff = Backoff(first=min(FIRST_BACKOFF, interval), longest=interval, draw=draw)
        self._timetable = Timetable(interval=interval, draw=draw, backoff=backoff)
        self._ongoing = Ongoing(
            BackOff(lambda: Backoff(first=FIRST, longest=max(interval, LONGEST), draw=draw)),
            wait_due=self._wait_due,
            applies=lambda: self._timetable.applies(trio.current_time()),
            told=self._step_ended,
        )
        primary.directories.on_late = self._directory_read
        self._asked = trio.Event()
        self._passed = trio.Event()
        self._away: frozenset[str] = frozenset()
        """Nodes that a pass missed, or may have lost within a step, and that have not come since."""
        self._sessions: Mapping[str, Session] = {}
        """Those that stood when it was looked last."""
        self._problems: tuple[str, ...] = ()
        self._findings: dict[str, str] = {}
        """What was told of resources that are not in order, by resource."""

    @property
    def is_asked(self) -> bool:
        """Whether a pass is asked for that has not begun."""
        return self._timetable.is_asked

    def ask(
        self,
        why: str,
        *,
        resources: Collection[str] = (),
        environments: Collection[str] = (),
        forced: Collection[str] = (),
    ) -> None:
        """Let a pass begin as soon as none is under way; one that waits for health looks whether to go on.

        Nothing named: it applies all that is due. Otherwise what is named, and what that depends on: by id,
        by the beginning of ids (`projects/production/site`), or by kind and name (`services/web`,
        `repositories/app`, `secrets/vault`, `nodes/web-1`). The `forced` ones get a step though nothing
        changed. May be called often: requests that no pass has taken yet become one.
        """
        self.primary.calls.call()
        with trace() as trace_id:
            if not self._timetable.is_asked:
                log.info("a pass was asked for", why=why)
            else:
                log.debug("a pass was asked for that is about to come", why=why)
        self._timetable.ask(request_for(resources, environments, forced, trace_id), trio.current_time())
        self._asked.set()

    async def run(self, stop: trio.Event) -> None:
        """Make passes until `stop` is set. Then nothing begins any more, and what runs is waited for."""
        patience = START_PATIENCE
        self._ongoing.stop = stop
        while not stop.is_set():
            await self._make_pass(patience)
            patience = PATIENCE
            async with trio.open_nursery() as nursery:
                nursery.start_soon(then, stop.wait, nursery.cancel_scope.cancel)
                await self._wait_due()
                nursery.cancel_scope.cancel()
        self._ongoing.let_go_for_good()
        await self._ongoing.wait_idle()

    async def _wait_due(self) -> None:
        while (due := self._timetable.due_at(self._ongoing.back_off.retry_at())) > trio.current_time():
            self._asked = trio.Event()
            with trio.move_on_at(due):
                await self._asked.wait()

    async def keep_secrets_fresh(self) -> NoReturn:
        """Fetch secrets ahead of need, for ever, and ask for a pass where that brought other values."""
        await lasting("refreshing secrets", lambda: self.primary.keep_secrets_fresh(self._secret_changed))

    async def act_on_deliveries(self) -> NoReturn:
        """Act on what webhooks delivered, for ever, what a killed primary left included."""
        await lasting("acting on deliveries", self.inbox.run)

    async def tell_people(self) -> NoReturn:
        """Send notifications, for ever, those included that a killed primary left."""
        await lasting("sending notifications", self.notifier.run)

    async def watch_agents(self) -> None:
        """Ask for a pass when a node comes that the last pass missed, and when one comes back."""
        while True:
            passed, hub = self._passed, self.primary.hub
            if hub is None:
                await passed.wait()
                continue
            self._welcome()
            await hub.wait_change()

    async def watch_drift(self) -> NoReturn:
        """Ask for a pass of what agents say has drifted, for ever."""
        await lasting("heeding agents that tell of drift", self._heed_drift)

    async def watch_directories(self) -> NoReturn:
        """Ask for a pass of projects whose directory on this machine changed, for ever."""
        await lasting("watching directories", lambda: DirectoryWatch(self.primary, self.ask).run())

    async def _heed_drift(self) -> NoReturn:
        while True:
            passed, hub = self._passed, self.primary.hub
            if hub is None:
                await passed.wait()
                continue
            with trio.move_on_at(hub.drifts.due_at()):
                await hub.wait_drift()
            drifts, looked = list(hub.drifts.due(trio.current_time())), self.primary.looked
            spec = looked.spec if looked is not None else self.primary.spec
            drifted = resources_of(drifts, spec) if spec is not None else {}
            if not drifted:
                continue
            nodes = ", ".join(sorted({drift.node for drift in drifted.values()}))
            events = [
                NewEvent(
                    "drift",
                    id,
                    Reason.DRIFT_DETECTED,
                    f"the agent of {drift.node} sees {_entries(drift.count)} not as placed",
                )
                for id, drift in drifted.items()
            ]
            with suppress(JournalUnavailable):  # history alone
                await trio.to_thread.run_sync(self.primary.journal.record_events, events)
            self.ask(f"drift on {nodes}", resources=drifted.keys())

    async def _make_pass(self, patience: float) -> None:
        """One pass, whatever becomes of it."""
        request = self._timetable.take(trio.current_time(), self._ongoing.back_off.retry_at())
        began = trio.current_time()
        with trace(request.traces[0] if request.traces else new_trace(), causes=request.traces):
            if len(request.traces) > 1:
                log.info("a pass for several who asked", traces=list(request.traces))
            await self._try(patience, request)
        self.primary.metrics.observe(PASS_DURATION, trio.current_time() - began)
        self._passed.set()
        self._passed = trio.Event()
        self._welcome()

    async def _try(self, patience: float, request: PassRequest) -> None:
        code: ExitCode = ExitCode.FAILED
        error: str | None = None
        try:
            leadership = self.primary.leadership
            if leadership is not None and leadership.is_unsure:
                done = await heal(
                    self.primary, patience=patience, on_change=_tell_step, ongoing=self._ongoing
                )
            else:
                done = await reconcile(
                    self.primary,
                    patience=patience,
                    request=request,
                    on_change=_tell_step,
                    ongoing=self._ongoing,
                )
        except Exception as raised:
            cause = single(raised) if isinstance(raised, BaseExceptionGroup) else raised
            error = line_for_log(raised)
            code = ExitCode.SPEC_INVALID if isinstance(cause, SpecInvalid) else code
            log.debug("the way to where the pass broke off", calls=way_to(raised))
            pause = self._timetable.failed(request, trio.current_time())
            log.error("no pass could be made", error=error, again_in=f"{pause:.0f}s")
        else:
            self._timetable.ended(request, trio.current_time(), let_go=done.let_go)
            code = pass_exit_code(done)
            hub = self.primary.hub
            self._away = done.away | {node for node in self._away if hub is not None and hub.knows(node)}
            self._tell_pass(done)
            if any(outcome.reason == Reason.SUPERSEDED for outcome in done.outcomes.values()):
                self.ask("a wait for health was overtaken")
        self.last = LastPass(self.primary.now(), code, error)
        self.primary.metrics.count(PASSES, outcome=code.name.lower())
        if code is ExitCode.DONE:
            self.primary.metrics.set(LAST_GOOD_PASS, self.last.ended_at.timestamp())
        self.primary.bulletin.tell()

    def _tell_pass(self, done: Pass) -> None:
        problems = tuple(map(str, done.problems))
        if problems != self._problems:
            for problem in problems:
                log.warning("the spec has an error", problem=problem)
            self._problems = problems
        # What runs or is tried again is told by its own steps.
        findings = {each.resource: each for each in done.plan.findings if each.reason not in OF_STEPS}
        for finding in findings.values():
            if self._findings.get(finding.resource) != finding.reason:
                log.warning(
                    "not in order", resource=finding.resource, reason=finding.reason, why=finding.message
                )
        for resource in self._findings.keys() - findings.keys() - done.outcomes.keys() - done.left:
            log.info("in order again", resource=resource)
        left = {id: self._findings[id] for id in self._findings.keys() & done.left}
        self._findings = left | {id: finding.reason for id, finding in findings.items()}
        if done.outcomes or done.status_commit is not None:
            succeeded = sum(outcome.state == "succeeded" for outcome in done.outcomes.values())
            log.info("pass ended", applied=succeeded, not_applied=len(done.outcomes) - succeeded)
        else:
            log.debug("pass ended; nothing to do")

    def _step_ended(self, resource: str, late: bool) -> None:
        if late:
            self.ask(f"{resource} ended")
        self._asked.set()

    def _welcome(self) -> None:
        hub = self.primary.hub
        before, self._sessions = self._sessions, hub.standing() if hub is not None else {}
        # Also one that was back before anybody saw it go.
        self._away |= {node for node, was in before.items() if self._sessions.get(node) is not was}
        back = self._away & self._sessions.keys()
        if back:
            self._away -= back
            self.ask(f"connected: {', '.join(sorted(back))}", resources=[f"nodes/{node}" for node in back])

    def _directory_read(self, resource: str) -> None:
        self.ask(f"the directory of {resource} was read", resources=[resource])

    def _secret_changed(self, source: str, environment: str) -> None:
        self.ask(
            f"secret source {source} has other values for {environment or 'no environment'}",
            resources=[f"secrets/{source}"],
        )


def _entries(count: int) -> str:
    return "1 entry that is" if count == 1 else f"{count} entries that are"


async def lasting(what: str, run: Callable[[], Awaitable[object]]) -> NoReturn:
    """Run something that should go on for ever; a mistake in it is one line, and it begins again."""
    backoff = Backoff(first=1.0, longest=60.0)
    while True:
        try:
            await run()
        except Exception as raised:
            log.error(f"{what} broke off", error=line_for_log(raised))
            log.debug(f"the way to where {what} broke off", calls=way_to(raised))
        await trio.sleep(backoff.next())


async def then(wait: Callable[[], Awaitable[None]], act: Callable[[], None]) -> None:
    """Do something once something else has happened."""
    await wait()
    act()


def _tell_step(step: Step, outcome: Outcome | None) -> None:
    if outcome is not None and outcome.state == "succeeded":
        log.info("step applied", action=step.action, resource=step.resource, reason=step.reason)
        if step.action is Action.REMOVE:
            for warning in outcome.warnings:
                log.warning(warning, resource=step.resource)
