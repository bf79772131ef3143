"""When the next pass is due: at intervals, when somebody asks, and once for many who ask."""

import pytest

from agent.backoff import Backoff
from reconciler.pass_requests import EVERYTHING, PassRequest, request_for
from reconciler.timetable import FIRST_BACKOFF, LONGEST_BURST, QUIET, SPACING, Timetable

INTERVAL = 300.0
WEB = request_for(["services/web"])
API = request_for(["services/api"])


def made(draw: float = 0.5) -> Timetable:
    backoff = Backoff(first=FIRST_BACKOFF, longest=INTERVAL, draw=lambda: draw)
    return Timetable(interval=INTERVAL, draw=lambda: draw, backoff=backoff)


def ended_at(now: float, *, draw: float = 0.5) -> Timetable:
    """After its first pass over everything."""
    timetable = made(draw)
    assert timetable.due_at() < now
    assert timetable.take(now) == EVERYTHING
    timetable.ended(EVERYTHING, now)
    return timetable


@pytest.mark.parametrize(("draw", "due"), [(0.0, 270.0), (0.5, 300.0), (1.0, 330.0)])
def test_the_interval_has_jitter(draw: float, due: float) -> None:
    assert ended_at(1000.0, draw=draw).due_at() == pytest.approx(1000.0 + due)


def test_a_pass_that_lasts_is_overtaken_by_the_next_interval_only() -> None:
    timetable = made()
    timetable.take(1000.0)
    timetable.applies(1001.0)
    assert timetable.due_at() == 1000.0 + INTERVAL
    request = timetable.take(1300.0)
    timetable.ended(request, 1300.5, let_go=True)
    timetable.ask(WEB, 1301.0)
    assert timetable.take(1301.0) == EVERYTHING | WEB, "what it had not begun is for this one"


def test_who_asks_while_nothing_goes_on_is_served_at_once() -> None:
    timetable = ended_at(1000.0)
    timetable.ask(WEB, 1050.0)
    assert timetable.due_at() == 1050.0
    assert timetable.take(1050.0) == WEB
    assert not timetable.is_asked


def test_a_part_does_not_put_off_everything() -> None:
    timetable = ended_at(1000.0)
    for now in range(1010, 1300, 10):
        timetable.ask(WEB, now)
        timetable.take(now)
        timetable.ended(WEB, now)
    assert timetable.due_at() == 1000.0 + INTERVAL
    timetable.ask(API, 1299.0)
    assert timetable.take(1301.0) == EVERYTHING | API


def test_a_burst_during_a_pass_makes_one_more() -> None:
    timetable = ended_at(1000.0)
    timetable.ask(WEB, 1010.0)
    timetable.take(1010.0)
    for number in range(10_000):
        timetable.ask(WEB if number % 2 else API, 1010.0 + number / 1000)
    timetable.applies(1010.1)
    assert timetable.due_at() == pytest.approx(1019.999 + QUIET)
    timetable.ended(WEB, 1020.5)
    assert timetable.due_at() == 1020.5 + SPACING
    assert timetable.take(1021.5) == WEB | API


def test_an_endless_burst_is_acted_on_all_the_same() -> None:
    timetable = ended_at(1000.0)
    now = 1000.5
    while timetable.due_at() > now:
        timetable.ask(WEB, now)
        now += 0.5
    assert now == pytest.approx(1000.5 + LONGEST_BURST, abs=1)


def test_a_pass_that_could_not_be_made_is_asked_for_again() -> None:
    timetable = ended_at(1000.0, draw=1.0)
    timetable.ask(WEB, 1010.0)
    assert timetable.failed(timetable.take(1010.0), 1011.0) == 5.0
    assert timetable.due_at() == 1016.0
    request = timetable.take(1016.0)
    assert request == EVERYTHING | WEB
    assert timetable.failed(request, 1016.0) == 10.0
    timetable.ask(API, 1020.0)
    assert timetable.due_at() == 1020.0, "somebody may have mended it"
    request = timetable.take(1020.0)
    timetable.ended(request, 1021.0)
    assert timetable.failed(PassRequest(), 1400.0) == 5.0


def test_what_failed_is_tried_again_in_its_own_time() -> None:
    timetable = ended_at(1000.0)
    assert timetable.due_at(1010.0) == 1010.0
    assert timetable.due_at(1000.2) == 1000.0 + SPACING
    timetable.ask(WEB, 1005.0)
    assert timetable.take(1005.0, 1010.0) == WEB
    assert timetable.take(1010.0, 1010.0) == EVERYTHING
