"""An environment's overrides laid over a service: maps merge, lists and single values are replaced."""

from collections.abc import Collection

from reconciler.spec.document import Map, Value

PROBES = ("http", "tcp", "command")


def overlay(base: Map, over: Map) -> Map:
    """`base` with `over` laid on it. A `null` takes the entry away. Neither argument changes."""
    merged = Map()
    for key, value, mark in base.entries():
        if key not in over:
            merged.put(key, value, mark)
    for key, value, mark in over.entries():
        if value is not None:
            merged.put(key, _laid(key, base.get(key), value), mark)
    return merged


def _laid(key: str, below: Value, above: Value) -> Value:
    if not isinstance(below, Map) or not isinstance(above, Map):
        return above
    if key == "deploy" and "kind" in above and above["kind"] != below.get("kind"):
        return above
    if key == "health" and any(probe in above for probe in PROBES):
        return overlay(without(below, PROBES), above)
    return overlay(below, above)


def without(source: Map, keys: Collection[str]) -> Map:
    """A copy that lacks `keys`."""
    kept = Map()
    for key, value, mark in source.entries():
        if key not in keys:
            kept.put(key, value, mark)
    return kept
