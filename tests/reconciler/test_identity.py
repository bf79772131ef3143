"""Ids of sync targets are always a path that a status file can have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.identity import dokploy_application, target_slug
from reconciler.status.files import id_of


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/srv/project-a", "srv+project-a"),
        ("/srv/a+b", "srv+a%2Bb"),
        ("/srv/100%", "srv+100%25"),
        ("/srv/\u202egnp", "srv+%E2%80%AEgnp"),
    ],
)
def test_a_target_path_as_one_name(path: str, slug: str) -> None:
    assert target_slug(path) == slug


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
def test_every_path_has_a_place(parts: list[str]) -> None:
    slug = target_slug("/" + "/".join(parts))
    if slug not in (".", ".."):  # canonical paths have no such part
        assert id_of(f"projects/branch/site/web-1/{slug}.yaml") == f"projects/branch/site/web-1/{slug}"


def test_long_paths_stay_apart() -> None:
    one, other = target_slug("/" + "x" * 900 + "a"), target_slug("/" + "x" * 900 + "b")
    assert one != other


@pytest.mark.parametrize(
    "server", ["https://d.example", "https://D.example/", "http://d.example/api", "https://d.example/api/"]
)
def test_an_application_in_dokploy_has_one_name(server: str) -> None:
    assert dokploy_application(server, "abc") == "d.example abc"
    assert dokploy_application(server, "Abc") != "d.example abc"
