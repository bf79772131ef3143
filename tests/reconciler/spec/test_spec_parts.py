"""The small pure parts: durations, windows, graphs."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.spec.globs import Glob
from reconciler.spec.graph import circles, spread
from reconciler.spec.values import parse_duration, parse_mode, parse_percentage, parse_size
from reconciler.spec.windows import check_timezone, parse_window


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("5m", 300),
        ("24h", 86400),
        ("0s", 0),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5m", 90),
        ("2d", 172800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 m", "-5s", "5m ", "5x", "5m3", "1h,2m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("128KiB", 131072), ("50MiB/s", 52428800), ("1.5kB/s", 1500), ("2GB", 2 * 10**9)],
)
def test_sizes_and_rates(text: str, size: float) -> None:
    assert parse_size(text) == size


def test_what_is_no_size_share_or_mode() -> None:
    for parse, text in (
        (parse_size, "5Mb"),
        (parse_percentage, "101%"),
        (parse_percentage, "50"),
        (parse_mode, "600"),
    ):
        with pytest.raises(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("window", "weekday", "minute", "inside"),
    [
        ("Mon-Thu 09:00-17:00", 0, 540, True),
        ("Mon-Thu 09:00-17:00", 3, 1019, True),
        ("Mon-Thu 09:00-17:00", 3, 1020, False),
        ("Mon-Thu 09:00-17:00", 4, 600, False),
        ("Fri-Mon 00:00-24:00", 6, 1439, True),
        ("Fri-Mon 00:00-24:00", 2, 0, False),
        ("Sat,Sun 10:00-11:00", 5, 600, True),
        ("Sat,Sun 10:00-11:00", 4, 600, False),
        ("Sun 22:00-04:00", 6, 1320, True),
        ("Sun 22:00-04:00", 0, 239, True),
        ("Sun 22:00-04:00", 0, 240, False),
        ("Sun 22:00-04:00", 6, 100, False),
        ("daily 22:00-04:00", 3, 0, True),
        ("daily 22:00-04:00", 3, 720, False),
    ],
)
def test_windows(window: str, weekday: int, minute: int, inside: bool) -> None:
    assert parse_window(window).contains(weekday, minute) is inside


@pytest.mark.parametrize(
    "text",
    [
        *("", "Mon", "09:00-17:00", "mon 09:00-17:00", "Mon- 09:00-17:00", "Mon 9:00-17:00"),
        *("Mon 09:60-17:00", "Mon 24:00-02:00", "Mon 09:00-24:01", "Mon 09:00-09:00", "Mon,,Tue 09:00-10:00"),
    ],
)
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError):
        parse_window(text)


@pytest.mark.parametrize(
    "name", ["Europe", "Nowhere/City", "../etc/passwd", "/etc/localtime", "", "a\0b", "x" * 5000]
)
def test_what_is_no_time_zone(name: str) -> None:
    with pytest.raises(ValueError):
        check_timezone(name)


GRAPHS = st.dictionaries(st.sampled_from("abcdefg"), st.sets(st.sampled_from("abcdefgh"), max_size=3))


def reaches(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for following in graph.get(waiting.pop(), ()):
            if following not in found:
                found.add(following)
                waiting.append(following)
    return found


@given(GRAPHS)
def test_a_circle_is_told_exactly_where_there_is_one(graph: dict[str, set[str]]) -> None:
    found = circles(graph)
    in_circles = {name for name in graph if name in reaches(graph, name)}
    assert bool(found) == bool(in_circles)
    told: set[str] = set()
    for circle in found:
        assert all(
            following in graph[name] for name, following in zip(circle, [*circle[1:], circle[0]], strict=True)
        )
        assert circle[0] == min(circle)
        assert told.isdisjoint(circle)
        told.update(circle)
    assert told <= in_circles


def test_a_long_chain_is_no_matter_of_recursion() -> None:
    chain = {str(n): {str(n + 1)} for n in range(50_000)}
    assert circles(chain) == []
    assert len(spread(chain, ["50000"])) == 50_000
    assert len(circles(chain | {"50000": {"0"}})[0]) == 50_001


@given(GRAPHS, st.sets(st.sampled_from("abcdefgh")))
def test_spread_finds_all_that_lead_to_the_marked(graph: dict[str, set[str]], marked: set[str]) -> None:
    found = spread(graph, marked)
    assert set(found) == {name for name in graph if name not in marked and reaches(graph, name) & marked}
    assert all(following in graph[name] for name, following in found.items())


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a.yaml", "a.yaml", True),
        ("a.yaml", "aXyaml", False),
        ("*.yaml", "a.yaml", True),
        ("*.yaml", "b/a.yaml", False),
        ("b/*", "b/a.yaml", True),
        ("b/*", "b/c/a.yaml", False),
        ("**/a.yaml", "a.yaml", True),
        ("**/a.yaml", "b/c/a.yaml", True),
        ("b/**", "b/c/a.yaml", True),
        ("b/**/a.yaml", "b/a.yaml", True),
        ("b/**/**/a.yaml", "b/x/a.yaml", True),
        ("b**", "b/x", False),
        ("b**", "bx", True),
        ("?.yaml", "a.yaml", True),
        ("?.yaml", "ab.yaml", False),
        ("a*b*c", "aXbXc", True),
        ("a*b*c", "abcb", False),
        ("*ab", "aab", True),
        ("[a].yaml", "a.yaml", False),
        ("**", "a/b", True),
        ("**", "a", True),
        ("b/**", "b", False),
        ("**/**", "a/b/c", True),
        ("**/c/**/e", "a/c/c/d/e", True),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert Glob(pattern).matches(path) is expected


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_a_glob_in_one_folder_agrees_with_fnmatch(pattern: str, path: str) -> None:
    if pattern != "**":
        assert Glob(pattern).matches(path) == fnmatch.fnmatchcase(path, pattern)
