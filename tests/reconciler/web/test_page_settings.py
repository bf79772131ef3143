"""A project's settings as a form has them: what the project may have, and only what was changed."""

from typing import Any

import pytest

from reconciler.spec.model import DirectorySource, Project, SyncRules
from reconciler.web.page.changes import Field, settings_change, sync_fields
from reconciler.web.refusals import RequestRefused

REPOSITORY = Project(id="site", repository="app", branch="main")
DIRECTORY = Project(
    id="live", source=DirectorySource(directory="/srv/build"), sync=SyncRules(owners="names", max_delete=0.25)
)


def named(project: Project) -> dict[str, Field]:
    return {field.name: field for field in sync_fields(project)}


def form_of(project: Project, **changed: str) -> dict[str, str]:
    """As a browser sends it: a box that is not ticked is left out."""
    fields = {
        field.name: field.value for field in sync_fields(project) if field.kind != "check" or field.value
    }
    return {**fields, **changed}


def test_owners_are_offered_where_there_are_any() -> None:
    assert "owners" not in named(REPOSITORY)
    owners = named(DIRECTORY)["owners"]
    assert (owners.value, owners.kind, owners.choices) == ("names", "choice", ("names", "none"))
    for project in (REPOSITORY, DIRECTORY):
        for field in sync_fields(project):
            assert field.kind != "choice" or field.value in field.choices


@pytest.mark.parametrize(
    ("project", "changed", "sent"),
    [
        (DIRECTORY, {"owners": "none"}, {"owners": "none"}),
        (
            DIRECTORY,
            {"compression": "off", "delete_foreign": "yes"},
            {"compression": "off", "delete_foreign": True},
        ),
        (DIRECTORY, {"max_delete": "30%"}, {"max_delete": "30%"}),
        # A field that the form has not is none of its changes.
        (REPOSITORY, {"owners": "names", "durability": "none"}, {"durability": "none"}),
    ],
    ids=["owners", "two", "share", "none of it"],
)
def test_only_what_is_another_is_sent(
    project: Project, changed: dict[str, str], sent: dict[str, Any]
) -> None:
    change = settings_change(project, (), form_of(project, **changed))
    assert (change.path, change.body) == ({"name": project.id}, {"sync": sent})


def test_a_form_as_it_came_changes_nothing() -> None:
    for project in (REPOSITORY, DIRECTORY):
        with pytest.raises(RequestRefused, match="nothing in the form"):
            settings_change(project, (), form_of(project))
