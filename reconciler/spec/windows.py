"""Windows of time: `Mon-Thu 09:00-17:00`, `Sat,Sun 00:00-24:00`, `daily 22:00-04:00`."""

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM = re.compile(r"(\S+) +([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_ADVICE = "write days and times, such as Mon-Thu 09:00-17:00, Sat,Sun 00:00-24:00 or daily 22:00-04:00"


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """Days count from Monday, 0; times are minutes of the day, `end` up to 1440.

    Where `end` is not after `start` the window runs past midnight and belongs to the day it starts on.
    """

    days: frozenset[int]
    start: int
    end: int

    def contains(self, weekday: int, minute: int) -> bool:
        """Whether the minute of that weekday, in the window's own time zone, lies in it."""
        if self.start < self.end:
            return weekday in self.days and self.start <= minute < self.end
        late = weekday in self.days and minute >= self.start
        return late or ((weekday - 1) % 7 in self.days and minute < self.end)


def parse_window(text: str) -> WindowTimes:
    """The days and times of a window. Raises ValueError that says what to write."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(_ADVICE)
    days = _days(match[1])
    start = _minute(match[2], match[3], latest=1439)
    end = _minute(match[4], match[5], latest=1440)
    if start == end:
        raise ValueError("it starts when it ends; for the whole day write 00:00-24:00")
    return WindowTimes(days, start, end)


def _days(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"days are {', '.join(DAYS)} or daily; {_ADVICE}")
        start, end = DAYS.index(first), DAYS.index(last if dash else first)
        found.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return frozenset(found)


def _minute(hours: str, minutes: str, *, latest: int) -> int:
    value = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or value > latest:
        raise ValueError("a day has the times 00:00 to 24:00")
    return value


def check_timezone(name: str) -> None:
    """Raises ValueError where `name` is no time zone that this machine knows."""
    if name == "UTC":
        return
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        if _has_zones():
            raise ValueError("not a time zone; write an IANA name such as Europe/Berlin") from None
        raise ValueError(
            "cannot be looked up: this machine has no time zone database; install tzdata"
        ) from None


def _has_zones() -> bool:
    try:
        ZoneInfo("Europe/London")
    except (KeyError, OSError):
        return False
    return True
