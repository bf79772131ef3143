"""What a driver is asked, what it answers, and how it fails: the contract between apply and the drivers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from reconciler.deploy.context import RunContext
from reconciler.deploy.output import Masker
from reconciler.errors import NotYetImplemented, StepFailed
from reconciler.secrets.values import Secret
from reconciler.spec.model import Service


def no_log(line: str) -> None:
    """For callers that need no live view."""


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """Bring `service` to what `checkout` and `variables` say. The deadline is in `service.deploy`."""

    service: Service
    checkout: Path
    """A work tree of the service's repository at `revision`, for this deploy alone."""
    tag: str
    revision: str
    """Commit id."""
    variables: Mapping[str, str | Secret] = field(repr=False)
    """The merged environment."""
    masker: Masker
    """Knows every secret value among `variables`."""
    context: RunContext
    log: Callable[[str], None] = no_log
    """Gets each line of output as it comes, masked; must not raise."""


@dataclass(frozen=True, slots=True)
class DeployOutcome:
    """A deploy that reached its goal."""

    exit_code: int
    output: str
    """Masked excerpt."""
    duration: float
    """Seconds."""


class Driver(Protocol):
    """Brings one kind of service to its desired state. A new kind is one file and a line in `driver.py`."""

    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        """Deploy, and return once it is done. Cancellation leaves no process behind.

        Doing the same again must be harmless: a primary that was killed meanwhile repeats the step.
        Raises StepFailed.
        """


class TaskFailed(StepFailed):
    """A task ran, or could not run, and did not succeed. `output` is a masked excerpt."""

    def __init__(self, message: str, *, hint: str | None = None, output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output


class DeployFailed(TaskFailed):
    reason = "DeployFailed"


class BuildFailed(TaskFailed):
    reason = "BuildFailed"


class TaskTimeout(TaskFailed):
    reason = "Timeout"
    retryable = True


class ManualService(NotYetImplemented):
    """A service that people deploy by hand: reported, never applied."""

    reason = "Manual"
