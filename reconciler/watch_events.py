"""`trueup events`: what happened, the newest last, and where asked what happens from then on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from reconciler.console import print_document
from reconciler.console_rows import Printed, say
from reconciler.event_source import Event, EventSource, open_source
from reconciler.primary import utc_now
from reconciler.selecting import Selection, known_selection
from reconciler.settings import Settings

COLUMNS: Final = ("AT", "KIND", "RESOURCE", "REASON", "MESSAGE")

SOME: Final = 50
"""Events that are shown where neither a number nor a time was asked for."""

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events. `since`: none that is older; `limit`: of the newest so many, None: all."""

    only: Selection | None
    kind: str
    since: datetime | None
    limit: int | None

    @property
    def params(self) -> dict[str, str]:
        """What the primary is asked for; the rest of the choice is made here."""
        asked = {"kind": self.kind, "resource": self.only.kind if self.only is not None else ""}
        return {name: value for name, value in asked.items() if value}

    def wants(self, event: Event) -> bool:
        return self.only is None or self.only.has(event["resource"])

    def is_over(self, event: Event) -> bool:
        """Whether it, and so all that came before it, is too old."""
        return self.since is not None and datetime.fromisoformat(event["at"]) < self.since


async def show_events(
    settings: Settings,
    output: str,
    *,
    only: str | None,
    kind: str,
    since: float | None,
    limit: int | None,
    watch: bool,
) -> None:
    asked = Asked(
        known_selection(only) if only is not None else None,
        kind,
        utc_now() - timedelta(seconds=since) if since is not None else None,
        limit if limit is not None or since is not None else SOME,
    )
    source = await open_source(settings, say)
    events, last = await newest(source, asked)
    if not watch and output != "table":
        print_document({"version": 1, "events": events}, output)
        return
    printed = Printed(output, *COLUMNS)
    printed.add(events, row, dict)
    if watch:
        await source.follow(
            asked.params, last, lambda event: printed.add([event] if asked.wants(event) else [], row, dict)
        )
    elif not events:
        say("no such events" if only or kind or since else "no events yet")


async def newest(source: EventSource, asked: Asked) -> tuple[list[Event], int]:
    """The events that are asked for, the newest last, and the id after which others follow."""
    found: list[Event] = []
    last, before = 0, None
    while True:
        page = await source.page(asked.params | _part(asked, before))
        events: Sequence[Event] = page["events"]
        if before is None:
            # Whatever came between the two looks of the primary is among the events already.
            last = max([page["newest"], *(event["id"] for event in events)])
        fresh = [event for event in events if not asked.is_over(event)]
        found += [event for event in fresh if asked.wants(event)]
        before = page["next"]
        enough = asked.limit is not None and len(found) >= asked.limit
        if enough or before is None or len(fresh) < len(events):
            return found[: asked.limit][::-1], last


def _part(asked: Asked, before: int | None) -> dict[str, str]:
    all_of_them = asked.only is not None and asked.only.name
    size = PAGE if asked.limit is None or all_of_them else min(asked.limit, PAGE)
    return {"limit": str(size)} | ({"before": str(before)} if before is not None else {})


def row(event: Mapping[str, Any]) -> Sequence[str]:
    return (
        f"{event['at'][:19]}Z",
        event["kind"],
        event["resource"],
        event["reason"],
        event["message"],
    )
