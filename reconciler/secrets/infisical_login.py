"""One identity's login at Infisical, shared by all sources that use it.

Three bad logins lock an identity out for 300 s, so a refused one is not repeated before that. A token is
used again until two thirds of its life are over and then renewed: a login counts against the rate limit
for writes, and client secrets may allow only so many.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from reconciler.errors import SettingsError
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical_answers import Failure, OidcLogin, Token, Trouble, UniversalLogin
from reconciler.secrets.source import HttpTimeouts, SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.model import Credential, InfisicalSettings

LOCKOUT = 300.0
"""Seconds without a login after a refused one."""

RENEW_AT = 2 / 3
"""Share of a token's life after which it is renewed."""

R = TypeVar("R")


async def in_thread(context: SourceContext, job: Callable[[HttpTimeouts], R]) -> R:
    """A blocking call. Cancelled, it is left to end by its own deadline; nobody uses its client again."""
    return await trio.to_thread.run_sync(
        job, context.timeouts, abandon_on_cancel=True, limiter=context.limiter
    )


def failed(where: str, failure: Failure) -> SourceDown | SourceRefused:
    """The error for a failure. Made outside any `except`, so that it is chained to nothing."""
    kind = SourceDown if failure.trouble is Trouble.DOWN else SourceRefused
    return kind(f"{where}: {failure.problem}", hint=failure.hint, retry_after=failure.retry_after)


@dataclass(slots=True)
class _Host:
    """What all logins at one host share: identities that two sources name in two ways are one to the host."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    """One login at a time: a hundred at once with one bad secret would lock the identity out."""
    refused: dict[tuple[Secret, ...], float] = field(default_factory=dict)
    """Until when there is no further login with these credentials."""


class Login:
    """The current token of one identity. Credentials are read anew for each login: files get rotated."""

    def __init__(self, settings: InfisicalSettings, host: str, context: SourceContext) -> None:
        self._settings = settings
        self._host = host
        self._context = context
        self._lock = trio.Lock()
        self._token: Token | None = None
        self._since = 0.0
        self._shared = context.outlasting(("infisical logins", host), _Host)

    async def token(self, where: str, environment: str, rejected: Token | None = None) -> Token:
        """A token to use now, never `rejected`. Raises SourceDown, SourceRefused, SettingsError."""
        async with self._lock:
            if self._settings.auth == "token":
                return await self._given_token(where, environment, rejected)
            if self._token is not None and self._token is rejected:
                self._token = None
            if self._token is not None:
                age = trio.current_time() - self._since
                if age < RENEW_AT * self._token.lifetime or await self._renewed(self._token, age):
                    return self._token
            return await self._log_in(where, environment)

    async def _given_token(self, where: str, environment: str, rejected: Token | None) -> Token:
        (value,) = await self._credentials(where, environment, token=self._settings.token)
        if rejected is not None and value == rejected.value:
            raise SourceRefused(f"{where}: it does not accept the token", hint="make a new token")
        return Token(value, float("inf"))

    async def _renewed(self, token: Token, age: float) -> bool:
        """Whether there is a token that may be used: the renewed one, or the old one in an outage."""
        asked = trio.current_time()
        outcome = await in_thread(self._context, lambda timeouts: _renew(self._host, token, timeouts))
        if isinstance(outcome, Failure):
            return outcome.trouble is Trouble.DOWN and age < token.lifetime
        self._token, self._since = outcome, asked
        return True

    async def _log_in(self, where: str, environment: str) -> Token:
        settings = self._settings
        credentials: UniversalLogin | OidcLogin
        if settings.auth == "oidc":
            values = await self._credentials(
                where, environment, identity_id=settings.identity_id, jwt=settings.jwt
            )
            credentials = OidcLogin(*values)
        else:
            values = await self._credentials(
                where, environment, client_id=settings.client_id, client_secret=settings.client_secret
            )
            credentials = UniversalLogin(*values)
        async with self._shared.lock:
            return await self._log_in_with(where, credentials, values)

    async def _log_in_with(
        self, where: str, credentials: UniversalLogin | OidcLogin, values: tuple[Secret, ...]
    ) -> Token:
        asked, refused = trio.current_time(), self._shared.refused
        wait = refused.get(values, asked) - asked
        kept = self._context.refused_logins
        if kept is not None:
            wait = max(wait, await trio.to_thread.run_sync(kept.wait, self._host, values, LOCKOUT))
        if wait > 0:
            raise SourceRefused(
                f"{where}: it refused the login; no further login for {wait:.0f} s, "
                "because a few bad ones lock the identity out",
                hint="check the credentials; changed ones are tried at once",
                retry_after=wait,
            )
        outcome = await in_thread(self._context, lambda timeouts: _login(self._host, credentials, timeouts))
        if isinstance(outcome, Failure):
            if outcome.trouble is not Trouble.REFUSED:
                raise failed(where, outcome)
            for over in [known for known, until in refused.items() if until <= asked]:
                del refused[over]
            refused[values] = asked + LOCKOUT
            if kept is not None:
                await trio.to_thread.run_sync(kept.refuse, self._host, values, LOCKOUT)
            raise SourceRefused(
                f"{where}: {outcome.problem}; no further login for {LOCKOUT:.0f} s",
                hint=outcome.hint,
                retry_after=LOCKOUT,
            )
        refused.pop(values, None)
        self._token, self._since = outcome, asked
        return outcome

    async def _credentials(
        self, where: str, environment: str, **named: Credential | None
    ) -> tuple[Secret, ...]:
        values = []
        for name, credential in named.items():
            if credential is None:
                raise SettingsError(
                    f"{where}: auth {self._settings.auth} needs {name}", hint=f"set {name} in the spec"
                )
            values.append(await self._context.credentials.read(credential, environment))
        return tuple(values)


# The SDK takes a third of a second to import, so its module is imported where it runs: in the thread.


def _login(host: str, credentials: UniversalLogin | OidcLogin, timeouts: HttpTimeouts) -> Token | Failure:
    from reconciler.secrets import infisical_client

    return infisical_client.login(host, credentials, timeouts)


def _renew(host: str, token: Token, timeouts: HttpTimeouts) -> Token | Failure:
    from reconciler.secrets import infisical_client

    return infisical_client.renew(host, token, timeouts)
