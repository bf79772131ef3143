"""Which files of a commit a pattern means."""

import pytest

from agent.errors import SettingsError
from agent.ignore import check_patterns
from reconciler.git.objects import TreeEntry
from reconciler.paths import CommitPaths, digest_by_pattern

PATHS = [
    "README.md",
    "libs/log.py",
    "platform/01.postgres/compose.yaml",
    "platform/01.postgres/sub/x.sql",
    "platform/02.redis/compose.yaml",
    "web/docs/index.md",
    "web/index.html",
    "x/web/decoy",
]


def commit(changed: str = "") -> CommitPaths:
    return CommitPaths(
        [
            TreeEntry(path, 0o100644, "file", f"{'f' if path == changed else '0'}" * 40, 1)
            for path in reversed(PATHS)
        ]
    )


@pytest.mark.parametrize(
    ("patterns", "matched"),
    [
        (["**"], PATHS),
        (["web/**"], ["web/docs/index.md", "web/index.html"]),
        (["web"], ["web/docs/index.md", "web/index.html", "x/web/decoy"]),
        (["/web"], ["web/docs/index.md", "web/index.html"]),
        (["/web/*.html"], ["web/index.html"]),
        (
            ["platform/0?.*/compose.yaml"],
            ["platform/01.postgres/compose.yaml", "platform/02.redis/compose.yaml"],
        ),
        (["web/**", "!web/docs/**"], ["web/index.html"]),
        (["*.md"], ["README.md", "web/docs/index.md"]),
        (["/*.md"], ["README.md"]),
        (["**/*.md"], ["README.md", "web/docs/index.md"]),
        (["libs/**", "README.md"], ["README.md", "libs/log.py"]),
        (["nothing/**"], []),
    ],
)
def test_patterns_are_those_of_gitignore(patterns: list[str], matched: list[str]) -> None:
    assert [entry.path for entry in commit().matching(patterns)] == matched


def test_only_the_pattern_that_was_touched_has_another_digest() -> None:
    patterns = ["platform/01.postgres/**", "libs/**"]
    before = digest_by_pattern(commit(), patterns)
    after = digest_by_pattern(commit("libs/log.py"), patterns)
    assert [name for name in before if before[name] != after[name]] == ["path libs/**"]


def test_patterns_with_a_negation_are_one_input() -> None:
    assert list(digest_by_pattern(commit(), ["web/**", "!web/docs/**"])) == ["path web/** !web/docs/**"]


def test_no_patterns_mean_the_whole_repository() -> None:
    before, after = digest_by_pattern(commit(), []), digest_by_pattern(commit("x/web/decoy"), [])
    assert before.keys() == after.keys()
    assert before != after


@pytest.mark.parametrize(
    ("directory", "there"), [(".", True), ("web", True), ("we", False), ("web/docs/", True)]
)
def test_directories(directory: str, there: bool) -> None:
    assert commit().has_directory(directory) is there


def test_a_directory_is_taken_by_its_name_and_not_as_a_pattern() -> None:
    def below(oid: str, directory: str) -> str:
        entries = [TreeEntry(f"{directory}/x", 0o100644, "file", oid * 40, 1)]
        return CommitPaths(entries).below(directory)

    for directory in ("pages/[id]", "a*b", "what?", "back\\slash", "plain"):
        assert below("1", directory) != below("2", directory), directory


def test_a_pattern_that_would_take_for_ever_is_refused() -> None:
    check_patterns(["a/**/b/*.min.*.js", "**", "***", "*/*/*/*/*"])
    with pytest.raises(SettingsError, match="more than 3"):
        check_patterns(["web/**", "*a*a*a*a*b"])
