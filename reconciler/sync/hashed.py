"""Files whose content is known as long as they are what they were when they were hashed. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agent.scan import Found


class Hashed(NamedTuple):
    """A file as it was when it was hashed, and the digests of its blocks."""

    found: Found
    blocks: bytes


def told_apart(
    files: Iterable[tuple[str, Found]], known: Mapping[str, Hashed], *, below: str = ""
) -> tuple[dict[str, bytes | None], list[tuple[str, Found]]]:
    """The blocks of those files that are as they are known, and all others. `known` is by the paths of the
    files, after `below`."""
    contents: dict[str, bytes | None] = {}
    others: list[tuple[str, Found]] = []
    for path, found in files:
        before = known.get(below + path)
        if before is not None and before.found.same_as(found):
            contents[path] = before.blocks
        else:
            others.append((path, found))
    return contents, others
