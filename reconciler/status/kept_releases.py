"""The releases that a target keeps, on their way from an agent's report to its status file. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from agent.wire.messages import TaskReport
from reconciler.status.conditions import bounded
from reconciler.status.documents import KeptRelease

MAX_KEPT: Final = 100
"""Releases of one target in its status file."""


def details_of_releases(report: TaskReport) -> dict[str, str | list[str]]:
    """What an agent says it keeps, as the details of a step have it: name, tree, time, revision."""
    if not report.kept:
        return {}
    kept = [
        f"{_name(each.name)} {each.tree.hex()} {each.at} {bounded(each.revision)}"
        for each in report.kept[-MAX_KEPT:]
    ]
    return {"current": _name(report.current), "releases": kept}


def _name(text: str) -> str:
    return bounded(text, 64).replace(" ", "")


def kept_releases(details: Mapping[str, object]) -> tuple[KeptRelease, ...]:
    """That again, for the status file; what is none is left out."""
    lines = details.get("releases", ())
    found: list[KeptRelease] = []
    for line in lines if isinstance(lines, list) else ():
        name, tree, at, revision = f"{line} ".split(" ", 3)
        if not name or len(tree) != 64:
            continue
        when = datetime.fromtimestamp(int(at), UTC) if at.isdecimal() and 0 < int(at) < 2**33 else None
        found.append(KeptRelease(name=name, tree=tree, revision=revision.strip(), at=when))
    return tuple(found)
