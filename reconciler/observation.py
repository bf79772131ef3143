"""What was found when we looked, or why we could not look, which is never the same as finding nothing."""

from dataclasses import dataclass, field

from reconciler.errors import TrueupError
from reconciler.hashing import Inputs


@dataclass(frozen=True, slots=True)
class Present:
    """Found. `hash` is the config hash it was brought to, `inputs` what that hash was made of.

    `drift` says how the thing itself differs from what that hash stands for; empty: intact.
    """

    hash: str
    inputs: Inputs = field(default_factory=Inputs)
    drift: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """Looked, and it is not there, or not known to be whole: `why` is a reason to bring it about."""

    why: str = "not applied yet"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could not look. `reason` is one of `status.conditions`' reasons."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Setback:
    """Why a resource has no plan. `unknown`: we could not look; otherwise somebody must act."""

    reason: str
    message: str
    unknown: bool = False
    blocks: bool = True

    @classmethod
    def of(cls, error: TrueupError) -> "Setback":
        return cls(error.reason, str(error), unknown=error.retryable)


Observation = Present | Absent | Unknown
