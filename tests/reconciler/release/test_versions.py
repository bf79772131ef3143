"""Release tags: parsing, semver.org's order, trailers, and which release an environment gets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semver import Version

from reconciler.git.objects import Tag
from reconciler.release.versions import (
    Trailers,
    highest_release,
    parse_version,
    read_trailers,
    releases_of,
    tag_name,
)
from reconciler.spec.model import Unit

WHOLE = Unit(name="infra", repository="infra")
PLATFORM = Unit(name="infra/platform", repository="infra", tag_prefix="platform/", paths=("platform/**",))
COMMIT = "c" * 40


def tag(name: str, environment: str | None = None, **trailers: str) -> Tag:
    given = {name.replace("_", "-"): value for name, value in trailers.items()}
    if environment is not None:
        given["Environment"] = environment
    return Tag(name=name, commit=COMMIT, annotated=bool(given), trailers=given)


def chosen(tags: list[Tag], environment: str = "staging", unit: Unit = WHOLE) -> str | None:
    found = highest_release(tags, unit=unit, environment=environment)
    return None if found is None else found.name


@pytest.mark.parametrize(
    ("name", "unit", "version"),
    [
        ("v1.2.3", WHOLE, "1.2.3"),
        ("1.2.3", WHOLE, "1.2.3"),
        ("v0.0.0", WHOLE, "0.0.0"),
        ("v1.2.3-rc.1", WHOLE, "1.2.3-rc.1"),
        ("v1.2.3+build.5", WHOLE, "1.2.3+build.5"),
        ("platform/v1.2.3", PLATFORM, "1.2.3"),
        ("platform/1.2.3", PLATFORM, "1.2.3"),
        ("platform/v1.2.3", WHOLE, None),
        ("v1.2.3", PLATFORM, None),
        ("Platform/v1.2.3", PLATFORM, None),
        ("v1.2", WHOLE, None),
        ("v01.2.3", WHOLE, None),
        ("V1.2.3", WHOLE, None),
        ("vv1.2.3", WHOLE, None),
        ("v1.2.3-", WHOLE, None),
        ("v1.2.3\n", WHOLE, None),
        ("v１.2.3", WHOLE, None),
        ("release-5", WHOLE, None),
        ("", WHOLE, None),
        ("v1.2." + "9" * 5000, WHOLE, None),
    ],
)
def test_which_names_are_versions(name: str, unit: Unit, version: str | None) -> None:
    found = parse_version(name, unit)
    assert (None if found is None else str(found)) == version


def test_the_order_of_semver_org_section_11() -> None:
    # Both rows are the specification's own examples.
    numbers = ["1.0.0", "2.0.0", "2.1.0", "2.1.1"]
    pre_releases = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]
    row = [f"v1.0.0-{name}" for name in pre_releases] + [f"v{number}" for number in numbers]
    found = [parse_version(name, WHOLE) for name in row]
    versions = [version for version in found if version is not None]
    assert [f"v{version}" for version in versions] == row
    assert all(lower < higher for lower, higher in pairwise(versions))


@pytest.mark.parametrize(
    ("tags", "environment", "expected"),
    [
        ([], "staging", None),
        ([tag("nightly"), tag("release-5")], "staging", None),
        # Without trailers: the highest, by number and not by letter.
        ([tag("v1.9.0"), tag("v1.10.0"), tag("v1.2.0")], "staging", "v1.10.0"),
        ([tag("v1.9.0"), tag("v1.10.0")], "production", "v1.10.0"),
        # Pre-releases never count.
        ([tag("v1.0.0"), tag("v1.1.0-rc.1")], "staging", "v1.0.0"),
        ([tag("v1.1.0-rc.1")], "staging", None),
        ([tag("v1.0.0"), tag("v1.1.0-rc.1", "staging")], "staging", "v1.0.0"),
        # With trailers: the environment's own.
        (
            [tag("v1.2.3", "staging"), tag("v1.3.0", "production"), tag("v1.2.4", "staging")],
            "staging",
            "v1.2.4",
        ),
        ([tag("v1.2.3", "staging"), tag("v1.3.0", "production")], "production", "v1.3.0"),
        ([tag("v1.2.3", "staging")], "production", None),
        # A tag without a trailer among others that have one is nobody's.
        ([tag("v1.2.3", "staging"), tag("v9.0.0")], "staging", "v1.2.3"),
        # A trailer that says nothing of an environment leaves a repository as it was.
        ([tag("v1.0.0", Signed_off_by="A"), tag("v2.0.0")], "staging", "v2.0.0"),
        # Another unit's prefix is not ours.
        ([tag("v1.0.0"), tag("platform/v7.0.0", "staging")], "staging", "v1.0.0"),
        # A unit named in the trailer must be ours.
        (
            [tag("v1.0.0", "staging", Unit="infra"), tag("v2.0.0", "staging", Unit="other")],
            "staging",
            "v1.0.0",
        ),
    ],
)
def test_highest_release(tags: list[Tag], environment: str, expected: str | None) -> None:
    assert chosen(tags, environment) == expected
    assert chosen(tags[::-1], environment) == expected


def test_each_unit_has_its_own_releases() -> None:
    tags = [
        tag("v1.0.0"),
        tag("platform/v2.0.0", "staging", Unit="infra/platform"),
        tag("platform/v2.1.0", "staging", Unit="platform"),
        tag("platform/v3.0.0", "staging", Unit="infra"),
    ]
    assert chosen(tags, unit=PLATFORM) == "platform/v2.1.0"
    assert chosen(tags, unit=WHOLE) == "v1.0.0"


def test_a_lightweight_tag_has_no_trailers() -> None:
    light = Tag(name="v1.0.0", commit=COMMIT, annotated=False, trailers={"Environment": "staging"})
    assert read_trailers(light) == Trailers()


def test_trailers_are_read_in_any_case() -> None:
    spec = "5" * 40
    found = read_trailers(
        Tag(
            name="v1.3.0",
            commit=COMMIT,
            annotated=True,
            trailers={
                "ENVIRONMENT": " production ",
                "unit": "infra",
                "Spec": f"main@sha1:{spec}",
                "promoted-from": "v1.2.4",
            },
        )
    )
    assert found == Trailers("production", "infra", spec, "v1.2.4")


@pytest.mark.parametrize("text", ["main", "--upload-pack=x", "5" * 39, "main@sha1:" + "g" * 40, ""])
def test_a_spec_trailer_that_is_no_commit_is_none(text: str) -> None:
    assert read_trailers(tag("v1.0.0", "staging", Spec=text)).spec_revision is None


numbers = st.integers(0, 10**6)
versions = st.builds(Version, numbers, numbers, numbers)


@given(versions)
def test_a_name_gives_back_its_version(version: Version) -> None:
    for unit in (WHOLE, PLATFORM):
        assert parse_version(tag_name(version, unit), unit) == version


@given(st.lists(versions, unique_by=str), st.randoms())
def test_order_does_not_depend_on_the_order_of_the_tags(found: list[Version], random: object) -> None:
    names = [tag_name(version, WHOLE) for version in found]
    tags = [tag(name) for name in names]
    random.shuffle(tags)  # type: ignore[attr-defined]
    ordered = [version for version, _ in releases_of(tags, WHOLE)]
    assert ordered == sorted(found)
    assert chosen(tags) == (tag_name(max(found), WHOLE) if found else None)


@given(st.lists(st.tuples(versions, st.sampled_from(["staging", "production", None])), min_size=1))
def test_the_chosen_release_is_at_least_every_other_of_its_environment(
    entries: list[tuple[Version, str | None]],
) -> None:
    tags = [tag(tag_name(version, WHOLE), environment) for version, environment in dict(entries).items()]
    named = [t for t in tags if read_trailers(t).environment is not None]
    candidates = [t for t in named if read_trailers(t).environment == "staging"] if named else tags
    found = highest_release(tags, unit=WHOLE, environment="staging")
    assert (found is None) == (not candidates)
    if found is not None:
        highest = parse_version(found.name, WHOLE)
        assert highest is not None
        for other in candidates:
            version = parse_version(other.name, WHOLE)
            assert version is not None and version <= highest


@given(st.text(max_size=40))
def test_no_name_breaks_the_parser(name: str) -> None:
    found = parse_version(name, WHOLE)
    assert found is None or str(found) == name.removeprefix("v")
