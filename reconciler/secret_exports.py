"""Secret targets whose secrets their source has to export: looking at both ends, and asking for an export."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import structlog
import trio

from reconciler.apply import Details
from reconciler.desired_model import DesiredTarget
from reconciler.desired_target import place_of
from reconciler.errors import TrueupError
from reconciler.export_work import origin_of, route_of, to_export
from reconciler.github.client import DEFAULT_API, GitHub
from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.export import Arrivals, Brought, bring, look, offered
from reconciler.github.export_work import Found
from reconciler.github.pace import Pace
from reconciler.github.scopes import SecretMeta
from reconciler.secret_targets import PruneRefused, PushFailed, refuse_to_prune_too_much, scope_of
from reconciler.secrets.store import SecretStore
from reconciler.spec.model import GithubActionsSettings
from reconciler.status.conditions import Reason
from reconciler.status.documents import TargetStatus
from reconciler.target_work import incomplete_groups, is_foreign, owned_at, work_at

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(slots=True)
class SecretExports:
    """Access to targets and their sources with the credentials of one spec, for one pass."""

    store: SecretStore
    pace: Pace
    arrivals: Arrivals
    api_url: str | None = None
    _offered: dict[GithubActionsSettings, dict[str, str] | None] = field(default_factory=dict)
    _asking: dict[GithubActionsSettings, trio.Lock] = field(default_factory=dict)

    async def look(self, desired: DesiredTarget) -> Found:
        """What is at both ends. Raises GitHubDown, GitHubRefused and what a credential does.

        A source is asked once, however many targets take from it.
        """
        origin, route = origin_of(desired), route_of(desired)
        async with self._ends(desired) as (source, target):
            async with self._asking.setdefault(origin, trio.Lock()):
                if origin not in self._offered:
                    self._offered[origin] = await offered(source, route)
            found = await look(target, None, route, organization=origin.org_fallback)
        return replace(found, offered=self._offered[origin])

    async def export(
        self, desired: DesiredTarget, status: TargetStatus | None, *, everything: bool, max_prune: float
    ) -> Details:
        """Have exported what is missing or out of date right now, the members of a group together.

        Raises PushFailed where not all of it came; the errors of `look` before anything is asked for.
        """
        route, target = route_of(desired), desired.target
        async with self.pace.alone(str(place_of(target))), self._ends(desired) as (there, here):
            found = await look(here, there, route, organization=origin_of(desired).org_fallback)
            asked = to_export(desired, status, found, everything=everything)
            own = {name: SecretMeta(name, time) for name, time in found.own.items()}
            work = work_at(desired, status, own, everything=False)
            brought = Brought({}, {})
            if asked:
                log.info("asking for an export", resource=desired.id, source=route.source, names=list(asked))
                brought = await bring(
                    there, here, route, asked, found, patience=target.timeout, arrivals=self.arrivals
                )
            deleted: list[str] = []
            failure: TrueupError | None = next(iter(brought.failures.values()), None)
            if failure is None and work.delete:
                try:
                    refuse_to_prune_too_much(target, work, status, max_prune)
                    now = await here.list_secrets(scope_of(target))
                    for name in work.delete:
                        if not is_foreign(name, owned_at(desired, status), now):
                            await here.delete_secret(scope_of(target), name)
                        deleted.append(name)
                except (GitHubDown, GitHubRefused, PruneRefused) as error:
                    failure = error
        for name in work.disowned:
            log.warning("a secret that is not wanted any more is not ours", resource=desired.id, name=name)
        details = {
            "names": list(brought.arrived),
            "updated": list(brought.arrived.values()),
            "deleted": [*deleted, *work.disowned],
        }
        if failure is None:
            return details
        message = "; ".join(dict.fromkeys(map(str, brought.failures.values()))) or str(failure)
        begun = incomplete_groups(target, {name: name in brought.arrived for name in asked})
        if begun:
            message = f"a group is incomplete, {'; '.join(begun)}: {message}"
            raise PushFailed(message, Reason.GROUP_INCOMPLETE, details)
        raise PushFailed(message, failure.reason, details)

    @asynccontextmanager
    async def _ends(self, desired: DesiredTarget) -> AsyncIterator[tuple[GitHub, GitHub]]:
        """The source's and the target's, which may have a token of its own."""
        token = await self.store.credential(origin_of(desired).token)
        own = desired.target.token
        to_target = token if own is None else await self.store.credential(own)
        api, patience = self.api_url or DEFAULT_API, desired.target.timeout
        async with (
            GitHub(api, token, patience=patience, pace=self.pace) as source,
            GitHub(api, to_target, patience=patience, pace=self.pace) as target,
        ):
            yield source, target
