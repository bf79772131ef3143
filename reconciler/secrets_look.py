"""Asking the sources of the spec as it is now, for commands that only look."""

from collections.abc import Mapping, Sequence

import trio

from reconciler.errors import TrueupError
from reconciler.primary import Primary
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from reconciler.spec.model import Spec
from reconciler.spec_source import read_spec

MAX_PARALLEL_LOOKS = 16


async def current_spec(primary: Primary) -> Spec:
    """The spec as a pass would use it now."""
    url = primary.settings.require_spec_repo()
    primary.repositories.begin_pass()
    await primary.repositories.refresh(url)
    branch = primary.settings.spec_branch
    return (await read_spec(primary.repositories.mirror(url), branch, last_good=None)).spec


async def ask(
    store: SecretStore, pairs: Sequence[tuple[str, str]], *, force: bool = False
) -> dict[tuple[str, str], Mapping[str, SecretValue]]:
    """Ask each source for each environment; the values where there are any. The rest is in its freshness."""
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)
    found: dict[tuple[str, str], Mapping[str, SecretValue]] = {}

    async def one(source: str, environment: str) -> None:
        async with limiter:
            try:
                found[source, environment] = await store.values(source, environment, force=force)
            except TrueupError:
                return  # the store knows it, with the reason

    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(one, *pair)
    return found
