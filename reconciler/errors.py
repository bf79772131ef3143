"""The reconciler's error kinds: who must act is in the type, the reason goes to the status file."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.errors import SettingsError, TrueupError

__all__ = [
    "ControlContended",
    "ControlRewound",
    "ControlUnreadable",
    "GitRefused",
    "GitUnavailable",
    "JournalUnavailable",
    "KeyMismatch",
    "LeaseHeld",
    "LeaseLost",
    "LeaseRewound",
    "LeaseUnreadable",
    "LookFailed",
    "NotYetImplemented",
    "Problem",
    "SecretMissing",
    "SecretSourceUnavailable",
    "SettingsError",
    "SpecInvalid",
    "StatusContended",
    "StatusRewound",
    "StatusUnreadable",
    "StepFailed",
    "TrueupError",
    "UnknownRevision",
]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a spec file, located for an editor.

    `line` and `column` count from 1. `where` is the path in the document, such as
    `services.web.deploy.kind`. `resource` names the resource that holds it, such as `services/web`,
    or None where the whole document is unusable.
    """

    file: str
    line: int
    column: int
    where: str
    message: str
    resource: str | None = None

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.message}"


class SpecInvalid(TrueupError):
    """The spec cannot be used; every problem found is in `problems`, in file order."""

    reason = "SpecInvalid"
    exit_code = 3

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class GitRefused(TrueupError):
    """A URL, ref or path that will not be handed to git: edit the spec, or allow it."""

    reason = "GitRefused"


class GitUnavailable(TrueupError):
    """A repository could not be reached, timed out or refused our credentials."""

    reason = "RepositoryUnavailable"
    retryable = True


class UnknownRevision(TrueupError):
    """A tag, branch or commit that the repository does not have."""

    reason = "RevisionNotFound"


class SecretSourceUnavailable(TrueupError):
    """A secret source and its fallbacks could not be read: unknown, which is not the same as empty."""

    reason = "SecretFetchFailed"
    retryable = True


class SecretMissing(TrueupError):
    """The source answered, and it does not have a key that something asks for."""

    reason = "SecretNotFound"


class LookFailed(TrueupError):
    """Something could not be observed. Never the same as finding nothing."""

    reason = "ObservationFailed"
    retryable = True


class KeyMismatch(TrueupError):
    """The status branch was signed with another master key, or not signed at all."""

    reason = "SignatureInvalid"


class StatusUnreadable(TrueupError):
    """A status file is garbled, or of a version that this one does not know. Never the same as empty."""

    reason = "StatusUnreadable"


class StatusRewound(TrueupError):
    """The status branch was set back to, or replaced by, something older than what was already seen."""

    reason = "StatusRewound"


class StatusContended(TrueupError):
    """Others kept moving the status branch; what was to be recorded is still due."""

    reason = "StatusContended"
    retryable = True


class LeaseHeld(TrueupError):
    """Another primary acts; this one did not."""

    reason = "LeaseHeld"
    retryable = True


class LeaseLost(TrueupError):
    """The lease is not surely ours, so nothing more is begun; what was under way was broken off."""

    reason = "LeaseLost"
    retryable = True


class LeaseRewound(TrueupError):
    """The lease was set back to an older one: whoever acts by it may have been succeeded already."""

    reason = "LeaseRewound"


class LeaseUnreadable(TrueupError):
    """The lease is of a form that this version does not know. Never the same as none."""

    reason = "LeaseUnreadable"


class ControlUnreadable(TrueupError):
    """An operator's record is garbled, misplaced or missing in between. Never the same as no decision."""

    reason = "ControlUnreadable"


class ControlRewound(TrueupError):
    """The control branch was deleted, set back or replaced: decisions that counted are not there any more."""

    reason = "ControlRewound"


class ControlContended(TrueupError):
    """Others kept moving the control branch; the decision is not recorded."""

    reason = "ControlContended"
    retryable = True


class JournalUnavailable(TrueupError):
    """The journal could not be opened or written, so no step may begin."""

    reason = "JournalUnavailable"
    retryable = True


class StepFailed(TrueupError):
    """A step ran and did not reach its goal."""

    reason = "StepFailed"
    details: Mapping[str, str | int | bool | list[str]] = MappingProxyType({})
    """What it came to all the same, for the status file."""


class NotYetImplemented(TrueupError):
    """A valid part of the spec that this version does not act on; reported, never called a success."""

    reason = "NotImplemented"
