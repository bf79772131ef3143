"""What somebody asks of the next pass, and how requests become one. Pure.

A request only says where to look: what a pass does follows from what it finds. So nothing is lost when
many become one, and one that names nothing asks for everything, as the pass at each interval does.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

MAX_NAMES: Final = 1000
"""Names that one request may hold; beyond, it asks for everything."""

MAX_TRACES: Final = 20
"""Of many who ask for one pass, those whose trace ids are kept."""


@dataclass(frozen=True, slots=True)
class PassRequest:
    """What a pass is to apply. Names are `KIND/NAME`, ids of resources, or the beginning of such ids.

    `resources` and `forced` were named by somebody who wants them tried now, whatever failed before.
    """

    everything: bool = True
    resources: frozenset[str] = frozenset()
    environments: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()
    """Those that get a step even if nothing changed."""
    traces: tuple[str, ...] = ()
    """The trace ids of those who asked, the first one first; the pass bears that of the first."""

    def __or__(self, other: "PassRequest") -> "PassRequest":
        """Both at once. What is asked by name is known also where everything is looked at."""
        resources, environments = self.resources | other.resources, self.environments | other.environments
        everything = self.everything or other.everything
        if len(resources) + len(environments) > MAX_NAMES:
            everything, resources, environments = True, frozenset(), frozenset()
        traces = tuple(dict.fromkeys((*self.traces, *other.traces)))[:MAX_TRACES]
        return PassRequest(everything, resources, environments, self.forced | other.forced, traces)

    @property
    def named(self) -> frozenset[str]:
        return self.resources | self.forced


NOTHING: Final = PassRequest(everything=False)
EVERYTHING: Final = PassRequest()


def request_for(
    resources: Collection[str] = (),
    environments: Collection[str] = (),
    forced: Collection[str] = (),
    trace: str = "",
) -> PassRequest:
    """Nothing named: everything."""
    everything = not (resources or environments or forced)
    traces = (trace,) if trace else ()
    return NOTHING | PassRequest(
        everything, frozenset(resources), frozenset(environments), frozenset(forced), traces
    )
