"""Whether an environment's windows let something in now, and when they will next. Pure.

As with Argo CD's sync windows: one `deny` that holds closes, whatever else there is; where there is an
`allow`, one of them must hold. Times are what a clock in the window's time zone shows. So in the hour
that comes twice in autumn a window holds twice, and what lies in the hour that is left out in spring does
not hold that day; a window that begins in that hour begins when the clock has gone forward.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from reconciler.spec.model import Window
from reconciler.spec.windows import DAYS, WindowTimes, parse_window

HORIZON = 400
"""Days: an allowed and a denied time of two zones may be apart only while their summer times differ."""

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """`now` has a time zone, whichever."""
    return _lets_in([_Times(each) for each in windows], _utc(now))


def next_opening(windows: Sequence[Window], now: datetime) -> datetime | None:
    """The first moment from `now` on, in UTC, when they let something in; None: never.

    `now` itself where they are open.
    """
    times, start = [_Times(each) for each in windows], _utc(now)
    if _lets_in(times, start):
        return start
    for day in range(HORIZON):
        first = start + day * _DAY
        changes = {moment for each in times for moment in each.changes(first)}
        for moment in sorted(changes):
            if first < moment <= first + _DAY and _lets_in(times, moment):
                return moment
    return None


def closed_text(windows: Sequence[Window], now: datetime) -> str | None:
    """For people, such as `closed until Mon 09:00 Europe/Berlin`; None where they are open."""
    if is_open(windows, now):
        return None
    opening = next_opening(windows, now)
    if opening is None:
        return "closed for good: no window ever lets anything in"
    times = [_Times(each) for each in windows]
    opened = [each for each in times if each.allows and each.holds(opening)]
    ended = [each for each in times if not each.allows and each.holds(opening - _SECOND)]
    cause = (opened or ended)[0]
    local = opening.astimezone(cause.zone)
    is_near = local.date() - _utc(now).astimezone(cause.zone).date() < timedelta(days=7)
    day = DAYS[local.weekday()] + ("" if is_near else f" {local:%Y-%m-%d}")
    return f"closed until {day} {local:%H:%M} {cause.name}"


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment.astimezone(UTC)


class _Times:
    """A window that has been read."""

    def __init__(self, window: Window) -> None:
        self.allows = window.allow is not None
        self.name = window.timezone
        # A machine without a time zone database knows this one all the same.
        self.zone: tzinfo = UTC if window.timezone == "UTC" else ZoneInfo(window.timezone)
        self._times: WindowTimes = parse_window(window.allow or window.deny or "")

    def holds(self, moment: datetime) -> bool:
        local = moment.astimezone(self.zone)
        return self._times.contains(local.weekday(), local.hour * 60 + local.minute)

    def changes(self, start: datetime) -> Iterator[datetime]:
        """Every moment of the day after `start` at which it may begin or end to hold, and others."""
        day = start.astimezone(self.zone).date() - _DAY
        for _ in range(4):
            for minute in (0, self._times.start, self._times.end % 1440):
                for fold in (0, 1):
                    yield self._at(day, minute, fold)
            day += _DAY
        yield from self._turns(start, start + _DAY)

    def _at(self, day: date, minute: int, fold: int) -> datetime:
        clock = time(minute // 60, minute % 60, tzinfo=self.zone, fold=fold)
        return datetime.combine(day, clock).astimezone(UTC)

    def _turns(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """When the clock is put forward or back, to the second."""
        if start.astimezone(self.zone).utcoffset() == end.astimezone(self.zone).utcoffset():
            return
        while end - start > _SECOND:
            middle = start + (end - start) / 2
            if start.astimezone(self.zone).utcoffset() == middle.astimezone(self.zone).utcoffset():
                start = middle
            else:
                end = middle
        yield end.replace(microsecond=0)


def _lets_in(times: Sequence[_Times], moment: datetime) -> bool:
    allowed = [each.holds(moment) for each in times if each.allows]
    denied = any(each.holds(moment) for each in times if not each.allows)
    return not denied and (any(allowed) or not allowed)
