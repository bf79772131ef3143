"""Runs an allowed command on each node of a project: the `agent` driver.

The project's own targets bring the files there, and the service waits for them. The command gets the
service's variables over the session with its node; they are written nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import trio

from agent.errors import TrueupError
from reconciler.deploy.output import DEFAULT_MAX_OUTPUT, Excerpt
from reconciler.deploy.request import (
    CannotRemove,
    DeployOutcome,
    DeployRequest,
    Driver,
    NodeCommand,
    RemoveRequest,
    TaskFailed,
)
from reconciler.errors import StepFailed
from reconciler.spec.model import AgentDeploy, Project, Retry, Service, SyncTarget
from reconciler.status.conditions import Reason

PROJECT, COMMAND, TIMEOUT, TARGETS = "project", "command", "timeout", "targets"
"""What status keeps of a service that has a command to take it away."""

_REASONS: Mapping[str, str] = {"CommandFailed": Reason.DEPLOY_FAILED}
"""The reason of a service where an agent's own would say less."""


class NodesFailed(TaskFailed):
    """The command failed on some nodes. Its reason is the one that all of them have, else DeployFailed."""

    def __init__(
        self,
        message: str,
        reasons: Sequence[str],
        *,
        hint: str | None,
        output: str = "",
        inventory: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, output=output, inventory=inventory)
        told = {_REASONS.get(reason, reason) for reason in reasons}
        self._reason = told.pop() if len(told) == 1 else str(Reason.DEPLOY_FAILED)
        self.retryable = self._reason == Reason.AGENT_UNREACHABLE  # type: ignore[misc]

    @property
    def reason(self) -> str:  # type: ignore[override]
        return self._reason


@dataclass(slots=True)
class _Rollout:
    """How far it came."""

    done: dict[str, str]
    """By node, the output of the command."""
    failed: dict[str, TrueupError]
    left: list[str]
    """Those that were not begun."""


class AgentDriver(Driver):
    """`deploy: {kind: agent, project: web, command: up}`: exit code 0 on every node means deployed."""

    needs_checkout = False
    is_local = False
    removes = True

    async def deploy(self, request: DeployRequest) -> DeployOutcome:
        deploy, project = request.service.deploy, request.project
        if not isinstance(deploy, AgentDeploy) or project is None:
            raise TypeError(f"not an agent deploy: {type(deploy).__name__}")
        owner, targets = request.service.id, project.sync.targets
        if not targets:
            raise StepFailed(
                f"{owner}: the project {project.id} is on no node", hint="correct its `sync.nodes`"
            )
        names = _names(targets)
        began = trio.current_time()
        if deploy.on_failure == "stop":
            await _check_all_there(request, deploy.command, targets)
        rollout = await _roll_out(request, deploy, project, names)
        output = _outputs(request, rollout)
        inventory = _inventory(deploy, targets)
        if rollout.failed:
            raise _failure(request, deploy.command, rollout, output, inventory)
        return DeployOutcome(0, output, trio.current_time() - began, inventory)

    def place(self, inventory: Mapping[str, str]) -> str:
        # Its project: a command that takes one service of it down would meet another one there too.
        return inventory[PROJECT] if COMMAND in inventory else ""

    def place_of(self, service: Service, inventory: Mapping[str, str]) -> str:  # noqa: ARG002 - same for all
        assert isinstance(service.deploy, AgentDeploy)
        return service.deploy.project

    async def remove(self, request: RemoveRequest) -> None:
        """Run the command that was recorded for it on those of its nodes that the spec still has."""
        inventory = request.inventory
        if COMMAND not in inventory:
            raise CannotRemove(
                f"{request.resource}: its `deploy` named no `remove_command`, so what it started stays"
            )
        if request.nodes is None:
            raise StepFailed("this pass runs without agents")
        places = msgspec.json.decode(inventory[TARGETS], type=list[tuple[str, str]])
        known = [(node, path) for node, path in places if request.nodes.knows(node)]
        await request.nodes.wait_connected({node for node, _ in known})
        for node, path in known:
            await request.nodes.run_command(
                NodeCommand(
                    resource=request.resource,
                    node=node,
                    project=inventory[PROJECT],
                    target_path=path,
                    command=inventory[COMMAND],
                    timeout=float(inventory[TIMEOUT]),
                    retry=Retry(attempts=1),
                )
            )
            request.log(f"{node}: {inventory[COMMAND]} succeeded")


def _inventory(deploy: AgentDeploy, targets: Sequence[SyncTarget]) -> dict[str, str]:
    """What a removal needs to know; nothing where no command can do it."""
    if deploy.remove_command is None:
        return {}
    places = [(target.node, target.target_path) for target in targets]
    return {
        PROJECT: deploy.project,
        COMMAND: deploy.remove_command,
        TIMEOUT: f"{deploy.timeout:g}",
        TARGETS: msgspec.json.encode(places).decode(),
    }


async def _check_all_there(request: DeployRequest, command: str, targets: Sequence[SyncTarget]) -> None:
    """A node that is away is a failure known beforehand: the others are left as they are, all alike."""
    if request.nodes is None:
        return
    wanted = {target.node for target in targets}
    away = sorted(wanted - await request.nodes.wait_connected(wanted))
    if away:
        raise NodesFailed(
            f"{request.service.id}: {', '.join(away)} not connected, so {command!r} was run on no node",
            [Reason.AGENT_UNREACHABLE],
            hint="start the agent there, or say `on_failure: continue`",
        )


async def _roll_out(
    request: DeployRequest, deploy: AgentDeploy, project: Project, names: Mapping[SyncTarget, str]
) -> _Rollout:
    if request.nodes is None:
        raise StepFailed("this pass runs without agents")
    nodes, rollout = request.nodes, _Rollout({}, {}, [])
    places = trio.CapacityLimiter(max(1, project.sync.max_parallel_nodes))

    async def run(target: SyncTarget, name: str, free: trio.Event) -> None:
        try:
            report = await nodes.run_command(
                NodeCommand(
                    resource=request.service.id,
                    node=target.node,
                    project=project.id,
                    target_path=target.target_path,
                    command=deploy.command,
                    timeout=deploy.timeout,
                    retry=project.sync.retry,
                    variables=request.variables,
                )
            )
        except TrueupError as error:
            rollout.failed[name] = error
            request.log(f"{name}: {request.masker.mask(str(error))}")
        else:
            rollout.done[name] = report.after[-1].output if report.after else ""
            request.log(f"{name}: {deploy.command} succeeded")
        finally:
            places.release_on_behalf_of(free)

    async with trio.open_nursery() as nursery:
        for target, name in names.items():
            place = trio.Event()  # stands for the command that holds a place
            await places.acquire_on_behalf_of(place)
            if rollout.failed and deploy.on_failure == "stop":
                places.release_on_behalf_of(place)
                rollout.left.append(name)
                continue
            nursery.start_soon(run, target, name, place)
    return rollout


def _names(targets: Sequence[SyncTarget]) -> dict[SyncTarget, str]:
    """How messages call each target: by its node, and by its path as well where the node has several."""
    nodes = [target.node for target in targets]
    return {
        target: target.node if nodes.count(target.node) == 1 else f"{target.node}:{target.target_path}"
        for target in sorted(targets, key=lambda target: (target.node, target.target_path))
    }


def _outputs(request: DeployRequest, rollout: _Rollout) -> str:
    told = dict(rollout.done)
    for name, error in rollout.failed.items():
        told[name] = str(getattr(error, "output", ""))
    excerpt = Excerpt(DEFAULT_MAX_OUTPUT)
    for name, output in sorted(told.items()):
        if output:
            excerpt.feed(f"--- {name}\n{request.masker.mask(output)}\n")
    return excerpt.text()


def _failure(
    request: DeployRequest, command: str, rollout: _Rollout, output: str, inventory: Mapping[str, str]
) -> NodesFailed:
    failed = sorted(rollout.failed.items())
    told = "; ".join(f"{name}: {error}" for name, error in failed)
    message = f"{request.service.id}: {command!r} failed on {', '.join(name for name, _ in failed)}"
    if rollout.left:
        message += f", and was not begun on {', '.join(sorted(rollout.left))}"
    return NodesFailed(
        message,
        [error.reason for _, error in failed],
        hint=request.masker.mask(told),
        output=output,
        inventory=inventory,
    )
