"""The health of services in a pass: waited for after a deploy, else looked at once."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from reconciler.deploy.context import Identity, RunContext
from reconciler.deploy.health import CommandPlace, HealthCheckFailed, probe_of, try_once, wait_healthy
from reconciler.desired_model import DesiredService
from reconciler.errors import TrueupError
from reconciler.git.checkout import checkout
from reconciler.repositories import Repositories
from reconciler.secrets.mask import Masker
from reconciler.spec.model import Health, Spec
from reconciler.superseded import Newer, Superseded

log: structlog.stdlib.BoundLogger = structlog.get_logger()

LOOK: Final = 3.0
COMMAND_LOOK: Final = 10.0
"""Seconds for one service in a pass that deploys nothing there."""

ALL_LOOKS: Final = 10.0
"""Seconds for all of them: what is not reached by then keeps what is known of it."""

MAX_PARALLEL: Final = 32


class HealthChecks:
    """The checks of one pass."""

    def __init__(
        self, spec: Spec, newer: Newer, repositories: Repositories, checkouts: Path, context: RunContext
    ) -> None:
        self._spec = spec
        self._newer = newer
        self._repositories = repositories
        self._checkouts = checkouts
        self._context = context

    async def verify(self, desired: DesiredService, tree: Path) -> None:
        """Wait until what was just deployed is healthy. `tree`: its checkout, where a command runs.

        Raises HealthCheckFailed when it does not become so in time, and Superseded when something newer is
        to be deployed.
        """
        health = desired.service.health
        if health is None:
            return
        overtaken: str | None = None
        probe = probe_of(health, self._place(desired, tree))

        async def watch() -> None:
            nonlocal overtaken
            overtaken = await self._newer.wait(desired.service)
            waiting.cancel_scope.cancel()

        async with trio.open_nursery() as waiting:
            waiting.start_soon(watch)
            unhealthy = await wait_healthy(probe, health)
            overtaken = None
            waiting.cancel_scope.cancel()
        if overtaken is not None:
            raise Superseded(
                f"{desired.id}: was not healthy yet when {overtaken} moved; what is new goes first"
            )
        if unhealthy is not None:
            raise HealthCheckFailed(
                f"{desired.id}: deployed, and not healthy within {health.timeout:g}s "
                f"({kind_of(health)}): {unhealthy}"
            )

    async def look(self, services: Iterable[DesiredService], found: dict[str, str | None]) -> None:
        """Into `found`, by service, why it is not healthy, None where it is; one try each.

        What could not be tried in time is not there.
        """
        limiter = trio.CapacityLimiter(MAX_PARALLEL)

        async def one(desired: DesiredService) -> None:
            async with limiter:
                health = desired.service.health
                assert health is not None  # only those that have one are looked at
                try:
                    async with self._tree(desired, health) as tree:
                        probe = probe_of(health, self._place(desired, tree))
                        found[desired.id] = await try_once(probe, COMMAND_LOOK if health.command else LOOK)
                except TrueupError as error:
                    # Its checkout is not to be had: nothing was learnt.
                    log.warning("health could not be checked", resource=desired.id, error=str(error))

        with trio.move_on_after(ALL_LOOKS):
            async with trio.open_nursery() as nursery:
                for desired in services:
                    nursery.start_soon(one, desired)

    def needs_checkout(self, desired: DesiredService) -> bool:
        return desired.service.health is not None and bool(desired.service.health.command)

    def _tree(self, desired: DesiredService, health: Health) -> AbstractAsyncContextManager[Path]:
        if not health.command or desired.revision is None:
            return nullcontext(self._checkouts / "none")
        mirror = self._repositories.mirror(self._spec.repositories[desired.service.repository].url)
        return checkout(mirror, desired.revision.commit, under=self._checkouts)

    def _place(self, desired: DesiredService, tree: Path) -> CommandPlace:
        service, revision = desired.service, desired.revision
        return CommandPlace(
            checkout=tree,
            variables=desired.merged.sealed(),
            identity=Identity(
                environment=service.environment,
                service=service.name,
                tag=revision.ref if revision is not None else None,
                revision=revision.commit if revision is not None else None,
            ),
            masker=Masker([*desired.merged.secrets(), *desired.passed_on]),
            context=self._context,
            log=partial(_log_line, desired.id),
        )


def kind_of(health: Health) -> str:
    return "http" if health.http is not None else "tcp" if health.tcp is not None else "command"


def _log_line(resource: str, line: str) -> None:
    log.info("health output", resource=resource, line=line)
