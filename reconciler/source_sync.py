"""What a forced refresh of a source asks, and how its answer differs from what was recorded."""

from collections.abc import Mapping, Sequence

from reconciler.errors import TrueupError
from reconciler.primary import Primary
from reconciler.secret_fingerprints import changed_keys, source_fingerprints
from reconciler.secrets.freshness import Freshness
from reconciler.secrets.store import SecretStore
from reconciler.spec.model import SecretSource


def environments_of(source: SecretSource, asked: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Those for which a sync asks a source: as a pass does, and one that nothing uses for all."""
    return tuple(asked.get(source.name, ())) or source.environments or ("",)


def why(freshness: Freshness) -> str:
    """Why a source did not answer itself; an old value or a fallback's may serve all the same."""
    return freshness.error or f"secret source {freshness.source} is {freshness.state.value.lower()}"


async def changes(primary: Primary, store: SecretStore, source: str) -> Mapping[str, Sequence[str]] | None:
    """What differs between a source's own last answer and what the last pass recorded of it, by key.

    None where that cannot be told.
    """
    try:
        recorded = (await primary.status.read()).sources.get(f"secrets/{source}")
    except TrueupError:
        return None
    now = source_fingerprints({source: store.own_answers().get(source, ())}, primary.key.hash_key)
    return changed_keys(recorded.fingerprints if recorded is not None else {}, now.get(source, {}))
