"""gitignore patterns over paths of a tree, through pathspec. Pure."""

from collections.abc import Iterable, Sequence

from pathspec import GitIgnoreSpec

from agent.errors import SettingsError
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
    only. Unlike git, `name/**` matches the directory itself too. Raises SettingsError for a line that
    is no pattern.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        check_patterns(lines)
        try:
            self._spec = GitIgnoreSpec.from_lines(lines)
        except ValueError as error:
            raise SettingsError(f"ignore pattern: {error}") from error
        self._folders: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return len(self._spec) > 0

    def matches(self, path: str, is_dir: bool) -> bool:
        """Whether `path` itself matches; whoever walks a tree does not go below a match."""
        return self._spec.match_file(f"{path}/" if is_dir else path)

    def covers(self, path: str, is_dir: bool) -> bool:
        """Whether `path` or a directory above it matches."""
        return any(self._covers_folder(folder) for folder in ancestors(path)) or self.matches(path, is_dir)

    def _covers_folder(self, folder: str) -> bool:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self.matches(folder, True)
        return known
