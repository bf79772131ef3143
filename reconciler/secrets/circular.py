"""Sources whose credentials come, in the end, from themselves; pure."""

from collections.abc import Iterator, Mapping

from msgspec import structs

from reconciler.spec.model import SecretCredential, SecretSource


def needing_themselves(specs: Mapping[str, SecretSource]) -> Iterator[str]:
    """Sources for whose credentials one would have to ask them, directly or through others.

    Asking would wait for itself for ever. Sources with equal settings count as one: they share calls.
    """
    for name, spec in specs.items():
        seen: set[str] = set()
        waiting = list(_credential_sources(spec))
        while waiting:
            other = waiting.pop()
            if other in seen or other not in specs:
                continue
            seen.add(other)
            waiting += (*_credential_sources(specs[other]), *specs[other].fallback)
        if any(specs[other].settings == spec.settings for other in seen):
            yield name


def _credential_sources(spec: SecretSource) -> Iterator[str]:
    for value in structs.asdict(spec.settings).values():
        if isinstance(value, SecretCredential):
            yield value.source
