"""gitignore patterns over paths of a tree. Pure.

pathspec finds the pattern that decides; what a pattern means is `agent/gitglob.py`'s, because pathspec's own
GitIgnoreSpec is not git in many a corner, and fails in some (docs/decisions/0215 has the list).
"""

import re
from collections.abc import Iterable, Sequence

from pathspec import PathSpec
from pathspec.pattern import RegexPattern

from agent.errors import SettingsError
from agent.gitglob import BadGlob, as_bytes, is_negated, translate
from agent.index import ancestors

DEFAULT_IGNORES = (".git", "runtime/", "tmp/")
"""What `ignore_defaults: true` leaves out."""


MAX_STARS = 3
"""`*` in one part of a path. Matching takes time exponential in their number: a minute for five."""


def check_patterns(patterns: Iterable[str]) -> None:
    """Raises SettingsError for a pattern that would take too long to match."""
    for pattern in patterns:
        if any(part.count("*") > MAX_STARS for part in pattern.split("/")):
            shown = pattern if len(pattern) <= 60 else f"{pattern[:60]}…"
            raise SettingsError(
                f"the pattern {shown!r} has more than {MAX_STARS} `*` in one part of a path",
                hint="write it with fewer, or as several patterns",
            )


class Ignore:
    """Whether gitignore lines match a path. A directory that matches takes all below it along.

    As in git, the last line that matches decides, `!` takes back, a trailing `/` means directories
    only. Unlike git, which knows no empty directories, `name/**` matches the directory too where no line
    takes anything back: there is nothing left to put into it. Raises SettingsError for a line that is no
    pattern.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        check_patterns(lines)
        whole = not any(map(is_negated, lines))
        patterns: list[RegexPattern] = []
        for line in lines:
            try:
                glob = translate(line, whole=whole)
            except BadGlob as error:
                raise SettingsError(f"ignore pattern: {error}") from error
            if glob is not None:
                patterns.append(RegexPattern(re.compile(glob.regex), not glob.negated))
        self._spec = PathSpec(patterns, backend="simple")
        self._folders: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return len(self._spec) > 0

    def matches(self, path: str, is_dir: bool) -> bool:
        """Whether `path` itself matches; whoever walks a tree does not go below a match."""
        text = as_bytes(path)
        return self._spec.match_file(f"{text}/" if is_dir else text)

    def covers(self, path: str, is_dir: bool) -> bool:
        """Whether `path` or a directory above it matches."""
        return any(self._covers_folder(folder) for folder in ancestors(path)) or self.matches(path, is_dir)

    def _covers_folder(self, folder: str) -> bool:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self.matches(folder, True)
        return known
