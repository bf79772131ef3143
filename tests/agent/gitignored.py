"""Ignore rules by chance, and what git says of them: one question for any number of rules and paths."""

import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

NAMES = ("a", "b", "ab", "a.b", ".a", "b c", "[a]", "a*", "!b", "#a", "B", "é", "a\\b", "-", "]")
"""Names that are one another's beginning, and such as hold what patterns give a meaning to."""

_PIECES = (
    *("a", "b", "ab", "a.b", ".a", "B", "é", "b c", "-", "."),
    *("*", "*", "**", "?", "a*", "*b", "*.b", ".*", "?b", "a?", "a*b", "***", "a**", "**b"),
    *("[ab]", "[!a]", "[^a]", "[a-c]", "[!a-c]*", "[]]", "[!]]", "[]-a]", "[a-]", "[-a]", "[a", "["),
    *("[]", "[b-a]", "\\[a\\]", "\\a", "\\*", "a\\*", "[\\a]", "[[:alpha:]]", "[[:lower:]b]*"),
    *("[[:nope:]]", "\\!b", "\\#a", "a\\\\b", "[a\\]]", "[[]a]", "[*]", "[?]", "[a]]", "[!a]*", "[a-a]"),
    *("]", "{a,b}"),
)
_ENDS = (" ", "  ", "\\ ", "\t", "/ ", "/**", "/**/", "//", "\\")
_ODD = ("", "#", "# a", "/", "!", "!/", "//", "\\", "**/", "/**", "!**", "**/**", "/*/", "*/", "!*/")


def a_pattern(chance: random.Random) -> str:
    """One line of a .gitignore, sometimes an odd one."""
    parts = [chance.choice(_PIECES) for _ in range(chance.choice((1, 1, 1, 2, 2, 3)))]
    line = "/".join(parts)
    if chance.random() < 0.2:
        line = f"/{line}"
    if chance.random() < 0.25:
        line = f"{line}/"
    if chance.random() < 0.2:
        line = f"!{line}"
    if chance.random() < 0.06:
        line += chance.choice(_ENDS)
    if chance.random() < 0.03:
        line = chance.choice(_ODD)
    return line


def rules_by_chance(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [a_pattern(chance) for _ in range(chance.choice((1, 1, 2, 3, 4)))]


def paths_by_chance(seed: int, count: int) -> dict[str, bool]:
    """Paths, and whether each is a directory; the directories above are there, too."""
    chance = random.Random(seed)
    kinds: dict[str, bool] = {}
    while len(kinds) < count:
        parts = [chance.choice(NAMES) for _ in range(chance.choice((1, 1, 2, 2, 3, 4)))]
        wanted = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        if any(kinds.get(above) is False for above in wanted[:-1]) or wanted[-1] in kinds:
            continue
        kinds |= dict.fromkeys(wanted[:-1], True)
        kinds[wanted[-1]] = chance.random() < 0.4
    return kinds


def ignored_by_git(
    work: Path, kinds: Mapping[str, bool], rule_sets: Sequence[Sequence[str]]
) -> Iterator[set[str]]:
    """For each set of rules, those of the paths that real git ignores, in a new work tree."""
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    for path, is_dir in kinds.items():
        if is_dir:
            (work / path).mkdir(parents=True, exist_ok=True)
        else:
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).touch()
    asked = "\0".join(kinds).encode()
    for rules in rule_sets:
        (work / ".git/info/exclude").write_bytes("".join(f"{rule}\n" for rule in rules).encode())
        done = subprocess.run(
            ["git", "-C", str(work), "check-ignore", "--no-index", "--stdin", "-z"],
            input=asked,
            stdout=subprocess.PIPE,
            check=False,
        )
        assert done.returncode in (0, 1)
        yield set(done.stdout.decode().split("\0")) - {""}
