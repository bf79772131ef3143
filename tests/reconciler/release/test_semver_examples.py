"""semver.org's published examples, and the number that comes next."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from reconciler.release.versions import MAX_NAME, Bump, next_version, parse_version, tag_name
from reconciler.spec.model import Unit

UNIT = Unit(name="infra", repository="infra")

# The two lists that semver.org's FAQ links to, beside the regular expression that it suggests.
VALID = [
    "0.0.4", "1.2.3", "10.20.30", "1.1.2-prerelease+meta", "1.1.2+meta", "1.1.2+meta-valid", "1.0.0-alpha",
    "1.0.0-beta", "1.0.0-alpha.beta", "1.0.0-alpha.beta.1", "1.0.0-alpha.1", "1.0.0-alpha0.valid",
    "1.0.0-alpha.0valid", "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay", "1.0.0-rc.1+build.1",
    "2.0.0-rc.1+build.123", "1.2.3-beta", "10.2.3-DEV-SNAPSHOT", "1.2.3-SNAPSHOT-123", "1.0.0", "2.0.0",
    "1.1.7", "2.0.0+build.1848", "2.0.1-alpha.1227", "1.0.0-alpha+beta",
    "1.2.3----RC-SNAPSHOT.12.9.1--.12+788", "1.2.3----R-S.12.9.1--.12+meta",
    "1.2.3----RC-SNAPSHOT.12.9.1--.12", "1.0.0+0.build.1-rc.10000aaa-kk-0.1",
    "99999999999999999999999.999999999999999999.99999999999999999", "1.0.0-0A.is.legal",
]  # fmt: skip
INVALID = [
    "1", "1.2", "1.2.3-0123", "1.2.3-0123.0123", "1.1.2+.123", "+invalid", "-invalid", "-invalid+invalid",
    "-invalid.01", "alpha", "alpha.beta", "alpha.beta.1", "alpha.1", "alpha+beta", "alpha_beta", "alpha.",
    "alpha..", "beta", "1.0.0-alpha_beta", "-alpha.", "1.0.0-alpha..", "1.0.0-alpha..1", "1.0.0-alpha...1",
    "1.0.0-alpha....1", "1.0.0-alpha.....1", "1.0.0-alpha......1", "1.0.0-alpha.......1", "01.1.1",
    "1.01.1", "1.1.01", "1.2", "1.2.3.DEV", "1.2-SNAPSHOT", "1.2.31.2.3----RC-SNAPSHOT.12.09.1--..12+788",
    "1.2-RC-SNAPSHOT", "-1.0.3-gamma+b7718", "+justmeta", "9.8.7+meta+meta", "9.8.7-whatever+meta+meta",
    "99999999999999999999999.999999999999999999.99999999999999999"
    "----RC-SNAPSHOT.12.09.1--------------------------------..12",
]  # fmt: skip
CHAINS = [
    "1.0.0 2.0.0 2.1.0 2.1.1",
    "1.0.0-alpha 1.0.0",
    "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0",
    "1.9.0 1.10.0 1.11.0",
]
"""Sections 2 and 11."""


@pytest.mark.parametrize("text", VALID)
def test_what_semver_org_calls_valid_is_a_version(text: str) -> None:
    assert str(parse_version(text, UNIT)) == text
    assert str(parse_version(f"v{text}", UNIT)) == text


@pytest.mark.parametrize("text", [*INVALID, "1.2.\u0663", "1.2.3\n", "1.2.3-0\u0663", "\uff11.0.0", ""])
def test_what_semver_org_calls_invalid_is_none(text: str) -> None:
    assert parse_version(text, UNIT) is None
    assert parse_version(f"v{text}", UNIT) is None


@pytest.mark.parametrize("chain", CHAINS)
def test_the_published_precedence(chain: str) -> None:
    versions = [Version.parse(text) for text in chain.split()]
    assert all(lower < higher for lower, higher in pairwise(versions))


def test_build_metadata_has_no_precedence() -> None:
    texts = ("1.0.0-alpha+001", "1.0.0-alpha+20130313144700", "1.0.0-alpha+exp.sha.5114f85")
    assert len({Version.parse(text).compare("1.0.0-alpha") for text in texts}) == 1


@pytest.mark.parametrize(
    ("taken", "patch", "minor", "major"),
    [
        ("", "0.1.0", "0.1.0", "1.0.0"),
        ("0.0.0", "0.0.1", "0.1.0", "1.0.0"),
        ("1.2.3", "1.2.4", "1.3.0", "2.0.0"),
        ("1.2.3 1.10.0 1.9.9", "1.10.1", "1.11.0", "2.0.0"),
        ("1.3.0 1.2.9", "1.3.1", "1.4.0", "2.0.0"),
        ("1.4.0-rc.1", "1.4.1", "1.5.0", "2.0.0"),
        ("2.0.0-alpha 1.9.0", "2.0.1", "2.1.0", "3.0.0"),
        ("1.2.3+build.7", "1.2.4", "1.3.0", "2.0.0"),
        ("1.2.3-rc.1+build.7 1.2.3", "1.2.4", "1.3.0", "2.0.0"),
        ("9.9.9", "9.9.10", "9.10.0", "10.0.0"),
        (
            "99999999999999999999999.999999999999999999.99999999999999999",
            "99999999999999999999999.999999999999999999.100000000000000000",
            "99999999999999999999999.1000000000000000000.0",
            "100000000000000000000000.0.0",
        ),
    ],
)
def test_the_number_that_comes_next(taken: str, patch: str, minor: str, major: str) -> None:
    versions = [Version.parse(text) for text in taken.split()]
    assert str(next_version(versions, "patch")) == patch
    assert str(next_version(iter(versions), "minor")) == minor
    assert str(next_version(reversed(versions), "major")) == major


NUMBERS = st.integers(0, 10**40) | st.integers(0, 3)
SOME = st.sampled_from([None, "alpha", "rc.1", "0"])
VERSIONS = st.builds(Version, NUMBERS, NUMBERS, NUMBERS, SOME, st.sampled_from([None, "build.1"]))
BUMPS: st.SearchStrategy[Bump] = st.sampled_from(["patch", "minor", "major"])


@given(st.lists(VERSIONS, max_size=8), BUMPS)
def test_the_next_number_is_above_every_taken_one_and_a_release(taken: list[Version], bump: Bump) -> None:
    found = next_version(taken, bump)
    assert all(found > each for each in taken)
    assert found not in taken
    assert (found.prerelease, found.build) == (None, None)
    assert parse_version(tag_name(found, UNIT), UNIT) == found
    assert len(tag_name(found, UNIT)) <= MAX_NAME


@given(st.lists(BUMPS, min_size=1, max_size=20))
def test_numbers_that_follow_each_other_never_come_twice(bumps: list[Bump]) -> None:
    taken: list[Version] = []
    for bump in bumps:
        taken.append(next_version(taken, bump))
    assert sorted(set(taken)) == taken
