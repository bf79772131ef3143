"""What a running primary keeps from pass to pass: steps that go on when their pass is over, and failures.

A pass that somebody does not want to wait for lets go of its steps: those that have begun go on here.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
import trio

from reconciler.apply import Application, Outcome
from reconciler.back_off import BackOff, without_failing
from reconciler.carried import Carried, End
from reconciler.plan import Plan, Step

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass
class Ongoing:
    back_off: BackOff
    wait_due: Callable[[], Awaitable[None]]
    """Until a pass that applies is to let go of its steps."""
    applies: Callable[[], None]
    """Told when a pass begins to apply."""
    told: Callable[[str, bool], None]
    """Told of which resource a step has ended, and whether its pass was over."""
    stop: trio.Event = field(default_factory=trio.Event)
    """Set when nothing is to begin any more."""
    _applications: list[Application] = field(default_factory=list)
    """Whose passes are over, and that have not ended."""
    _ended: dict[str, End] = field(default_factory=dict)
    _changed: trio.Event = field(default_factory=trio.Event)

    def carried(self) -> Carried:
        """To be taken before the journal is read: a step that ends in between counts as under way."""
        running = [(id, step, each) for each in self._applications for id, step in each.left.items()]
        return Carried(
            {id: step for id, step, _ in running},
            frozenset(each.records[id] for id, _, each in running if id in each.records),
            dict(self._ended),
        )

    def call_off(self, resources: Mapping[str, str]) -> None:
        """Break off what runs for something that is not wanted any more: by resource, why."""
        for id, why in resources.items():
            for application in self._applications:
                if id in application.left:
                    application.call_off(id, why)

    def without_failing(
        self, plan: Plan, named: Collection[str], carried: Carried, wall: datetime
    ) -> tuple[Plan, dict[str, Step]]:
        """The plan without what failed and whose time has not come, and the steps that were taken out."""
        now = trio.current_time()
        self.back_off.keep({*(step.resource for step in plan.steps), *carried.under_way})
        return without_failing(
            plan,
            self.back_off,
            named,
            now,
            clock=lambda at: wall + timedelta(seconds=at - now),
            untold={id for id, end in carried.ended.items() if end.outcome.state == "failed"},
        )

    def take(self, application: Application) -> None:
        """The pass of these steps is over; they go on."""
        self._applications.append(application)

    def released(self, application: Application) -> None:
        """All of them have ended, or nobody carries them out any more."""
        if application in self._applications:
            self._applications.remove(application)
            self._changed.set()
            self._changed = trio.Event()

    def step_ended(
        self, step: Step, key: str, outcome: Outcome, record: int, dependents: Iterable[str], *, late: bool
    ) -> None:
        """`dependents`: what depends on its resource. `late`: its pass was over."""
        now = trio.current_time()
        if outcome.state == "succeeded":
            self.back_off.succeeded(step.resource, dependents, now)
        elif outcome.state == "failed":
            pause = self.back_off.failed(step.resource, key, outcome.reason, now)
            if pause is not None:
                log.info("to be tried again", resource=step.resource, again_in=f"{pause:.0f}s")
        # Also that of a pass which goes on: should it not get to telling it, the next one does.
        self._ended[step.resource] = End(step, key, outcome, record)
        self.told(step.resource, late)

    def settle(self, carried: Carried, told: Iterable[str], left: Collection[str]) -> None:
        """A pass has `told` these ends. What it `left` as it was is told later, others never."""
        for id in told:
            self._ended.pop(id, None)
        for id, end in carried.ended.items():
            if id not in left and self._ended.get(id) is end:
                del self._ended[id]

    async def wait_idle(self) -> None:
        """Until no step of an earlier pass runs."""
        while self._applications:
            await self._changed.wait()

    def let_go_for_good(self) -> None:
        """Nothing more begins, also of what waited for a build."""
        for application in self._applications:
            application.let_go(for_good=True)
