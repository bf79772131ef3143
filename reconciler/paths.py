"""Which files of a commit a resource consists of, and one digest over them. Pure.

Git object ids are compared, never timestamps: a digest changes exactly when a path, a mode or a content
below the pattern changes.
"""

import re
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import AnyStr

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from agent.filenames import json_form
from reconciler.git.objects import TreeEntry
from reconciler.hashing import digest

WHOLE_TREE = "**"


class CommitPaths:
    """All files of one commit, ready to be asked for by pattern."""

    def __init__(self, entries: Sequence[TreeEntry]) -> None:
        self._entries = sorted(entries, key=lambda entry: entry.path)
        self._paths = [entry.path for entry in self._entries]
        self._digests: dict[tuple[str, ...], str] = {}

    def digest(self, patterns: Sequence[str]) -> str:
        """SHA-256 over (path, mode, object id) of what the patterns match together, hex.

        A name that is not UTF-8 is refused where it would be placed on a disk (`git.trees.check_tree`); here
        it is one like any other.
        """
        key = tuple(patterns)
        if key not in self._digests:
            self._digests[key] = digest(
                [[json_form(entry.path), entry.mode, entry.oid] for entry in self.matching(patterns)]
            )
        return self._digests[key]

    def matching(self, patterns: Sequence[str]) -> list[TreeEntry]:
        if tuple(patterns) == (WHOLE_TREE,):
            return self._entries
        spec = compiled(tuple(patterns))
        found: dict[str, TreeEntry] = {}
        for prefix in {_literal_prefix(pattern) for pattern in patterns if not pattern.startswith("!")}:
            # 1,000 services over one big tree: look only at the part that a pattern can reach.
            start = bisect_left(self._paths, prefix)
            for index in range(start, len(self._paths)):
                if not self._paths[index].startswith(prefix):
                    break
                if spec.match_file(self._paths[index]):
                    found[self._paths[index]] = self._entries[index]
        return [found[path] for path in sorted(found)]

    def below(self, directory: str) -> str:
        """The digest of a directory, `.` for the root."""
        clean = directory.strip("/")
        if clean in ("", "."):
            return self.digest((WHOLE_TREE,))
        # A plain path and no pattern: `[` in a directory's name must not match something else, or nothing.
        return self.digest((_escaped(clean) + "/**",))

    def has_directory(self, directory: str) -> bool:
        clean = directory.strip("/")
        if clean in ("", "."):
            return True
        index = bisect_left(self._paths, f"{clean}/")
        return index < len(self._paths) and self._paths[index].startswith(f"{clean}/")


def changed_paths(before: CommitPaths, after: CommitPaths) -> CommitPaths:
    """The files that were added, removed or have another content or mode, to be asked for by pattern."""
    old = {(entry.path, entry.mode, entry.oid) for entry in before.matching((WHOLE_TREE,))}
    new = {(entry.path, entry.mode, entry.oid) for entry in after.matching((WHOLE_TREE,))}
    entries = {
        entry.path: entry
        for paths in (before, after)
        for entry in paths.matching((WHOLE_TREE,))
        if ((entry.path, entry.mode, entry.oid) in old) != ((entry.path, entry.mode, entry.oid) in new)
    }
    return CommitPaths(list(entries.values()))


def digest_by_pattern(paths: CommitPaths, patterns: Sequence[str]) -> dict[str, str]:
    """Name of an input to its digest: one for each pattern, so that a plan can name what changed.

    Patterns with a negation only mean something together, and so make one input together.
    """
    if not patterns:
        return {"path **": paths.digest((WHOLE_TREE,))}
    if any(pattern.startswith("!") for pattern in patterns):
        return {"path " + " ".join(patterns): paths.digest(patterns)}
    return {f"path {pattern}": paths.digest((pattern,)) for pattern in patterns}


class _Pattern(GitIgnoreSpecPattern):
    """One that takes every line: the library fails at `[b-a]`, and warns of `[[`, which is right as it is."""

    __slots__ = ()

    @classmethod
    def pattern_to_regex(cls, pattern: AnyStr) -> tuple[AnyStr | None, bool | None]:
        regex, include = super().pattern_to_regex(pattern)
        if regex is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                try:
                    re.compile(regex)  # kept by `re`, so that the next one to compile it hears no warning
                except re.error:
                    return None, None
        return regex, include


@lru_cache(maxsize=4096)
def compiled(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    """What matches a path if the last pattern that does is no `!`."""
    return GitIgnoreSpec.from_lines(patterns, _Pattern)


def _escaped(path: str) -> str:
    """A pattern that matches this path alone."""
    return "".join(f"\\{character}" if character in "*?[\\" else character for character in path)


def _literal_prefix(pattern: str) -> str:
    """What every path that the pattern can match begins with; nothing for one that matches at any depth."""
    body = pattern.removeprefix("/")
    if "/" not in pattern.rstrip("/"):
        return ""  # gitignore's rule: only a slash at the beginning or in the middle ties it to the root
    for index, character in enumerate(body):
        if character in "*?[\\":
            return body[:index]
    # A directory stands for all below it.
    return body.rstrip("/")
