"""Kind `infisical`: one folder of one environment of an Infisical project, read through infisicalsdk."""

from collections.abc import Hashable, Mapping, Sequence

import trio

from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical_answers import Failure, Token, Trouble
from reconciler.secrets.infisical_login import Login, failed, in_thread
from reconciler.secrets.source import HttpTimeouts, SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.addresses import secret_host_fault
from reconciler.spec.model import Credential, InfisicalSettings, SecretSource


class InfisicalSource:
    """Lists; never gets by name, because the SDK does not quote names. Logins are shared by identity."""

    def __init__(self, source: SecretSource, context: SourceContext) -> None:
        assert isinstance(source.settings, InfisicalSettings)
        settings = self._settings = source.settings
        self._context = context
        # The server's paths start at the root, and so do the SDK's; people paste the API's address as well.
        self._host = settings.host.rstrip("/").removesuffix("/api")
        self._where = f"secret source {source.name}: {self._host}"
        identity = ("infisical login", self._host, _identity(settings))
        self._login = context.shared(identity, lambda: Login(settings, self._host, context))

    def cache_key(self, _environment: str, /) -> Hashable:
        settings = self._settings
        return (
            self._host,
            _identity(settings),
            settings.project_id,
            settings.environment_slug,
            settings.secret_path,
            settings.recursive,
            frozenset(settings.tags),
        )

    @property
    def identity(self) -> Sequence[Credential | None]:
        settings = self._settings
        # Not the token of OIDC, which is another one each time and only proves the identity.
        return settings.client_id, settings.client_secret, settings.token, settings.identity_id

    async def log_in(self, environment: str, /) -> None:
        """Have a token ready for the next `fetch`. Raises what it raises."""
        with trio.move_on_after(self._context.timeouts.total):
            await self._login.token(self._where, environment)
            return
        raise SourceDown(f"{self._where}: no answer within {self._context.timeouts.total:g} s")

    async def fetch(self, environment: str, /) -> Mapping[str, Secret]:
        if (fault := secret_host_fault(self._host)) is not None:
            raise SourceRefused(f"{self._where}: host {fault}", hint="mend host")
        with trio.move_on_after(self._context.timeouts.total):
            return await self._fetch(environment)
        raise SourceDown(f"{self._where}: no answer within {self._context.timeouts.total:g} s")

    async def _fetch(self, environment: str) -> Mapping[str, Secret]:
        token = await self._login.token(self._where, environment)
        answer = await self._list(token)
        if isinstance(answer, Failure) and answer.trouble is Trouble.TOKEN:
            token = await self._login.token(self._where, environment, rejected=token)
            answer = await self._list(token)
        if isinstance(answer, Failure):
            raise failed(self._where, answer)
        return answer

    async def _list(self, token: Token) -> dict[str, Secret] | Failure:
        def job(timeouts: HttpTimeouts) -> dict[str, Secret] | Failure:
            from reconciler.secrets import infisical_client  # imported in the thread: it takes long

            return infisical_client.list_secrets(self._settings, self._host, token, timeouts)

        return await in_thread(self._context, job)


def _identity(settings: InfisicalSettings) -> Hashable:
    """Who logs in, by the names of the credentials: their values are not read for it."""
    return (
        settings.auth,
        settings.client_id,
        settings.client_secret,
        settings.token,
        settings.identity_id,
        settings.jwt,
    )
