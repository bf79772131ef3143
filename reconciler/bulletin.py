"""Tells whoever watches that something is another than before: what it is they look up themselves.

Like the passes it is level-triggered: a watcher that was slow misses nothing, as it sees what is there when
it looks. So there is no queue that could grow.
"""

import trio


class Bulletin:
    """One for a primary; used by its trio thread alone."""

    def __init__(self) -> None:
        self._version = 0
        self._told = trio.Event()

    @property
    def version(self) -> int:
        """Counts what was told; read it before looking, and wait for a newer one after that."""
        return self._version

    def tell(self) -> None:
        """Something changed: a status file, an event, a task, a connection."""
        self._version += 1
        self._told.set()
        self._told = trio.Event()

    async def wait_newer(self, version: int) -> int:
        """Until more was told than when `version` was read; gives the version of now."""
        while self._version <= version:
            await self._told.wait()
        return self._version
