"""When an environment's windows are open: what Argo CD's rules say, in time zones with summer time.

In Europe/Berlin the clock went from 02:00 to 03:00 on Sunday 2026-03-29 (01:00 UTC) and from 03:00
back to 02:00 on Sunday 2026-10-25 (01:00 UTC); in New York on 2026-03-08 and 2026-11-01.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.release.windows import closed_text, is_open, next_opening
from reconciler.spec.model import Window

BERLIN = "Europe/Berlin"
OFFICE = Window(allow="Mon-Thu 09:00-17:00", timezone=BERLIN)
NIGHT = Window(allow="Fri 22:00-04:00", timezone=BERLIN)
FREEZE = Window(deny="Wed 00:00-24:00", timezone=BERLIN)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold)


def allow(text: str, zone: str = BERLIN) -> Window:
    return Window(allow=text, timezone=zone)


def deny(text: str, zone: str = BERLIN) -> Window:
    return Window(deny=text, timezone=zone)


# 2026-11-23 is a Monday.
@pytest.mark.parametrize(
    ("windows", "now", "expected"),
    [
        ([], "2026-11-23T03:00", True),
        ([OFFICE], "2026-11-23T08:59:59", False),
        ([OFFICE], "2026-11-23T09:00", True),
        ([OFFICE], "2026-11-23T16:59:59", True),
        ([OFFICE], "2026-11-23T17:00", False),
        ([OFFICE], "2026-11-27T12:00", False),
        ([NIGHT], "2026-11-27T21:59", False),
        ([NIGHT], "2026-11-27T22:00", True),
        ([NIGHT], "2026-11-28T00:00", True),
        ([NIGHT], "2026-11-28T03:59", True),
        ([NIGHT], "2026-11-28T04:00", False),
        ([NIGHT], "2026-11-27T03:00", False),
        ([NIGHT], "2026-11-28T22:00", False),
        ([allow("Sun 23:00-01:00")], "2026-11-23T00:30", True),
        ([allow("Sun 23:00-01:00")], "2026-11-23T01:00", False),
        ([allow("Sat,Sun 00:00-24:00")], "2026-11-22T23:59:59", True),
        ([allow("Sat,Sun 00:00-24:00")], "2026-11-23T00:00", False),
        ([allow("Sat-Mon 00:00-24:00")], "2026-11-23T12:00", True),
        ([allow("Mon 22:00-24:00")], "2026-11-23T23:59", True),
        ([allow("Mon 22:00-24:00")], "2026-11-24T00:00", False),
        ([allow("Mon 22:00-00:00")], "2026-11-23T23:59", True),
        ([allow("Mon 22:00-00:00")], "2026-11-24T00:00", False),
        # one that denies closes, alone and beside one that allows
        ([FREEZE], "2026-11-24T12:00", True),
        ([FREEZE], "2026-11-25T12:00", False),
        ([OFFICE, FREEZE], "2026-11-24T12:00", True),
        ([OFFICE, FREEZE], "2026-11-25T12:00", False),
        ([FREEZE, OFFICE], "2026-11-25T12:00", False),
        ([OFFICE, FREEZE], "2026-11-24T18:00", False),
        # one of several that allow is enough
        ([OFFICE, NIGHT], "2026-11-27T23:00", True),
        ([OFFICE, NIGHT], "2026-11-23T10:00", True),
        ([OFFICE, NIGHT], "2026-11-23T23:00", False),
        ([allow("daily 08:00-12:00"), deny("Mon 10:00-11:00")], "2026-11-23T10:30", False),
        ([allow("daily 08:00-12:00"), deny("Mon 10:00-11:00")], "2026-11-23T11:00", True),
        # each in its own zone: 15:00 in Berlin is 09:00 in New York
        ([allow("Mon 09:00-10:00", "America/New_York")], "2026-11-23T15:00", True),
        ([allow("Mon 09:00-10:00", "America/New_York")], "2026-11-23T09:30", False),
        ([OFFICE, deny("Mon 09:00-10:00", "America/New_York")], "2026-11-23T15:30", False),
        ([allow("Mon 09:00-10:00", "UTC")], "2026-11-23T10:00", True),
        # the day of the week is the zone's: Monday in Auckland is Sunday still in Berlin
        ([allow("Mon 00:00-24:00", "Pacific/Auckland")], "2026-11-22T13:00", True),
        ([allow("Sun 00:00-24:00", "Pacific/Auckland")], "2026-11-22T13:00", False),
    ],
)
def test_when_they_are_open(windows: list[Window], now: str, expected: bool) -> None:
    assert is_open(windows, berlin(now)) is expected
    assert is_open(windows, berlin(now).astimezone(UTC)) is expected


@pytest.mark.parametrize(
    ("window", "moments"),
    [
        # spring: 01:59:59 is followed by 03:00
        (allow("Sun 02:15-02:45"), {"2026-03-29T00:59:59": False, "2026-03-29T01:00": False}),
        (allow("Sun 02:30-04:00"), {"2026-03-29T00:59:59": False, "2026-03-29T01:00": True}),
        (allow("Sun 01:00-02:30"), {"2026-03-29T00:59:59": True, "2026-03-29T01:00": False}),
        (allow("Sat 22:00-03:00"), {"2026-03-29T00:59:59": True, "2026-03-29T01:00": False}),
        (deny("Sun 02:15-02:45"), {"2026-03-29T00:59:59": True, "2026-03-29T01:00": True}),
        (OFFICE, {"2026-03-26T08:00": True, "2026-03-30T07:00": True, "2026-03-30T15:00": False}),
        # autumn: 02:00 to 02:59 comes twice
        (
            allow("Sun 02:15-02:45"),
            {
                "2026-10-25T00:14": False,
                "2026-10-25T00:15": True,
                "2026-10-25T00:45": False,
                "2026-10-25T01:14": False,
                "2026-10-25T01:15": True,
                "2026-10-25T01:45": False,
            },
        ),
        (deny("Sun 02:00-03:00"), {"2026-10-25T00:30": False, "2026-10-25T01:59": False}),
        (allow("Sat 22:00-03:00"), {"2026-10-25T01:59": True, "2026-10-25T02:00": False}),
        (OFFICE, {"2026-10-22T07:00": True, "2026-10-26T07:59": False, "2026-10-26T08:00": True}),
    ],
)
def test_when_the_clock_is_changed(window: Window, moments: dict[str, bool]) -> None:
    assert {moment: is_open([window], utc(moment)) for moment in moments} == moments


@pytest.mark.parametrize(
    ("windows", "now", "opening", "text"),
    [
        ([], "2026-11-23T03:00", "2026-11-23T03:00", None),
        ([OFFICE], "2026-11-23T12:34:56", "2026-11-23T12:34:56", None),
        ([OFFICE], "2026-11-23T07:30:10", "2026-11-23T08:00", "closed until Mon 09:00 Europe/Berlin"),
        ([OFFICE], "2026-11-26T16:00", "2026-11-30T08:00", "closed until Mon 09:00 Europe/Berlin"),
        ([OFFICE, FREEZE], "2026-11-24T20:00", "2026-11-26T08:00", "closed until Thu 09:00 Europe/Berlin"),
        ([FREEZE], "2026-11-25T12:00", "2026-11-25T23:00", "closed until Thu 00:00 Europe/Berlin"),
        ([NIGHT], "2026-11-28T03:00", "2026-12-04T21:00", "closed until Fri 22:00 Europe/Berlin"),
        (
            [allow("Mon 09:00-10:00", "America/New_York"), NIGHT],
            "2026-11-23T12:00",
            "2026-11-23T14:00",
            "closed until Mon 09:00 America/New_York",
        ),
        (
            [allow("Mon 09:00-17:00", "UTC"), deny("Mon 09:00-11:00", "UTC")],
            "2026-11-23T03:00",
            "2026-11-23T11:00",
            "closed until Mon 11:00 UTC",
        ),
        # a week away it is another day of that name
        ([allow("Mon 09:00-10:00")], "2026-11-23T09:00", "2026-11-30T08:00", "closed until Mon 2026-11-30 "),
        # spring: what begins in the hour that is left out begins after it; what lies in it, a week later
        ([allow("Sun 02:30-04:00")], "2026-03-29T00:00", "2026-03-29T01:00", "closed until Sun 03:00 "),
        ([allow("Sun 02:15-02:45")], "2026-03-28T12:00", "2026-04-05T00:15", "closed until Sun 2026-04-05 "),
        ([OFFICE], "2026-03-28T12:00", "2026-03-30T07:00", "closed until Mon 09:00 "),
        ([deny("Sat 12:00-02:30")], "2026-03-28T23:00", "2026-03-29T01:00", "closed until Sun 03:00 "),
        # autumn
        ([allow("Sun 02:15-02:45")], "2026-10-25T00:50", "2026-10-25T01:15", "closed until Sun 02:15 "),
        ([deny("Sun 02:00-03:00")], "2026-10-25T00:30", "2026-10-25T02:00", "closed until Sun 03:00 "),
        ([allow("Sun 02:15-03:30"), deny("Sun 02:30-03:00")], "2026-10-25T00:40", "2026-10-25T01:15", "c"),
        # only while New York has summer time and Berlin has not, or the other way round
        (
            [allow("daily 15:00-16:00"), deny("daily 09:00-10:00", "America/New_York")],
            "2026-11-23T12:00",
            "2027-03-14T14:00",
            "closed until Sun 2027-03-14 15:00 Europe/Berlin",
        ),
        ([allow("Wed 10:00-12:00"), FREEZE], "2026-11-23T12:00", None, "closed for good"),
        ([deny("daily 00:00-24:00")], "2026-11-23T12:00", None, "closed for good"),
    ],
)  # fmt: skip
def test_when_they_open_next(windows: list[Window], now: str, opening: str | None, text: str | None) -> None:
    found = next_opening(windows, utc(now))
    assert found == (utc(opening) if opening is not None else None)
    said = closed_text(windows, utc(now))
    assert (said is None) is (text is None)
    assert (said or "").startswith(text or "")


def test_a_zone_that_left_out_a_whole_day() -> None:
    """Samoa had no Friday 2011-12-30."""
    window = [allow("Fri 00:00-24:00", "Pacific/Apia")]
    assert next_opening(window, utc("2011-12-28T12:00")) == utc("2012-01-05T10:00")


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        is_open([OFFICE], datetime(2026, 11, 23, 9, 0))


TIMES = st.builds(
    "{} {:02}:{:02}-{:02}:{:02}".format,
    st.sampled_from(["daily", "Mon", "Sun", "Sat,Sun", "Fri-Mon"]),
    *(st.integers(0, 3), st.sampled_from([0, 15, 30]), st.integers(0, 3), st.sampled_from([1, 45])),
)
ZONES = st.sampled_from([BERLIN, "America/New_York", "UTC", "Australia/Lord_Howe"])
WINDOWS = st.builds(allow, TIMES, ZONES) | st.builds(deny, TIMES, ZONES)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(WINDOWS, min_size=1, max_size=3),
    st.sampled_from(["2026-03-28T11:07", "2026-10-24T11:07", "2026-04-04T00:00", "2026-10-31T23:59"]),
)
def test_the_next_opening_is_the_first_open_minute(windows: list[Window], now: str) -> None:
    start = utc(now)
    found = next_opening(windows, start)
    minutes = (start + timedelta(minutes=step) for step in range(2 * 1440))
    first = next((minute for minute in minutes if is_open(windows, minute)), None)
    if first is not None:
        assert found == first
    else:
        assert found is None or found >= start + timedelta(days=2)
