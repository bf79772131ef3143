"""The steps of one pass with all they need, for as long as one of them is under way."""

import structlog
import trio

from reconciler.apply import Application, OnChange, Outcome
from reconciler.back_off import keys_of
from reconciler.desired import DesiredService
from reconciler.health import HealthChecks
from reconciler.health_status import checks_due
from reconciler.metrics.slots import counted
from reconciler.mishaps import line_for_log, way_to
from reconciler.ongoing import Ongoing
from reconciler.plan import Step
from reconciler.prepared import Prepared, deploying
from reconciler.primary import Primary
from reconciler.release_steps import ReleaseSteps
from reconciler.step_recorder import JournalRecorder
from reconciler.steps import Steps
from reconciler.superseded import Newer
from reconciler.sync.sources import ProjectSources
from reconciler.verification import Verification

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def recorder_of(primary: Primary, prepared: Prepared) -> JournalRecorder:
    """Of a pass whose steps begin now. Raises JournalUnavailable."""
    return await JournalRecorder.start(
        primary.journal,
        prepared.desired,
        primary.now,
        primary.bulletin.tell,
        primary.metrics,
        prepared.published,
    )


class Work:
    """With `ongoing`, of a running primary, the pass may be over before the steps are."""

    def __init__(
        self,
        primary: Primary,
        prepared: Prepared,
        recorder: JournalRecorder,
        *,
        on_change: OnChange,
        ongoing: Ongoing | None = None,
    ) -> None:
        spec = prepared.spec.spec
        self._primary = primary
        self._prepared = prepared
        self._ongoing = ongoing
        self._keys = keys_of(prepared.plan)
        self._is_late = False
        self._error: Exception | None = None
        self._finished = trio.Event()
        self._resources = {resource.id: resource for resource in prepared.desired.resources}
        newer = Newer(
            spec,
            primary.settings.require_spec_repo(),
            primary.settings.spec_branch,
            primary.repositories,
            primary.calls,
        )
        self._health = HealthChecks(spec, newer, primary.repositories, primary.checkouts, primary.run_context)
        self.releases = ReleaseSteps(
            spec,
            prepared.decided.decisions,
            prepared.decided.facts,
            repositories=primary.repositories,
            verification=Verification(primary.repositories, primary.settings),
            spec_branch=prepared.spec.branch,
            now=primary.now,
            signing_key=primary.settings.signing_key_file,
        )
        recorder.revision_of = self.releases.revision_of
        self.application = Application(prepared.plan, recorder, on_change=on_change, on_end=self._step_ended)
        self.looked: dict[str, str | None] = {}
        """By service that has no step, whether it is healthy."""

    @property
    def was_let_go(self) -> bool:
        """The pass is over although something of it runs, or was not begun."""
        return self._is_late or bool(self.application.dropped)

    async def run(self) -> None:
        """Until all has ended or is let go; meanwhile the health of what has no step is looked at."""
        not_to_ask = (*deploying(self._prepared.plan), *self._prepared.left)
        due, _ = checks_due(self._prepared.desired, self._prepared.recorded, not_to_ask)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._health.look, due, self.looked)
            if self._ongoing is None:
                await self._apply()
            else:
                await self._apply_until_due(self._ongoing)
                if self._is_late:
                    nursery.cancel_scope.cancel()

    async def keep(self, stop: trio.Event) -> None:
        """Carry out steps that need no lease, until all have ended; from `stop` on none begins."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._let_go_when_set, stop)
            await self._apply(guarded=False)
            nursery.cancel_scope.cancel()

    async def _apply(self, *, guarded: bool = True) -> None:
        primary, prepared, spec = self._primary, self._prepared, self._prepared.spec.spec
        async with ProjectSources(
            spec,
            primary.repositories,
            primary.checkouts,
            primary.run_context,
            prepared.directories,
            primary.lasting_checkouts,
        ) as sources:
            steps = Steps(
                spec,
                prepared.desired,
                repositories=primary.repositories,
                sources=sources,
                releases=self.releases,
                fleet=prepared.fleet,
                secret_targets=primary.secret_targets(spec),
                secret_exports=primary.secret_exports(spec),
                recorded=prepared.recorded,
                observed=prepared.observed.resources,
                health=self._health,
                checkouts=primary.checkouts,
                context=primary.run_context,
                lanes=primary.lanes,
            )
            assert primary.leadership is not None  # a pass is made by who has the state directory to itself
            executors = steps.executors()
            if guarded:
                executors = primary.leadership.guarding(executors)
            await self.application.run(executors, counted(steps.slot, primary.metrics))

    async def _apply_until_due(self, ongoing: Ongoing) -> None:
        ongoing.applies()
        self._primary.in_background(self._go_on, ongoing)
        async with trio.open_nursery() as waiting:
            waiting.start_soon(self._let_go_when_due, ongoing, waiting.cancel_scope)
            waiting.start_soon(self._let_go_when_set, ongoing.stop)
            await self._finished.wait()
            waiting.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    async def _let_go_when_due(self, ongoing: Ongoing, waiting: trio.CancelScope) -> None:
        await ongoing.wait_due()
        self.application.let_go()
        if self.application.left:
            self._is_late = True
            ongoing.take(self.application)
            log.debug("goes on without the pass", resources=sorted(self.application.left))
            waiting.cancel()

    async def _let_go_when_set(self, stop: trio.Event) -> None:
        """What has begun may end, and the pass with it."""
        await stop.wait()
        self.application.let_go(for_good=True)

    async def _go_on(self, ongoing: Ongoing) -> None:
        try:
            await self._apply()
        except Exception as error:
            if self._is_late:
                log.error("steps broke off", error=line_for_log(error))
                log.debug("the way to where they broke off", calls=way_to(error))
            else:
                self._error = error
        finally:
            self._finished.set()
            ongoing.released(self.application)

    def _step_ended(self, step: Step, outcome: Outcome, record: int | None) -> None:
        if self._ongoing is None or record is None:
            return
        dependents = []
        for id in self._ongoing.back_off.failing():
            resource = self._resources.get(id)
            if resource is not None:
                follows = resource.follows if isinstance(resource, DesiredService) else ()
                dependents += [id] if step.resource in (*resource.depends_on, *follows) else []
        key = self._keys[step.resource]
        self._ongoing.step_ended(step, key, outcome, record, dependents, late=self._is_late)
