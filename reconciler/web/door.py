"""Who is let into the API over the network: whoever has a token, as often as is reasonable.

No file of tokens, or one that is wrong: nobody. A token that is right is never turned away because of wrong
ones that others try, so that nobody can lock others out: 256 random bits need no lock against guessing.
"""

from collections.abc import Callable
from datetime import datetime
from math import ceil
from typing import Final, NoReturn

import structlog
import trio
from starlette.requests import Request

from reconciler.api_tokens import ApiToken, find_token
from reconciler.settings import Settings
from reconciler.settings_values import Network
from reconciler.token_file import TokenFile, TokensUnusable
from reconciler.web.addresses import client_of, group_of
from reconciler.web.endpoints import Caller, Role
from reconciler.web.headers import values_of
from reconciler.web.rates import Rates
from reconciler.web.refusals import NotAuthenticated, RequestRefused

log: structlog.stdlib.BoundLogger = structlog.get_logger()

SCHEME: Final = "bearer"
MAX_TOKEN: Final = 512
"""Characters that are looked at."""

EVERYBODY: Final = "everybody"


class TooMany(RequestRefused):
    """Somebody asks too often."""

    reason = "TooManyRequests"

    def __init__(self, what: str, wait: float) -> None:
        seconds = max(1, ceil(wait))
        super().__init__(429, f"{what}; try again in {seconds} s", headers={"Retry-After": str(seconds)})


class TokensClosed(RequestRefused):
    """Nobody is let in with a token, whichever it is."""

    reason = "TokensClosed"


class Door:
    """Judges tokens. `clock` gives seconds that do not jump, `now` the time of the day."""

    def __init__(
        self,
        tokens: TokenFile | None,
        *,
        trusted: tuple[Network, ...] = (),
        now: Callable[[], datetime],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.tokens = tokens
        self._trusted = trusted
        self._now = now
        self._clock = clock
        self._wrong_of_one = Rates(burst=10, every=6.0)
        self._wrong_of_all = Rates(burst=500, every=0.25)
        self._requests = Rates(burst=600, every=1 / 30)

    @classmethod
    def of(cls, settings: Settings, now: Callable[[], datetime]) -> "Door":
        """Raises SettingsError where the file of tokens is wrong from the start."""
        tokens = TokenFile(settings.api_tokens_file) if settings.api_tokens_file is not None else None
        if tokens is not None:
            tokens.tokens()
        return cls(tokens, trusted=settings.trusted_proxies, now=now)

    async def __call__(self, request: Request) -> Caller:
        """Who sent a request, by the token in its Authorization header and nowhere else."""
        self._require_open()
        given = values_of(request, "authorization")
        if not given:
            raise NotAuthenticated("a token is needed, as `Authorization: Bearer TOKEN`")
        scheme, _, presented = given[0].partition(b" ")
        if len(given) > 1 or scheme.lower() != SCHEME.encode():
            raise NotAuthenticated("one token is needed, as `Authorization: Bearer TOKEN`")
        return self.judge(request, presented.strip())

    def judge(self, request: Request, presented: bytes) -> Caller:
        """Whose token was presented. Raises NotAuthenticated, TooMany and TokensClosed."""
        token = self._find(presented)
        if token is None:
            self._turn_away(request, "the token is not known")
        if token.has_expired(self._now()):
            self._turn_away(request, f"the token {token.name} has expired")
        if wait := self._requests.take(token.name, self._clock()):
            raise TooMany(f"too many requests with the token {token.name}", wait)
        return _caller(token)

    def known(self, digest: bytes) -> Caller | None:
        """Whose token has this digest now; for what lasts longer than a request."""
        try:
            tokens = self.tokens.tokens() if self.tokens is not None else ()
        except TokensUnusable:
            return None
        found = next((each for each in tokens if each.digest == digest), None)
        return None if found is None or found.has_expired(self._now()) else _caller(found)

    def client(self, request: Request) -> str:
        """The address of whoever sent it, as far as it can be told."""
        forwarded = [value.decode("latin-1") for value in values_of(request, "x-forwarded-for")]
        peer = request.client.host if request.client is not None else ""
        return client_of(peer, forwarded, self._trusted)

    def _require_open(self) -> TokenFile:
        if self.tokens is None:
            raise TokensClosed(
                403, "the API is closed on the network; TRUEUP_API_TOKENS_FILE of the primary opens it"
            )
        return self.tokens

    def _find(self, presented: bytes) -> ApiToken | None:
        tokens = self._require_open()
        try:
            known = tokens.tokens()
        except TokensUnusable:
            raise TokensClosed(
                503, "the file of API tokens cannot be used; the log of trueup serve says why"
            ) from None
        return find_token(known, presented[:MAX_TOKEN])

    def _turn_away(self, request: Request, why: str) -> NoReturn:
        client, now = self.client(request), self._clock()
        one = group_of(client)
        wait = max(self._wrong_of_one.wait(one, now), self._wrong_of_all.wait(EVERYBODY, now))
        if wait:
            raise TooMany("too many requests with wrong tokens", wait)
        self._wrong_of_one.take(one, now)
        self._wrong_of_all.take(EVERYBODY, now)
        log.warning("a token was refused", client=client, why=why)
        raise NotAuthenticated("the token is not known, or its time is over")


def _caller(token: ApiToken) -> Caller:
    return Caller(token.name, Role(token.role))
