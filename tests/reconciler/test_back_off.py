"""What failed is tried again in its own time, alone, and at once when something else is to be tried."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import Backoff
from reconciler.back_off import FIRST, LONGEST, BackOff, keys_of, without_failing
from reconciler.plan import Action, Plan, Step
from reconciler.status.conditions import Reason

WEB, API = "services/staging/web", "services/staging/api"
BUILD, SYNC = "projects/staging/site", "projects/staging/site/web-1/srv+site"


def deploy(resource: str, hash: str = "h1", depends_on: Sequence[str] = ()) -> Step:
    return Step(resource, Action.DEPLOY, "changed", hash, depends_on=tuple(depends_on))


def plan(*steps: Step) -> Plan:
    return Plan("main@sha1:1", steps, ())


def clock(at: float) -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=at)


def tried(
    back_off: BackOff, made: Plan, now: float, named: Sequence[str] = (), untold: Sequence[str] = ()
) -> list[str]:
    left, held = without_failing(made, back_off, named, now, clock=clock, untold=untold)
    assert {step.resource for step in left.steps} | held.keys() == {step.resource for step in made.steps}
    assert {finding.resource for finding in left.findings} == held.keys()
    return [step.resource for step in left.steps]


def failing(now: float = 0.0, *, draw: float = 1.0, interval: float = 300.0) -> BackOff:
    """The service `web` has failed once at hash `h1`."""
    back_off = BackOff(lambda: Backoff(first=FIRST, longest=max(interval, LONGEST), draw=lambda: draw))
    back_off.failed(WEB, keys_of(plan(deploy(WEB)))[WEB], Reason.DEPLOY_FAILED, now)
    return back_off


def test_it_waits_alone() -> None:
    back_off = failing()
    made = plan(deploy(WEB), deploy(API))
    assert tried(back_off, made, FIRST - 0.1) == [API]
    assert back_off.retry_at() == FIRST
    assert tried(back_off, made, FIRST) == [WEB, API]


def test_what_people_read() -> None:
    back_off = failing()
    back_off.failed(WEB, keys_of(plan(deploy(WEB)))[WEB], Reason.TIMEOUT, FIRST)
    left, held = without_failing(plan(deploy(WEB)), back_off, (), FIRST, clock=clock)
    [finding] = left.findings
    assert finding.message == "failed 2 times (Timeout), tried again at 12:00:30 UTC"
    assert (finding.reason, finding.blocks, finding.unknown) == (Reason.BACKING_OFF, True, False)
    assert held == {WEB: deploy(WEB)}


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from([60.0, 300.0, 3600.0]))
def test_the_pause_doubles_up_to_a_bound(times: int, draw: float, interval: float) -> None:
    back_off = BackOff(lambda: Backoff(first=FIRST, longest=max(interval, LONGEST), draw=lambda: draw))
    longest = max(interval, LONGEST)
    now = 0.0
    for number in range(times):
        pause = back_off.failed(WEB, "key", Reason.DEPLOY_FAILED, now)
        step = min(longest, FIRST * 2**number)
        assert pause is not None and step / 2 <= pause <= step
        now += pause
        assert back_off.retry_at() == now


def test_other_inputs_are_tried_at_once_and_begin_anew() -> None:
    back_off = failing()
    made = plan(deploy(WEB, "h2"))
    assert tried(back_off, made, 1.0) == [WEB]
    assert back_off.failed(WEB, keys_of(made)[WEB], Reason.DEPLOY_FAILED, 1.0) == FIRST
    assert tried(back_off, made, 1.0 + FIRST / 2) == []


def test_what_is_named_is_tried_with_what_it_depends_on() -> None:
    back_off = failing()
    made = plan(deploy(WEB), deploy(API, depends_on=[WEB]))
    assert tried(back_off, made, 1.0) == [API], "which is blocked, as what it needs failed"
    assert tried(back_off, made, 1.0, named=[WEB]) == [WEB, API]
    assert tried(back_off, made, 1.0, named=[API]) == [WEB, API]


def test_a_success_ends_it_and_brings_dependents_on() -> None:
    back_off = failing()
    back_off.succeeded(API, [WEB], 2.0)
    assert back_off.retry_at() == 2.0
    back_off.succeeded(WEB, [], 3.0)
    assert (back_off.retry_at(), back_off.failing()) == (inf, frozenset())


@pytest.mark.parametrize("reason", [Reason.AGENT_UNREACHABLE, Reason.SUPERSEDED])
def test_what_says_nothing_against_another_try(reason: Reason) -> None:
    back_off = failing()
    assert back_off.failed(WEB, "key", reason, 1.0) is None
    assert back_off.failing() == frozenset()


def test_nobody_is_woken_for_what_is_among_the_steps_of_a_pass() -> None:
    back_off = failing()
    assert back_off.retry_at() == FIRST
    back_off.try_again([WEB, API])
    assert back_off.retry_at() == inf
    back_off.failed(WEB, keys_of(plan(deploy(WEB)))[WEB], Reason.DEPLOY_FAILED, 20.0)
    assert back_off.retry_at() == 20.0 + 2 * FIRST
    back_off.keep([API])
    assert back_off.retry_at() == inf


def test_a_failure_that_nobody_was_told_of_is_told_first() -> None:
    back_off = failing()
    late = FIRST + 100
    assert tried(back_off, plan(deploy(WEB)), late, untold=[WEB]) == []
    assert tried(back_off, plan(deploy(WEB)), late, named=[WEB], untold=[WEB]) == [WEB]
    assert tried(back_off, plan(deploy(WEB, "h2")), late, untold=[WEB]) == [WEB]


def test_a_build_is_another_one_where_something_else_is_made_of_it() -> None:
    build = Step(BUILD, Action.BUILD, "needed by 1 target")
    sync = Step(SYNC, Action.SYNC, "changed", "h1", depends_on=(BUILD,))
    back_off = failing()
    back_off.failed(BUILD, keys_of(plan(build, sync))[BUILD], Reason.BUILD_FAILED, 0.0)
    assert tried(back_off, plan(build, sync), 1.0) == [SYNC]
    assert tried(back_off, plan(build, replace(sync, hash="h2")), 1.0) == [BUILD, SYNC]


@given(st.lists(st.tuples(st.sampled_from([WEB, API]), st.booleans(), st.floats(0, 50)), max_size=30))
def test_no_failure_keeps_another_resource_waiting(events: list[tuple[str, bool, float]]) -> None:
    """Whatever happens to one of them, the other is tried when it alone would be."""
    together, alone = failing(), failing()
    made = plan(deploy(WEB), deploy(API))
    keys = keys_of(made)
    now = 0.0
    for resource, succeeds, pause in events:
        now += pause
        for back_off in (together, *((alone,) if resource == API else ())):
            if succeeds:
                back_off.succeeded(resource, (), now)
            else:
                back_off.failed(resource, keys[resource], Reason.DEPLOY_FAILED, now)
        assert (API in tried(together, made, now)) == (API in tried(alone, made, now))
