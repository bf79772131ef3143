"""Ignore rules mean what they mean to git: by chance against real git, and what pathspec alone gets wrong."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SettingsError
from agent.gitglob import BadGlob, as_bytes, translate
from agent.ignore import Ignore
from tests.agent.gitignored import ignored_by_git, paths_by_chance, rules_by_chance

PATHS = 110
SETS = 120
SEEDS = 1_500
"""Sets of rules where everything is tried."""


def spares_the_folder(rules: Sequence[str]) -> bool:
    """Whether these rules are among those that take a directory along whose whole content they ignore."""
    return not any(rule.startswith("!") for rule in rules) and any(
        re.search(r"/\*\*+ *$", rule) for rule in rules
    )


def test_random_rules_agree_with_git(tmp_path: Path, exhaustive: bool) -> None:
    kinds = paths_by_chance(7, PATHS)
    sets = [rules_by_chance(seed) for seed in range(SEEDS if exhaustive else SETS)]
    usable: list[tuple[list[str], Ignore]] = []
    for rules in sets:
        try:
            usable.append((rules, Ignore(rules)))
        except SettingsError:
            assert any(rule.rstrip(" /").endswith("\\") for rule in rules), rules
    answers = ignored_by_git(tmp_path / "work", kinds, [rules for rules, _ in usable])
    pairs = matched = 0
    for (rules, ignore), by_git in zip(usable, answers, strict=True):
        for path, is_dir in kinds.items():
            if is_dir and spares_the_folder(rules):
                continue
            assert ignore.covers(path, is_dir) is (path in by_git), (rules, path)
            pairs += 1
            matched += path in by_git
    assert pairs >= 10_000
    assert pairs / 10 < matched < pairs * 9 / 10  # neither all nor nothing


KNOWN = {
    "a class": (["[[:digit:]]*"], ["1", "12/x"], ["a"]),
    "a class that there is not": (["[[:nope:]]"], [], [":", "n", "]"]),
    "a bracket in a bracket": (["[a\\]]"], ["a", "]"], ["\\", "\\]", "a]"]),
    "a range backwards": (["[b-a]"], ["b"], ["a", "-"]),
    "a range without an end": (["[a-]", "[-b]"], ["a", "-", "b"], ["c"]),
    "a bracket over a slash": (["a[/]b"], [], ["a/b"]),
    "three stars": (["***/x"], ["x", "a/x", "a/b/x"], ["xx"]),
    "two stars in a name": (["x/a**b"], ["x/ab", "x/acb"], ["x/b"]),
    "two stars behind a beginning": (["a**/b"], ["a/b", "ax/b", "a/x/b", "ab"], ["b", "x/a/b"]),
    "one byte each": (["?", "!??"], ["a"], ["é"]),
    "two bytes": (["??"], ["é", "ab"], ["a", "€"]),
    "a tab at the end": (["a\t"], ["a\t"], ["a"]),
    "spaces at the end": (["a  ", "b\\ "], ["a", "b "], ["a  ", "b"]),
    "a line of another system": (["a\r", "b/\r"], ["a", "b/x"], ["a\r"]),
    "a comment, and none": (["#a", "\\#b"], ["#b"], ["#a", "a"]),
    "taken back, and not": (["*", "!a", "\\!b"], ["!b", "b"], ["a"]),
    "content taken back": (["logs/**", "!logs/keep"], ["logs/a", "logs/b/c"], ["logs", "logs/keep"]),
    "all content": (["logs/**"], ["logs/a", "logs/b/c"], ["x/logs/a"]),
    "lines that match nothing": (["/", "!", "//", "[", "a[b", "[!"], [], ["/", "!", "[", "a[b", "a", "b"]),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_a_line_means(tmp_path: Path, case: str) -> None:
    lines, ignored, others = KNOWN[case]
    ignore = Ignore(lines)
    for path in (*ignored, *others):
        assert ignore.covers(path, is_dir=False) is (path in ignored), path
    files = [path for path in (*ignored, *others) if path not in ("/", "logs")]
    (by_git,) = ignored_by_git(tmp_path / "work", dict.fromkeys(files, False), [lines])
    assert by_git == set(ignored)


@pytest.mark.parametrize("line", ["\\", "a\\", "!a/\\", "a\\/"])
def test_what_can_never_match_is_refused(line: str) -> None:
    with pytest.raises(SettingsError, match="ends in a backslash"):
        Ignore([line])


def test_a_directory_goes_with_all_its_content() -> None:
    assert Ignore(["logs/**"]).matches("logs", is_dir=True)
    assert not Ignore(["logs/**"]).matches("logs", is_dir=False)
    assert not Ignore(["logs/**", "!logs/keep"]).matches("logs", is_dir=True)


def test_names_that_are_no_text() -> None:
    path = b"a\xff".decode(errors="surrogateescape")
    assert Ignore(["a?"]).matches(path, is_dir=False)
    assert as_bytes(path) == "a\xff"


@given(st.text(alphabet="ab/*?[]!-^\\:é #\t", max_size=14), st.text(alphabet="ab/é", max_size=8))
def test_any_line_is_translated_or_refused(line: str, path: str) -> None:
    try:
        glob = translate(line, whole=False)
    except BadGlob:
        return
    if glob is not None:
        re.compile(glob.regex).match(as_bytes(path))


@pytest.mark.parametrize(
    "line",
    [
        "/".join(["**", "a"] * 30) + "/b",
        "/".join(["**", "*"] * 30) + "/b",
        "a*" * 40 + "b",
        "x/" + "*a" * 40 + "/b",
        "**\\/a" * 30 + "/b",
        "[ab]*" * 40 + "!",
    ],
)
def test_no_line_takes_exponential_time(line: str) -> None:
    """By trying every way to match, this would not end before the sun does."""
    glob = translate(line, whole=False)
    assert glob is not None
    regex = re.compile(glob.regex)
    paths = ["/".join(["a"] * 400), "a" * 255, "/".join(["a" * 60] * 60)]
    began = time.process_time()
    assert not any(regex.match(path) for path in paths)
    assert time.process_time() - began < 60
