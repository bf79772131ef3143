"""Globs over the paths of a tree: `*` and `?` stay in one folder, `**` is any number of folders.

Matching takes time in proportion to the pattern and the path, whatever a pattern looks like: the pattern
comes from a repository. `fnmatch` and `pathlib` have no `**` over plain texts in Python 3.11.
"""

import re
from itertools import groupby

_ANY = "**"


class Glob:
    """One pattern, such as `services/*.yaml` or `**/trueup/*.yaml`."""

    def __init__(self, pattern: str) -> None:
        # Several `**` in a row are one.
        parts = [
            part for part, run in groupby(pattern.split("/")) for part in ([part] if part == _ANY else run)
        ]
        # A `**` at the end stands for what is in a folder, not for a file of the folder's name.
        parts += ["*"] if parts[-1] == _ANY else []
        self._parts = [None if part == _ANY else _part_regex(part) for part in parts]

    def matches(self, path: str) -> bool:
        """Whether the whole path fits."""
        # The places in the pattern where the folders read so far may have led.
        places = self._skip_any({0})
        for folder in path.split("/"):
            following: set[int] = set()
            for place in places:
                part = self._parts[place] if place < len(self._parts) else _END
                if part is None:
                    following.add(place)
                elif part.fullmatch(folder):
                    following.add(place + 1)
            places = self._skip_any(following)
            if not places:
                return False
        return len(self._parts) in places

    def _skip_any(self, places: set[int]) -> set[int]:
        """With the places behind each `**`, which may also stand for no folder at all."""
        return places | {
            place + 1 for place in places if place < len(self._parts) and self._parts[place] is None
        }


_END = re.compile(r"(?!)")


def _part_regex(part: str) -> re.Pattern[str]:
    first, *others = (
        "".join("." if c == "?" else re.escape(c) for c in fixed) for fixed in re.split(r"\*+", part)
    )
    if not others:
        return re.compile(first, re.DOTALL)
    # Each star takes as little as it can and never thinks again: later text cannot need it to.
    middle = "".join(f"(?>.*?{fixed})" for fixed in others[:-1])
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL)
