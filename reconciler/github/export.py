"""Has secrets exported from one repository to another: a dispatch to the source's workflow, then waiting.

The workflow is `examples/github/export-secret.yml`. Its result is seen in the target alone: a name appears
there, or the time of its last write moves.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from reconciler.errors import TrueupError
from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.export_work import Found, Route, payloads
from reconciler.github.scopes import EnvironmentScope, RepositoryScope, Scope, SecretMeta

POLL: Final = 2.0
"""Seconds between two looks at the target."""

TIMEOUT: Final = 30.0
"""Seconds after which a secret will not come any more, if nobody says otherwise."""


class ExportRefused(TrueupError):
    """The source took no request; `status` is HTTP's."""

    reason = "ExportRefused"

    def __init__(self, message: str, *, status: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class NotInSource(TrueupError):
    """The source has no secret of that name: no workflow could export it."""

    reason = "SecretNotFound"


class ExportTimeout(TrueupError):
    """The request was taken and not all came. `arrived`: by name the new times of those that did."""

    reason = "ExportTimeout"
    retryable = True

    def __init__(self, message: str, *, hint: str, arrived: Mapping[str, str]) -> None:
        super().__init__(message, hint=hint)
        self.arrived = dict(arrived)


class Secrets(Protocol):
    """What is asked of GitHub: `GitHub` in `client.py`."""

    async def list_secrets(self, scope: Scope) -> dict[str, SecretMeta]: ...

    async def list_organization_secrets(self, repo: str) -> dict[str, SecretMeta]: ...

    async def dispatch(self, repo: str, event_type: str, payload: Mapping[str, Any]) -> None: ...


class Arrivals:
    """Who waits for an export, to be woken when something is known to have happened.

    `tell` may be called by anyone at any time, with the source or the target: by a webhook for a workflow run
    that completed, above all. It only says "look now".
    """

    def __init__(self) -> None:
        self._listening: dict[str, set[Ear]] = {}

    def tell(self, repo: str) -> None:
        """Wake whoever waits for an export from or to this repository, `owner/name`."""
        for ear in self._listening.get(repo.lower(), ()):
            ear.hear()

    @contextmanager
    def listening(self, *repos: str) -> "Iterator[Ear]":
        ear = Ear()
        for repo in repos:
            self._listening.setdefault(repo.lower(), set()).add(ear)
        try:
            yield ear
        finally:
            for repo in repos:
                listening = self._listening[repo.lower()]
                listening.discard(ear)
                if not listening:
                    del self._listening[repo.lower()]


class Ear:
    """One that listens. What it hears while it looks is kept until it waits."""

    def __init__(self) -> None:
        self._heard = trio.Event()

    def hear(self) -> None:
        self._heard.set()

    async def wait(self, seconds: float) -> None:
        """Until something is heard, and no longer than that."""
        with trio.move_on_after(seconds):
            await self._heard.wait()
        self._heard = trio.Event()


async def look(target: Secrets, source: Secrets | None, route: Route, *, organization: bool) -> Found:
    """What is in the target, and what the source has if it is given. Raises GitHubDown and GitHubRefused."""
    own = await target.list_secrets(route.target)
    # Not looking is no answer here: what the organisation has would be exported over and over.
    inherited = await _inherited(target, route.target.repo) if organization else {}
    has = await offered(source, route) if source is not None else None
    return Found(_times(own), _times(inherited), has)


async def offered(source: Secrets, route: Route) -> dict[str, str] | None:
    """What the workflow of the source can export: the organisation's weakest, an environment's strongest.

    None where the token may not look at the organisation's: the workflow may have more than can be seen.
    """
    try:
        inherited = await _inherited(source, route.source)
    except GitHubRefused as error:
        if error.status == 403:
            return None
        raise
    found = inherited | await source.list_secrets(RepositoryScope(route.source))
    if route.source_environment is not None:
        found |= await source.list_secrets(EnvironmentScope(route.source, route.source_environment))
    return _times(found)


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of an export: the new times of the names that arrived, and why others did not."""

    arrived: Mapping[str, str]
    failures: Mapping[str, TrueupError]


async def bring(
    source: Secrets,
    target: Secrets,
    route: Route,
    wanted: Mapping[str, str],
    found: Found,
    *,
    patience: float = TIMEOUT,
    poll: float = POLL,
    arrivals: Arrivals | None = None,
) -> Brought:
    """As `export_secrets`, for each name by itself: what the source has not is not waited for."""
    has = found.offered
    failures: dict[str, TrueupError] = {
        name: NotInSource(f"{route.source} has no secret {key}", hint="store it there, or correct the name")
        for name, key in wanted.items()
        if has is not None and key not in has
    }
    asked = {name: key for name, key in wanted.items() if name not in failures}
    if not asked:
        return Brought({}, failures)
    arrived: Mapping[str, str] = {}
    try:
        arrived = await export_secrets(
            source, target, route, asked, before=found.own, patience=patience, poll=poll, arrivals=arrivals
        )
    except (ExportRefused, ExportTimeout, GitHubRefused, GitHubDown) as error:
        arrived = error.arrived if isinstance(error, ExportTimeout) else {}
        failures |= {name: error for name in asked if name not in arrived}
    return Brought(arrived, failures)


async def export_secrets(
    source: Secrets,
    target: Secrets,
    route: Route,
    wanted: Mapping[str, str],
    *,
    before: Mapping[str, str],
    patience: float = TIMEOUT,
    poll: float = POLL,
    arrivals: Arrivals | None = None,
) -> dict[str, str]:
    """Ask for all of `wanted` (by name in the target, the name in the source), and wait for each to come.

    `before` has the times of those that are in the target already: they have come when it moves. Waits for
    `patience` seconds, and looks every `poll` or as soon as `arrivals` hears of something. Returns the
    new times by name. Raises ExportRefused, ExportTimeout, GitHubRefused and GitHubDown.
    """
    with (arrivals or Arrivals()).listening(route.source, route.target.repo) as ear:
        for payload in payloads(route, wanted, list(wanted)):
            await _dispatch(source, route, payload)
        return await _wait(source, target, route, wanted, before, ear, patience=patience, poll=poll)


async def _wait(
    source: Secrets,
    target: Secrets,
    route: Route,
    wanted: Mapping[str, str],
    before: Mapping[str, str],
    ear: Ear,
    *,
    patience: float,
    poll: float,
) -> dict[str, str]:
    arrived: dict[str, str] = {}
    deadline = trio.current_time() + patience
    while (left := deadline - trio.current_time()) > 0:
        await ear.wait(min(poll, left))
        try:
            there = _times(await target.list_secrets(route.target))
        except GitHubDown:
            continue  # it may answer the next time
        # One that was there and is gone was removed by somebody: it has not come.
        arrived = {name: there[name] for name in wanted if name in there and there[name] != before.get(name)}
        if len(arrived) == len(wanted):
            return arrived
    raise ExportTimeout(
        f"Timeout waiting for {', '.join(name for name in wanted if name not in arrived)} "
        f"(not found after {patience:g}s)",
        hint=await _why(source, route, [key for name, key in wanted.items() if name not in arrived]),
        arrived=arrived,
    )


async def _dispatch(source: Secrets, route: Route, payload: Mapping[str, Any]) -> None:
    try:
        await source.dispatch(route.source, route.event, payload)
    except GitHubRefused as error:
        cause = {
            401: "GitHub does not accept the token",
            403: "the token has no right to dispatch to it",
            404: "it is not there or has no workflow export-secret.yml, or the token has no right to see it",
        }.get(error.status, "it does not accept the request")
        raise ExportRefused(
            f"Export dispatch failed (http {error.status}): {route.source}: {cause}",
            status=error.status,
            hint="copy examples/github/export-secret.yml to its default branch; the token needs the scopes "
            "`repo` and `workflow`",
        ) from None


async def _why(source: Secrets, route: Route, keys: list[str]) -> str:
    """What to do about names that did not come; the source is asked whether it has them at all."""
    try:
        has = await offered(source, route)
        unknown = [] if has is None else [key for key in keys if key not in has]
    except (GitHubDown, GitHubRefused):
        unknown = []
    if unknown:
        return f"{route.source} has no secret {', '.join(unknown)}: store it there, or correct the name"
    return (
        f"see `gh run list -R {route.source} -w export-secret`: no run means that the workflow is not on the "
        "default branch, a failed one says why; the token needs the scopes `repo` and `workflow`"
    )


async def _inherited(github: Secrets, repo: str) -> dict[str, SecretMeta]:
    """The organisation's secrets for a repository; none where it is a user's, which has no organisation."""
    try:
        return await github.list_organization_secrets(repo)
    except GitHubRefused as error:
        if error.status != 404:
            raise
    # That is said of a repository which cannot be seen as well: this raises then.
    await github.list_secrets(RepositoryScope(repo))
    return {}


def _times(secrets: Mapping[str, SecretMeta]) -> dict[str, str]:
    return {name: secret.updated_at for name, secret in secrets.items()}
