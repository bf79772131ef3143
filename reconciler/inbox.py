"""What webhooks delivered: kept before it is answered, then acted on, once, also after a restart.

To act is little: to forget what is known to be old, and to ask for a pass. A delivery whose body came before
is counted, and does nothing.
"""

from collections import deque
from collections.abc import Collection
from typing import Final, Protocol, assert_never

import msgspec
import structlog
import trio

from reconciler.errors import JournalUnavailable
from reconciler.git.objects import LEASE_REF
from reconciler.kept_deliveries import KeptDelivery, digest_of
from reconciler.mishaps import line_for_log
from reconciler.primary import Primary
from reconciler.status.branch import DEFAULT_BRANCH
from reconciler.tracing import trace
from reconciler.web.deliveries import (
    FORMS,
    Acknowledged,
    Delivery,
    PassAsked,
    Pushed,
    RotationFailed,
    SecretsModified,
    WorkflowCompleted,
    is_at_github,
    sources_in,
)
from reconciler.web.rates import Rates
from reconciler.web.refusals import RequestRefused

log: structlog.stdlib.BoundLogger = structlog.get_logger()

OWN_REF: Final = f"refs/heads/{DEFAULT_BRANCH}"

BURST: Final = 1000
PACE: Final = 0.1
"""Genuine deliveries that are taken at once, and the seconds in which one more may come."""

MAX_WAITING: Final = 1000
"""Deliveries that are kept and cannot be acted on yet."""

QUIET: Final = 1.0
"""Seconds after which it is noted together what was acted on."""

COME_AGAIN: Final = 30
"""Seconds after which to try again, where nothing better is known."""


class Ask(Protocol):
    def __call__(
        self,
        why: str,
        *,
        resources: Collection[str] = (),
        environments: Collection[str] = (),
        forced: Collection[str] = (),
    ) -> None: ...


class Inbox:
    """The deliveries of one primary. `ask` asks for a pass."""

    def __init__(self, primary: Primary, ask: Ask) -> None:
        self._primary = primary
        self._ask = ask
        self._rates = Rates(burst=BURST, every=PACE)
        self._flooded = False
        self._waiting: deque[tuple[KeptDelivery, Delivery]] = deque()
        """They need to know the spec, which no pass has read yet."""
        self._acted: set[int] = set()
        self._news = trio.Event()

    async def take(self, sender: str, delivery_id: str, said: Delivery, body: bytes, trace: str) -> bool:
        """Returns once it cannot be lost; whether it is new. Raises RequestRefused, JournalUnavailable.

        `said` is what a genuine `body` was read as.
        """
        self._check_room()
        kind = type(said).__name__
        kept = await trio.to_thread.run_sync(
            self._primary.journal.deliveries.take,
            digest_of(sender, kind, body),
            sender,
            delivery_id,
            kind,
            msgspec.json.encode(said).decode(),
            trace,
        )
        if kept is None:
            log.info("webhook: the same was delivered before", delivery=delivery_id)
            return False
        self._act_or_wait(kept, said)
        return True

    async def run(self) -> None:
        """Act on what a killed primary left, and note what was acted on; goes on for ever."""
        for kept in await trio.to_thread.run_sync(self._primary.journal.deliveries.open):
            form = FORMS.get(kept.kind)
            if form is None:  # of another version: the pass at the start looks at everything
                self._acted.add(kept.id)
                continue
            log.info("webhook: taken before the restart", delivery=kept.delivery, kind=kept.kind)
            self._act_or_wait(kept, msgspec.json.decode(kept.said, type=form))
        while True:
            version, self._news = self._primary.bulletin.version, trio.Event()
            while self._waiting and self._primary.spec is not None:
                self._act(*self._waiting.popleft())
            await self._note()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_news, nursery.cancel_scope)
                if self._waiting:
                    await self._primary.bulletin.wait_newer(version)
                    nursery.cancel_scope.cancel()

    async def _wait_news(self, scope: trio.CancelScope) -> None:
        if not self._acted:
            await self._news.wait()
        await trio.sleep(QUIET)
        scope.cancel()

    async def _note(self) -> None:
        acted, self._acted = self._acted, set()
        if not acted:
            return
        try:
            await trio.to_thread.run_sync(self._primary.journal.deliveries.mark_acted, acted)
        except JournalUnavailable as error:
            # At worst they are acted on once more after the next start.
            log.warning("webhook: what was acted on could not be noted", error=line_for_log(error))

    def _check_room(self) -> None:
        """Raises RequestRefused: what is refused is not kept, but the sender is told."""
        wait = self._rates.take("all", trio.current_time())
        if wait > 0:
            if not self._flooded:
                self._flooded = True
                self._ask("more was delivered than is taken")
            headers = {"Retry-After": str(int(wait) + 1)}
            raise RequestRefused(429, "too many deliveries; a pass looks at everything", headers=headers)
        self._flooded = False
        if len(self._waiting) >= MAX_WAITING:
            headers = {"Retry-After": str(COME_AGAIN)}
            raise RequestRefused(503, "no more is taken until the spec could be read", headers=headers)

    def _act_or_wait(self, kept: KeptDelivery, said: Delivery) -> None:
        if isinstance(said, SecretsModified) and self._primary.spec is None:
            self._waiting.append((kept, said))
            self._news.set()
        else:
            self._act(kept, said)

    def _act(self, kept: KeptDelivery, said: Delivery) -> None:
        with trace(kept.trace or None, delivery=kept.delivery):
            self._follow(said)
        self._acted.add(kept.id)
        self._news.set()

    def _follow(self, said: Delivery) -> None:
        match said:
            case SecretsModified():
                self._forget(said)
            case RotationFailed(project, environment, path):
                log.warning(
                    "Infisical could not rotate a secret", project=project, environment=environment, path=path
                )
            case Pushed(repository, ref):
                # Our own push, mostly; acting on it, a pass that records something would follow itself.
                if ref != OWN_REF and ref != LEASE_REF:
                    self._ask(f"push to {ref} of {repository}", resources=self._named(repository))
            case WorkflowCompleted(repository):
                self._primary.arrivals.tell(repository)
                self._ask(f"a workflow of {repository} ended")
            case Acknowledged(event):
                log.info("webhook", event_name=event)
            case PassAsked(why, resources, environments, forced):
                self._ask(why, resources=resources, environments=environments, forced=forced)
            case _:
                assert_never(said)

    def _named(self, full_name: str) -> list[str]:
        """What a pass has to look at after something happened in a repository; none: everything."""
        primary = self._primary
        own = [primary.settings.require_spec_repo(), primary.settings.status_repo or ""]
        if primary.spec is None or not full_name or any(is_at_github(url, full_name) for url in own):
            return []
        return [
            f"repositories/{name}"
            for name, repository in primary.spec.repositories.items()
            if is_at_github(repository.url, full_name)
        ]

    def _forget(self, event: SecretsModified) -> None:
        """An old value must not serve any more: it is known to be one."""
        primary = self._primary
        assert primary.spec is not None
        names = sources_in(event, primary.spec.secret_sources.values())
        for name in names:
            primary.forget_secrets(primary.spec, name)
        log.info(
            "Infisical says that secrets changed",
            project=event.project,
            environment=event.environment,
            path=event.path,
            sources=", ".join(names) or "none",
        )
        if names:
            self._ask(f"secrets changed: {', '.join(names)}", resources=[f"secrets/{name}" for name in names])
