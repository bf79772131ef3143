"""What is known of one unit in one environment when its release is decided, as values. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.control.records import Record
from reconciler.control.state import ControlState
from reconciler.git.objects import Tag
from reconciler.observation import Setback
from reconciler.release.versions import Bump
from reconciler.spec.model import Environment, Spec, Unit
from reconciler.status.documents import Hold, Recorded, Release, ReleaseKind, UnitStatus


@dataclass(frozen=True, slots=True)
class Lineage:
    """How commits of one repository relate, as far as it was looked up."""

    ancestors: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """(commit, other): whether the other contains the commit."""
    contained: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """(hotfix, commit): whether the commit has all changes of the hotfix, as commits or as equal patches."""

    def contains(self, commit: str, other: str) -> bool:
        """Whether `other` has `commit` in its history. What was not looked up counts as no."""
        return commit == other or self.ancestors.get((commit, other), False)

    def is_older(self, commit: str, other: str) -> bool:
        """Whether going from `other` to `commit` would go back in history."""
        return commit != other and self.contains(commit, other)

    def has_patches(self, hotfix: str, commit: str) -> bool:
        return self.contains(hotfix, commit) or self.contained.get((hotfix, commit), False)


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """One unit in one environment."""

    unit: Unit
    environment: Environment
    tags: Sequence[Tag] | Setback
    """All tags of its repository; a setback where they could not be looked up."""
    recorded: UnitStatus | None = None
    seen: int = 0
    """The number of the newest operator's record that was acted on or refused."""
    source: UnitStatus | None = None
    """The unit in the environment that is promoted from."""
    source_spec: str | None = None
    """The spec revision that the source runs with, where that is not its release's."""
    source_fault: str = ""
    """What failed of the unit in the source with the spec that it runs with now, if that is promoted too."""
    head: str | Setback | None = None
    """The tip of the branch that releases are cut from; None: they are not cut here."""
    changed: tuple[str, ...] = ()
    """What of the unit's services and projects is another at the head than in the current release."""
    lineage: Lineage = Lineage()
    recorded_tags: Collection[str] = ()
    """Tags of the unit that some environment has recorded: their numbers are taken for ever."""


def spec_run_by(spec: Spec, environment: str, recorded: Recorded) -> str | None:
    """The spec that an environment that takes the head's ran with when it was last looked at, not one that
    nobody has tried yet; empty: nothing is recorded. None: it runs with the spec of its release."""
    if spec.environments[environment].spec_from != "head":
        return None
    return recorded.summary.last_applied_revision if recorded.summary is not None else ""


@dataclass(frozen=True, slots=True)
class Common:
    """What concerns all units."""

    now: datetime
    spec_commit: str
    """The head's, that this pass works with."""
    control: ControlState = field(default_factory=ControlState)
    holds: Mapping[str, tuple[Hold, ...]] = field(default_factory=dict)
    """By environment, those that a failure or a rollback has set."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release that is asked for, by whoever."""

    kind: ReleaseKind
    commit: str
    spec_revision: str | None
    tag: str = ""
    """It exists already; empty: a number has to be found."""
    bump: Bump = "patch"
    promoted_from: str = ""
    triggered_by: str = ""
    request: Record | None = None
    """The operator's record behind it; None: nobody asked, it comes by itself."""

    @property
    def told(self) -> str:
        """How messages name it."""
        return self.tag or self.promoted_from or self.commit[:12]


@dataclass(frozen=True, slots=True)
class Next:
    """The release that a unit gets in this pass. `tag` is the name that is expected where one is cut."""

    kind: ReleaseKind
    tag: str
    commit: str
    spec_revision: str | None
    cut: bool
    """Whether the tag has to be made."""
    bump: Bump = "patch"
    promoted_from: str = ""
    triggered_by: str = ""
    decision: int = 0
    previous: str = ""
    previous_tag: str = ""

    def as_release(self, now: datetime, *, tag: str | None = None) -> Release:
        return Release(
            tag=tag or self.tag,
            commit=self.commit,
            spec_revision=self.spec_revision,
            recorded_at=now,
            kind=self.kind,
            promoted_from=self.promoted_from,
            previous=self.previous,
            triggered_by=self.triggered_by,
            decision=self.decision,
        )
