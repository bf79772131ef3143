"""Kind `github_actions`: GitHub keeps secrets and never gives their values back, so there is none to read."""

from collections.abc import Hashable, Mapping

import trio

from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.model import SecretSource


class GithubActionsSource:
    """Only a secret target may take `from` it, by asking the repository's own workflow to export."""

    def __init__(self, source: SecretSource, _context: SourceContext) -> None:
        self._source = source

    def cache_key(self, _environment: str, /) -> Hashable:
        return self._source.settings

    async def fetch(self, _environment: str, /) -> Mapping[str, Secret]:
        await trio.lowlevel.checkpoint()
        raise SourceRefused(
            f"secret source {self._source.name}: GitHub gives no values of secrets back",
            hint="take it as `from` of a secret target, or read from another source",
        )
