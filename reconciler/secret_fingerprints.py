"""Marks of secret values that may be published: what status files and comparisons know of them. Pure."""

import json
from collections.abc import Mapping, Sequence

from reconciler.hashing import fingerprint
from reconciler.secrets.values import Secret


def source_fingerprints(
    answers: Mapping[str, Sequence[Mapping[str, Secret]]], hash_key: bytes
) -> dict[str, dict[str, str]]:
    """By source and key; a source that did not answer itself is left out.

    Bound to the source and the key: equal values do not show as equal. Where a source gives one key
    different values in different environments, the mark is of all of them.
    """
    found: dict[str, dict[str, str]] = {}
    for source, given in answers.items():
        texts: dict[str, set[str]] = {}
        for values in given:
            for key, value in values.items():
                texts.setdefault(key, set()).add(value.reveal())
        if given:
            found[source] = {
                key: fingerprint(hash_key, target=f"secrets/{source}", name=key, value=_one(texts[key]))
                for key in sorted(texts)
            }
    return found


def _one(texts: set[str]) -> str:
    if len(texts) == 1:
        return next(iter(texts))
    return json.dumps(sorted(texts))


def changed_keys(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, list[str]]:
    """Which keys `appeared`, `changed` and `vanished` between two maps of fingerprints."""
    return {
        "appeared": sorted(new.keys() - old.keys()),
        "changed": sorted(key for key in old.keys() & new.keys() if old[key] != new[key]),
        "vanished": sorted(old.keys() - new.keys()),
    }
