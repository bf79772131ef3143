"""Circles in graphs of names, and what reaches what; without recursion."""

from collections.abc import Collection, Iterable, Mapping


def circles(graph: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """One circle for each group of nodes that reach each other, as `a, b` for a -> b -> a, in name order.

    The circle starts at its smallest name. Names that only lead into a circle are not in it.
    """
    done: set[str] = set()
    found: dict[tuple[str, ...], None] = {}
    for start in sorted(graph):
        if start in done:
            continue
        path: list[str] = [start]
        on_path: dict[str, int] = {start: 0}
        waiting = [iter(sorted(graph[start]))]
        while waiting:
            following = next(waiting[-1], None)
            if following is None:
                waiting.pop()
                last = path.pop()
                del on_path[last]
                done.add(last)
            elif following in on_path:
                found[_from_smallest(path[on_path[following] :])] = None
            elif following in graph and following not in done:
                on_path[following] = len(path)
                path.append(following)
                waiting.append(iter(sorted(graph[following])))
    return _apart(found)


def _from_smallest(circle: list[str]) -> tuple[str, ...]:
    at = circle.index(min(circle))
    return (*circle[at:], *circle[:at])


def _apart(found: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Circles that share no name with an earlier one: mending that one comes first."""
    seen: set[str] = set()
    kept: list[tuple[str, ...]] = []
    for circle in sorted(found, key=lambda names: (len(names), names)):
        if seen.isdisjoint(circle):
            kept.append(circle)
            seen.update(circle)
    return sorted(kept)


def spread(graph: Mapping[str, Iterable[str]], marked: Iterable[str]) -> dict[str, str]:
    """Everything that leads to a marked name, with the next name on the way; the marked ones are left out."""
    against: dict[str, list[str]] = {}
    for name in sorted(graph):
        for target in graph[name]:
            against.setdefault(target, []).append(name)
    reached = sorted(marked)
    seen = set(reached)
    through: dict[str, str] = {}
    for name in reached:  # grows while it is read
        for source in against.get(name, ()):
            if source not in seen:
                seen.add(source)
                through[source] = name
                reached.append(source)
    return through
