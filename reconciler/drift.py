"""What agents tell of drift, unasked, until a pass is asked for. Pure: times are given.

Whatever an agent says costs the primary at most a pass now and then: its reports are gathered, and it waits
the longer the more often it comes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from agent.wire.messages import DIGEST_SIZE, DriftReport
from reconciler.identity import sync_id
from reconciler.spec.model import Spec

if TYPE_CHECKING:
    from agent.backoff import Backoff

FIRST: Final = 10.0
LONGEST: Final = 600.0
"""Seconds between two passes that one node asks for: the first, when it asks seldom, up to the second."""

MAX_TARGETS: Final = 100
"""Targets of one node that are remembered until the next pass for it; a host has a handful."""

MAX_TEXT: Final = 4096
"""Bytes of a name or path that is looked at."""


@dataclass(frozen=True, slots=True)
class Drift:
    """`count` entries differ at a target, says the agent of a node."""

    node: str
    project: str
    target_path: str
    count: int


@dataclass(slots=True)
class _Node:
    backoff: "Backoff"
    told: dict[tuple[str, str], Drift] = field(default_factory=dict)
    next_at: float = -inf
    calm_at: float = -inf
    """From then on it counts as one that asks seldom."""


class Drifts:
    """Of all nodes; `backoff` makes the pauses of one, from FIRST to LONGEST."""

    def __init__(self, backoff: Callable[[], "Backoff"]) -> None:
        self._nodes: dict[str, _Node] = {}
        self._backoff = backoff

    def take(self, node: str, report: DriftReport) -> bool:
        """Remember what an agent says; whether there is something to ask a pass for now, where
        nothing was before: what a node adds to that costs no look at the others."""
        if not _is_plausible(report):
            return False
        known = self._nodes.get(node)
        if known is None:
            known = self._nodes.setdefault(node, _Node(self._backoff()))
        key = report.project, report.target_path
        if report.count == 0:
            known.told.pop(key, None)
            return False
        if key not in known.told and len(known.told) >= MAX_TARGETS:
            return False
        is_first = not known.told
        known.told[key] = Drift(node, report.project, report.target_path, report.count)
        return is_first

    def due_at(self) -> float:
        """When there is something to ask for."""
        return min((node.next_at for node in self._nodes.values() if node.told), default=inf)

    def due(self, now: float) -> Iterator[Drift]:
        """Take out what is to be asked for now."""
        for node in self._nodes.values():
            if not node.told or node.next_at > now:
                continue
            if now >= node.calm_at:
                node.backoff.reset()
            pause = node.backoff.next()
            node.next_at, node.calm_at = now + pause, now + 4 * pause
            yield from node.told.values()
            node.told.clear()

    def keep(self, nodes: frozenset[str]) -> None:
        """Forget all nodes but these."""
        for gone in self._nodes.keys() - nodes:
            del self._nodes[gone]


def resources_of(drifts: Iterable[Drift], spec: Spec) -> dict[str, Drift]:
    """By the ids of the resources that they are about. A node speaks for its own targets only, and for
    none that the spec does not have."""
    told = {(drift.node, drift.project, drift.target_path): drift for drift in drifts}
    return {
        sync_id(project, target): drift
        for project in spec.projects.values()
        for target in project.sync.targets
        if (drift := told.get((target.node, project.id, target.target_path))) is not None
    }


def _is_plausible(report: DriftReport) -> bool:
    return (
        0 <= report.count < 2**31
        and len(report.digest) in (0, DIGEST_SIZE)
        and max(len(report.project), len(report.target_path)) <= MAX_TEXT
    )
