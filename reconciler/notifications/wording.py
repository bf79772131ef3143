"""The messages for each channel: one a pass, with everything that the channel asks for. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from reconciler.notifications.news import Kind, News
from reconciler.spec.model import Credential, Notification
from reconciler.status.conditions import bounded, whole_second
from reconciler.status.revisions import split_revision

Severity = Literal["failure", "warning", "success"]

MAX_BODY: Final = 1800
"""Characters of a message: the least that a widespread service takes is 2,000, and it gets a title too."""
MAX_LINE: Final = 400
MAX_TITLE: Final = 100

_ORDER: Final[tuple[Kind, ...]] = ("failed", "degraded", "awaiting_approval", "recovered")
_WORDS: Final[dict[Kind, str]] = {
    "failed": "failed",
    "degraded": "degraded",
    "awaiting_approval": "awaiting approval",
    "recovered": "recovered",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is to be sent."""

    channel: Credential
    """Where its address is to be found."""
    severity: Severity
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What led to it, for people who look further."""

    at: datetime
    commit: str
    """Of the spec."""
    trace: str


def drafts(
    found: Sequence[News], channels: Iterable[Notification], origin: Origin, mask: Callable[[str], str]
) -> list[Draft]:
    """The messages for the channels that ask for something of it; each channel is there once."""
    wanted: dict[Credential, dict[News, None]] = {}
    for channel in channels:
        mine = {each: None for each in found if wants(channel.on, each)}
        if mine:
            wanted.setdefault(channel.url, {}).update(mine)
    return [_draft(channel, list(mine), origin, mask) for channel, mine in wanted.items()]


def wants(on: Sequence[str], each: News) -> bool:
    """That something recovered is told to those who were told that it was not well."""
    if each.kind != "recovered":
        return each.kind in on
    return "recovered" in on and (each.was == "failed" or each.was in on)


def _draft(channel: Credential, found: list[News], origin: Origin, mask: Callable[[str], str]) -> Draft:
    found.sort(key=lambda each: (_ORDER.index(each.kind), each.resource))
    kinds = [each.kind for each in found]
    severity: Severity = "success" if kinds[0] == "recovered" else "warning"
    if kinds[0] == "failed":
        severity = "failure"
    end = (
        f"at {whole_second(origin.at):%Y-%m-%d %H:%M:%S} UTC, spec {origin.commit[:12]}, trace {origin.trace}"
    )
    lines: list[str] = []
    left = MAX_BODY - len(end) - len(_more(kinds)) - 2
    for position, each in enumerate(found):
        line = _line(each, mask)
        if lines and len(line) + 1 > left:
            lines.append(_more(kinds[position:]))
            break
        left -= len(line) + 1
        lines.append(line)
    title = bounded(f"trueup: {_counted(kinds)}", MAX_TITLE)
    return Draft(channel, severity, title, "\n".join([*lines, end]))


def _line(each: News, mask: Callable[[str], str]) -> str:
    what = bounded(mask(f"{each.reason}: {each.message}" if each.message else each.reason), MAX_LINE)
    tag, commit = split_revision(each.revision)
    revision = bounded(f"{tag} {commit[:12]}".strip(), MAX_TITLE)
    at = f" at {revision}" if revision else ""
    return f"{_WORDS[each.kind]}: {each.resource}{at}: {what}"


def _counted(kinds: Sequence[Kind]) -> str:
    counts = [(kinds.count(kind), _WORDS[kind]) for kind in _ORDER]
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def _more(kinds: Sequence[Kind]) -> str:
    return f"and {len(kinds)} more: {_counted(kinds)}; `trueup get` shows all"
