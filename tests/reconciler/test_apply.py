"""Applying a plan: order, concurrency, failures and the record, on trio's own clock."""

import errno
from dataclasses import replace

import pytest
import trio
import trio.testing

from reconciler.apply import Application, Details, Outcome, apply_plan
from reconciler.errors import JournalUnavailable, StepFailed
from reconciler.plan import Action, Finding, Plan, Step
from reconciler.status.conditions import Reason
from reconciler.sync.hub import AgentUnreachable


class Record:
    """A step recorder that keeps the order of what it was told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def begin(self, step: Step) -> int:
        self.events.append(f"begin {step.resource}")
        return len(self.events)

    async def end(self, record: int, step: Step, outcome: Outcome) -> None:
        self.events.append(f"{outcome.state} {step.resource}")


def step(name: str, *depends_on: str) -> Step:
    return Step(name, Action.DEPLOY, "test", depends_on=depends_on)


async def run(plan: Plan, world: list[str], *, failing: str = "", parallel: int = 8) -> dict[str, Outcome]:
    async def deploy(step: Step) -> Details:
        await trio.sleep(1)
        if step.resource == failing:
            raise StepFailed("it broke")
        world.append(step.resource)
        return {"exit_code": 0}

    record = Record()
    limiter = trio.CapacityLimiter(parallel)
    outcomes = await apply_plan(plan, {Action.DEPLOY: deploy}, record, slot=lambda _step: limiter)
    for name in world:
        assert record.events.index(f"begin {name}") < record.events.index(f"succeeded {name}")
    return outcomes


async def test_independent_steps_run_together(autojump_clock: trio.testing.MockClock) -> None:
    world: list[str] = []
    start = trio.current_time()
    await run(Plan("r", tuple(step(f"s{n}") for n in range(8)), ()), world)
    assert len(world) == 8
    assert trio.current_time() - start == 1


async def test_no_more_than_the_limit_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    await run(Plan("r", tuple(step(f"s{n}") for n in range(8)), ()), [], parallel=2)
    assert trio.current_time() - start == 4


async def test_a_failure_blocks_only_what_depends_on_it(autojump_clock: trio.testing.MockClock) -> None:
    world: list[str] = []
    steps = (step("a"), step("b", "a"), step("c", "b"), step("d"))
    outcomes = await run(Plan("r", steps, ()), world, failing="a")
    assert world == ["d"]
    assert outcomes["a"].reason == "StepFailed"
    assert outcomes["b"].reason == outcomes["c"].reason == Reason.DEPENDENCY_NOT_READY
    assert "a" in outcomes["b"].message


async def test_what_is_not_in_order_blocks_its_dependents(autojump_clock: trio.testing.MockClock) -> None:
    plan = Plan(
        "r",
        (step("a", "x"), step("b", "y")),
        (Finding("x", "SecretFetchFailed", "down"), Finding("y", "Suspended", "off", blocks=False)),
    )
    world: list[str] = []
    outcomes = await run(plan, world)
    assert world == ["b"]
    assert outcomes["a"].state == "blocked"


async def test_a_cycle_is_blocked_instead_of_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    world: list[str] = []
    outcomes = await run(Plan("r", (step("a", "b"), step("b", "a")), ()), world)
    assert world == []
    assert {outcome.state for outcome in outcomes.values()} == {"blocked"}


async def test_dependencies_run_first(autojump_clock: trio.testing.MockClock) -> None:
    world: list[str] = []
    await run(Plan("r", (step("a"), step("b", "a"), step("c", "b")), ()), world)
    assert world == ["a", "b", "c"]


async def test_a_host_that_goes_away_holds_up_nothing_where_it_may(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def deploy(step: Step) -> Details:
        if step.resource in ("optional", "needed"):
            raise AgentUnreachable("it went away")
        return {}

    steps = (
        replace(step("optional"), may_be_unreachable=True),
        step("needed"),
        step("a", "optional"),
        step("b", "needed"),
    )
    limiter = trio.CapacityLimiter(8)
    outcomes = await apply_plan(
        Plan("r", steps, ()), {Action.DEPLOY: deploy}, Record(), slot=lambda _step: limiter
    )
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "optional": "failed",
        "needed": "failed",
        "a": "succeeded",
        "b": "blocked",
    }


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (StepFailed("it broke"), "StepFailed", "it broke"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "InternalError", "'/x': No space left"),
        (OSError("no details"), "InternalError", "OSError"),
        (ExceptionGroup("in a nursery", [StepFailed("it broke")]), "StepFailed", "it broke"),
    ],
)
async def test_whatever_fails_in_a_step_fails_that_step_alone(
    error: Exception, reason: str, message: str
) -> None:
    async def deploy(step: Step) -> Details:
        if step.resource == "a":
            raise error
        return {}

    limiter = trio.CapacityLimiter(1)
    outcomes = await apply_plan(
        Plan("r", (step("a"), step("b")), ()), {Action.DEPLOY: deploy}, Record(), slot=lambda _step: limiter
    )
    assert (outcomes["a"].state, outcomes["b"].state) == ("failed", "succeeded")
    assert outcomes["a"].reason == reason
    assert outcomes["a"].message.startswith(message)


class FullDisk(Record):
    """A journal that cannot be written any more when one of the steps begins, or ends."""

    def __init__(self, *, at: str) -> None:
        super().__init__()
        self._at = at

    async def begin(self, step: Step) -> int:
        self._write(f"begin {step.resource}")
        return await super().begin(step)

    async def end(self, record: int, step: Step, outcome: Outcome) -> None:
        self._write(f"end {step.resource}")
        await super().end(record, step, outcome)

    def _write(self, what: str) -> None:
        if what == self._at:
            raise JournalUnavailable("the disk is full")


@pytest.mark.parametrize(
    ("at", "state", "acted"), [("begin a", "blocked", ["c"]), ("end a", "failed", ["a", "c"])]
)
async def test_a_journal_that_cannot_be_written_fails_the_step_and_not_the_pass(
    at: str, state: str, acted: list[str]
) -> None:
    world: list[str] = []

    async def deploy(step: Step) -> Details:
        world.append(step.resource)
        return {}

    limiter = trio.CapacityLimiter(1)
    plan = Plan("r", (step("a"), step("b", "a"), step("c")), ())
    outcomes = await apply_plan(plan, {Action.DEPLOY: deploy}, FullDisk(at=at), slot=lambda _step: limiter)
    assert sorted(world) == acted
    assert (outcomes["a"].state, outcomes["a"].reason) == (state, "JournalUnavailable")
    assert (outcomes["b"].state, outcomes["c"].state) == ("blocked", "succeeded")


class Held:
    """Executors whose steps go on until they are let."""

    def __init__(self, *steps: Step, parallel: int = 8) -> None:
        self.go = {each.resource: trio.Event() for each in steps}
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.limiter = trio.CapacityLimiter(parallel)
        self.application = Application(
            Plan("r", steps, ()),
            Record(),
            on_end=lambda step, _outcome, _record: self.ended.append(step.resource),
        )

    async def run(self) -> None:
        async def hold(step: Step) -> Details:
            self.begun.append(step.resource)
            await self.go[step.resource].wait()
            return {}

        await self.application.run(
            dict.fromkeys((Action.DEPLOY, Action.BUILD, Action.SYNC), hold),
            lambda _step: self.limiter,
        )


async def test_what_has_begun_goes_on_when_it_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    held = Held(step("a"), step("b"), step("c"), step("d", "a"), parallel=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        await trio.testing.wait_all_tasks_blocked()
        begun = set(held.begun)
        assert len(begun) == 2
        held.application.let_go()
        assert held.application.left.keys() == begun
        for event in held.go.values():
            event.set()
    assert set(held.begun) == set(held.ended) == begun
    assert held.application.outcomes.keys() == begun
    assert held.application.dropped == {"a", "b", "c", "d"} - begun
    assert held.limiter.borrowed_tokens == 0
    held.application.let_go()
    assert held.application.left == {}


async def test_what_needs_a_build_that_has_begun_goes_on_too(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody else could use what it made."""
    build = replace(step("build"), action=Action.BUILD)
    first, second = (replace(step(name, "build"), action=Action.SYNC) for name in ("s1", "s2"))
    other = replace(step("s3", "build", "slow"), action=Action.SYNC)
    held = Held(build, first, second, step("slow"), other, step("web", "s1"), parallel=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        await trio.testing.wait_all_tasks_blocked()
        assert set(held.begun) == {"build", "slow"}
        held.application.let_go()
        assert held.application.left.keys() == {"build", "slow", "s1", "s2", "s3"}
        assert held.application.dropped == {"web"}
        for event in held.go.values():
            event.set()
    assert set(held.ended) == {"build", "slow", "s1", "s2", "s3"}


async def test_at_the_end_not_even_that_begins(autojump_clock: trio.testing.MockClock) -> None:
    build = replace(step("build"), action=Action.BUILD)
    held = Held(build, replace(step("s1", "build"), action=Action.SYNC))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        await trio.testing.wait_all_tasks_blocked()
        held.application.let_go(for_good=True)
        held.go["build"].set()
    assert held.ended == ["build"]


async def test_a_plan_that_is_let_go_before_it_begins_does_nothing() -> None:
    held = Held(step("a"), step("b", "a"))
    held.application.let_go()
    await held.run()
    assert (held.begun, held.application.outcomes) == ([], {})


async def test_a_step_is_called_off_for_something_newer(autojump_clock: trio.testing.MockClock) -> None:
    record, done = Record(), []

    async def deploy(step: Step) -> Details:
        await trio.sleep(10)
        done.append(step.resource)
        return {}

    limiter = trio.CapacityLimiter(2)
    steps = (step("running"), step("other"), step("waits"), step("last"))
    application = Application(Plan("r", steps, ()), record)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application.run, {Action.DEPLOY: deploy}, lambda _step: limiter)
        await trio.testing.wait_all_tasks_blocked()
        running = [event.partition(" ")[2] for event in record.events]
        [waits, last] = sorted({each.resource for each in steps} - set(running))
        application.call_off(running[0], "v2 is to be there now")
        application.call_off(waits, "v2 is to be there now")
        application.call_off("unknown", "nobody has it")
    assert application.outcomes[running[0]] == Outcome("failed", "Superseded", "v2 is to be there now")
    assert f"failed {running[0]}" in record.events, "its end is on record as its beginning is"
    assert application.dropped == {waits}
    assert sorted(done) == sorted([running[1], last])
    application.call_off(running[0], "too late")
    assert application.outcomes[running[0]].message == "v2 is to be there now"
