"""A primary's part in the lease: `serve` holds it as long as it runs, a single pass only while it acts."""

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio

from reconciler.apply import Details, Executor
from reconciler.git.mirror import Mirror
from reconciler.keys import MasterKey
from reconciler.lease import Timing
from reconciler.lease_holder import HolderFile
from reconciler.lease_keeper import Keeper, Role
from reconciler.lease_ref import LeaseRef
from reconciler.plan import Action, Step
from reconciler.settings import Settings

REPOSITORY: Final = "lease.git"

RELEASE_DEADLINE: Final = 5.0
"""Seconds to let go of the lease at the end. The next one waits longer where that is not done in time."""


def open_keeper(settings: Settings, mirror: Mirror, key: MasterKey) -> Keeper:
    """The lease in the repository of the status branch. Raises SettingsError."""
    timing = Timing(settings.lease_renew)
    path = settings.state_dir / REPOSITORY
    place = LeaseRef(mirror.url, path, mirror.options, key, deadline=timing.deadline)
    memory = HolderFile.open(settings.state_dir)
    return Keeper(place, memory, host=socket.gethostname(), timing=timing)


class Leadership:
    """`standing`: whoever runs the primary takes the lease and waits for it; a pass never does.

    Otherwise a pass takes it when it is about to change something, and one that has nothing to do leaves no
    trace. `nursery` holds what renews it from then on.
    """

    def __init__(self, lease: Keeper, mirror: Mirror, nursery: trio.Nursery, *, standing: bool) -> None:
        self.lease = lease
        self.on_epoch: Callable[[int], None] = lambda _epoch: None
        """Told of the epoch when a pass has taken the lease."""
        self._mirror = mirror
        self._nursery = nursery
        self._standing = standing

    @property
    def is_unsure(self) -> bool:
        """Whether it could not be renewed: then nothing may be done but to keep nodes as they are."""
        return self.lease.role is Role.UNSURE

    async def claim(self) -> bool:
        """Before something is changed: take the lease where it is not ours yet. True: somebody else may have
        acted since the pass looked, which therefore has to look again.

        Raises LeaseHeld, GitUnavailable, GitRefused, KeyMismatch.
        """
        if self._standing or self.lease.role is not Role.STANDBY:
            return False
        return await self.lease.claim(self._mirror.lease, self._began)

    def _began(self) -> None:
        self._nursery.start_soon(self.lease.keep)
        self.on_epoch(self.lease.epoch)

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """Where something is changed; see `Keeper.acting`. Raises what `claim` raises, and LeaseLost."""
        await self.claim()
        async with self.lease.acting():
            yield

    def guarding(self, executors: Mapping[Action, Executor]) -> dict[Action, Executor]:
        """Executors of steps, each broken off with LeaseLost where the lease is lost."""

        def guarded(executor: Executor) -> Executor:
            async def execute(step: Step) -> Details:
                async with self.acting():
                    return await executor(step)

            return execute

        return {action: guarded(executor) for action, executor in executors.items()}

    async def epoch(self) -> int:
        """What agents are shown: ours, or that of whoever leads. Raises GitUnavailable, KeyMismatch."""
        await self.lease.look(self._mirror.lease)
        return self.lease.epoch

    async def release(self) -> None:
        """At the end of everything that acts."""
        with trio.move_on_after(RELEASE_DEADLINE, shield=True):
            await self.lease.release()
