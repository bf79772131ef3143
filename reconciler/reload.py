"""What SIGHUP does: whatever was read from files of this machine counts as they are now."""

from collections.abc import Awaitable, Callable

import structlog
import trio

from reconciler.errors import TrueupError
from reconciler.mishaps import line_for_log, way_to
from reconciler.primary import Primary
from reconciler.runner import Runner
from reconciler.settings import with_secrets_read_again
from reconciler.watchdog import reloading
from reconciler.web.door import Door

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Reload:
    """One at a time. `read` is set by whoever serves; before that everything is read anyway."""

    def __init__(self) -> None:
        self.read: Callable[[], Awaitable[None]] | None = None
        self._turn = trio.Lock()

    async def run(self) -> None:
        """Never raises: a primary that goes on with what it had is better than none."""
        if self._turn.statistics().tasks_waiting:
            return  # that one begins after this signal, too
        async with self._turn:
            if self.read is None:
                return
            with reloading():
                try:
                    await self.read()
                except Exception as raised:
                    log.error("not everything could be read again", error=line_for_log(raised))
                    log.debug("the way to where reading again broke off", calls=way_to(raised))


async def read_again(primary: Primary, door: Door, runner: Runner) -> None:
    """Secrets and tokens of our own, those of the spec's sources at their next use, the agents' certificate.

    A pass is asked for, which uses them.
    """
    try:
        primary.settings = await trio.to_thread.run_sync(
            with_secrets_read_again, primary.settings, abandon_on_cancel=True
        )
    except TrueupError as error:
        log.error("the secrets that were read before go on to count", error=str(error))
    else:
        log.info("files with secrets were read again")
    if door.tokens is not None:
        door.tokens.forget()
    primary.read_files_again()
    runner.ask("SIGHUP")
    if primary.hub is not None:
        await primary.hub.renew_certificate()
