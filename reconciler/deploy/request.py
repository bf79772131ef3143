"""What a driver is asked, what it answers, and how it fails: the contract between apply and the drivers."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from agent.wire.messages import TaskReport
from reconciler.deploy.context import RunContext
from reconciler.deploy.output import Masker
from reconciler.errors import NotYetImplemented, SettingsError, StepFailed
from reconciler.observation import Observation
from reconciler.secrets.values import Secret
from reconciler.spec.model import Credential, Project, Retry, Service
from reconciler.status.documents import ServiceStatus

ReadCredential = Callable[[Credential, str], Awaitable[Secret]]
"""A credential of the spec, and the environment it is read for, to its value. Raises SettingsError."""


async def no_credential(credential: Credential, environment: str) -> Secret:  # noqa: ARG001 - as is said
    """For drivers that need none."""
    raise SettingsError("no credential can be read here")


def no_log(line: str) -> None:
    """For callers that need no live view."""


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """A command to run on one node, in one target of a project; the node's own configuration allows it."""

    resource: str
    """Whom it serves: the record of tasks has it under this id."""
    node: str
    project: str
    target_path: str
    command: str
    timeout: float
    retry: Retry
    variables: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)


class Nodes(Protocol):
    """The nodes of the spec, as far as drivers use them."""

    def knows(self, node: str) -> bool:
        """Whether the spec has the node; no agent of another can be asked any more."""
        ...

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        """Those of `nodes` that are connected, once all are or waiting makes no sense any more."""
        ...

    async def run_command(self, run: NodeCommand) -> TaskReport:
        """Raises a `TrueupError` unless the command ended with exit code 0."""
        ...


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
    config_hash: str = ""
    """What the deploy establishes."""
    inventory: Mapping[str, str] = field(default_factory=dict)
    """What status has of it since this kind of driver last deployed it."""
    others: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The same of the other services of this kind, by id."""
    nodes: Nodes | None = None
    """None in a pass without agents."""
    project: Project | None = None
    """The one that `service.deploy` names, where it names one."""
    credential: ReadCredential = no_credential
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
    inventory: Mapping[str, str] = field(default_factory=dict)
    """What status keeps, so that the driver finds it again; no secrets."""


@dataclass(frozen=True, slots=True)
class LookRequest:
    """What of a service is there? `recorded` is its status file, None where nothing was ever recorded."""

    service: Service
    recorded: ServiceStatus | None
    config_hash: str
    """The one that is wanted."""
    context: RunContext
    credential: ReadCredential = no_credential


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """Take away what was deployed. `inventory` is what the driver gave when it last deployed."""

    resource: str
    """The id that the service had."""
    inventory: Mapping[str, str]
    context: RunContext
    nodes: Nodes | None = None
    credential: ReadCredential = no_credential
    log: Callable[[str], None] = no_log


class Driver(ABC):
    """Brings one kind of service to its desired state. A new kind is one file and a line in `driver.py`."""

    needs_checkout: ClassVar[bool] = True
    """Whether a work tree of the repository has to be there for a deploy."""
    is_local: ClassVar[bool] = True
    """Whether `look` asks the host that it runs on, and so means nothing anywhere else."""
    removes: ClassVar[bool] = False
    """Whether `remove` can take away what was deployed."""
    adopts: ClassVar[bool] = False
    """Whether `adopt` can take over what somebody else deployed."""

    @abstractmethod
    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        """Deploy, and return once it is done. Cancellation leaves no process behind.

        Doing the same again must be harmless: a primary that was killed meanwhile repeats the step.
        Raises StepFailed.
        """

    async def adopt(self, request: DeployRequest) -> DeployOutcome:
        """Mark what is there as what the request would deploy, and deploy nothing. Raises StepFailed."""
        raise StepFailed(f"{request.service.id}: this kind of deploy cannot be adopted")

    async def look(self, request: LookRequest) -> Observation | None:  # noqa: ARG002 - a default
        """What is there, where the system can be asked; None: only what was recorded is known.

        What could not be found out is `Unknown`, never `Absent`.
        """
        return None

    def place(self, inventory: Mapping[str, str]) -> str:  # noqa: ARG002 - a default
        """What `remove` would take away, in words that are the same for whoever else is there; empty:
        nothing is known to be there."""
        return ""

    def place_of(self, service: Service, inventory: Mapping[str, str]) -> str:  # noqa: ARG002 - a default
        """The same of a service of the spec, with what status has of it."""
        return ""

    async def remove(self, request: RemoveRequest) -> None:
        """Take it away; harmless where it is gone already. Raises StepFailed."""
        raise CannotRemove(f"{request.resource}: this kind of deploy cannot be taken back")


class CannotRemove(StepFailed):
    """Nothing of ours can take away what was deployed."""

    reason = "PruneFailed"


class TaskFailed(StepFailed):
    """A task ran, or could not run, and did not succeed. `output` is a masked excerpt.

    `inventory`: as in `DeployOutcome`, where something may be there of what failed.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        output: str = "",
        inventory: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.output = output
        self.inventory = inventory or {}


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
