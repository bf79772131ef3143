"""Whether a wait was overtaken: git has news that may concern the service whose health is waited for.

A bad release that waits ten minutes to become healthy would otherwise hold back the release that mends it,
as a pass waits for its steps. Only such a wait ends; a deploy's command goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
import trio

from reconciler.errors import StepFailed, TrueupError
from reconciler.git.objects import HEADS, TAGS
from reconciler.spec.model import Service, Spec

log: structlog.stdlib.BoundLogger = structlog.get_logger()

INTERVAL: Final = 15.0
"""Seconds between two looks, when nobody says that there is something to see."""

CONTROL_REF: Final = f"{HEADS}trueup/control"


class Superseded(StepFailed):
    """Given up for something newer: neither good nor bad is known of what was deployed."""

    reason = "Superseded"


class Calls:
    """How often somebody said "look now", for those who wait for the next time."""

    def __init__(self) -> None:
        self.count = 0
        self._more = trio.Event()

    def call(self) -> None:
        self.count += 1
        self._more.set()
        self._more = trio.Event()

    async def wait_more(self, than: int) -> None:
        """Until there were more calls than so many."""
        while self.count <= than:
            await self._more.wait()


class Remotes(Protocol):
    """The repositories, as far as this needs them."""

    def seen(self, url: str) -> Mapping[str, str] | None:
        """All refs as this pass found them; None where it has not looked."""
        ...

    def pushed(self, url: str) -> Mapping[str, str]:
        """The refs that this process set, and to what."""
        ...

    async def ask(self, url: str) -> Mapping[str, str]:
        """All refs as they are now, without fetching anything."""
        ...


@dataclass
class _Asked:
    """The last answer of a repository, which serves all who wait at that time."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    refs: Mapping[str, str] = field(default_factory=dict)
    at: float = float("-inf")
    calls: int = -1


class Newer:
    """Made by a pass that has looked: what is news since. One look at a repository serves all who wait."""

    def __init__(self, spec: Spec, spec_url: str, spec_branch: str, remotes: Remotes, calls: Calls) -> None:
        self._spec = spec
        self._spec_url = spec_url
        self._spec_branch = spec_branch
        self._remotes = remotes
        self._calls = calls
        self._asked: dict[str, _Asked] = {}
        # A step may go on while later passes look, and what they see is news to it.
        urls = {spec_url, *(repository.url for repository in spec.repositories.values())}
        self._seen = {url: remotes.seen(url) for url in urls}

    async def wait(self, service: Service) -> str:
        """Until something moved that may concern this service; says what it was."""
        watched = self._watched(service)
        while True:
            calls = self._calls.count
            for url, wanted in watched:
                if (news := await self._look(url, wanted, calls)) is not None:
                    return news
            with trio.move_on_after(INTERVAL):
                await self._calls.wait_more(calls)

    def _watched(self, service: Service) -> list[tuple[str, "Watched"]]:
        """By repository the refs that count for a service.

        Where it is promoted to, tags and branches of the code decide nothing, the operators' records do; and
        where services are taken from the released spec, the head of the spec's branch does not.
        """
        environment = self._spec.environments[service.environment]
        spec_refs = {CONTROL_REF}
        if environment.spec_from == "head":
            spec_refs.add(f"{HEADS}{self._spec_branch}")
        watched = [(self._spec_url, Watched(frozenset(spec_refs)))]
        release = environment.release
        if release.promote_from is None:
            follows_branch = release.from_branch is not None and release.cut == "reconciler"
            heads = frozenset({f"{HEADS}{release.from_branch}"} if follows_branch else ())
            prefix = TAGS + self._spec.units[service.unit].tag_prefix
            watched.append((self._spec.repositories[service.repository].url, Watched(heads, prefix)))
        return watched

    async def _look(self, url: str, wanted: "Watched", calls: int) -> str | None:
        before = self._seen.get(url)
        if before is None:
            return None
        try:
            now = await self._ask(url, calls)
        except TrueupError as error:
            # Nothing is known to have moved: the wait goes on.
            log.debug("could not look for news", url=url, reason=error.reason)
            return None
        return wanted.news(before, self._remotes.pushed(url), now)

    async def _ask(self, url: str, calls: int) -> Mapping[str, str]:
        asked = self._asked.setdefault(url, _Asked())
        async with asked.lock:
            is_old = trio.current_time() - asked.at >= INTERVAL / 2
            if is_old or asked.calls < calls:
                counted = self._calls.count
                asked.refs = await self._remotes.ask(url)
                asked.at, asked.calls = trio.current_time(), counted
            return asked.refs


@dataclass(frozen=True, slots=True)
class Watched:
    """Full names of refs, and a prefix of tags, of one repository."""

    refs: frozenset[str]
    tags: str | None = None

    def news(self, before: Mapping[str, str], own: Mapping[str, str], now: Mapping[str, str]) -> str | None:
        """The first ref, by name, that moved or is new; one that went is no news, nor is a tag of our own."""
        for name in sorted(now):
            is_tag = self.tags is not None and name.startswith(self.tags) and now[name] != own.get(name)
            if (name in self.refs or is_tag) and now[name] != before.get(name):
                return name.removeprefix(HEADS).removeprefix("refs/")
        return None
