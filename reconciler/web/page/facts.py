"""What the page is made from: one look at everything. Pure data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from reconciler.control.state import ControlState
from reconciler.secrets.freshness import Freshness
from reconciler.spec.model import Node, SecretSource, Spec
from reconciler.status.documents import Recorded

if TYPE_CHECKING:
    from reconciler.journal_records import EventRecord, StepRecord, TaskRecord
    from reconciler.progress import Progress


@dataclass(frozen=True, slots=True)
class Setup:
    """How this primary is set up, as far as somebody who looks at the page may know."""

    branch: str = "main"
    webhook: bool = False
    """A secret is set for GitHub's webhook, or Infisical's."""
    interval: float = 300.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything, as it was when somebody looked. `spec` is None until a pass has read one."""

    setup: Setup = Setup()
    passed: bool = False
    """A pass ended since this process started, well or not."""
    ended_at: datetime | None = None
    error: str = ""
    """Why the last pass could not be made."""
    trouble: str = ""
    """Why what is recorded could not be read just now."""
    spec: Spec | None = None
    tip: Mapping[str, Node] | None = None
    """The nodes that the spec has now, by which it is judged who may connect: a pass may not have read it
    yet. None: it could not be read."""
    recorded: Recorded = field(default_factory=Recorded)
    control: ControlState = field(default_factory=ControlState)
    connected: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    """What the agents that are connected say of themselves, by node."""
    tasks: "Sequence[TaskRecord]" = ()
    progress: "Mapping[str, Progress]" = field(default_factory=dict)
    """Of tasks that are under way, by their ids."""
    events: "Sequence[EventRecord]" = ()
    steps: "Sequence[StepRecord]" = ()
    """The newest steps, newest first."""
    sources: Mapping[str, SecretSource] = field(default_factory=dict)
    """As the settings leave them."""
    freshness: Mapping[tuple[str, str], Freshness] = field(default_factory=dict)
    """By source and environment."""

    @property
    def nodes(self) -> Mapping[str, Node]:
        """As the tip of the spec has them, or else the last pass."""
        if self.tip is not None:
            return self.tip
        return self.spec.nodes if self.spec is not None else {}

    @property
    def nodes_known(self) -> bool:
        """Whether `nodes` are those of a spec; the tip may have been read before any pass has."""
        return self.tip is not None or self.spec is not None
