"""Kind `environ`: variables of the primary itself, those that the spec names and no others."""

from collections.abc import Hashable, Mapping

import trio

from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.model import EnvironSettings, SecretSource


class EnvironSource:
    """A named variable that is not set is simply no key here; `NAME_FILE` is not looked at."""

    def __init__(self, source: SecretSource, context: SourceContext) -> None:
        assert isinstance(source.settings, EnvironSettings)
        self._settings = source.settings
        self._environ = context.credentials.environ

    def cache_key(self, _environment: str, /) -> Hashable:
        return self._settings

    async def fetch(self, _environment: str, /) -> Mapping[str, Secret]:
        await trio.lowlevel.checkpoint()
        return {key: Secret(self._environ[key]) for key in self._settings.keys if key in self._environ}
