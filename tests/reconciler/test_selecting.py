"""Which resources a name on the command line means."""

import pytest

from reconciler.errors import SettingsError
from reconciler.selecting import known_selection, selection

RESOURCES = (
    "environments/staging",
    "nodes/web",
    "projects/production/site/web-1/srv-site",
    "secrets/local",
    "services/production/web",
    "services/staging/web",
    "services/staging/website",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("services", {"services/production/web", "services/staging/web", "services/staging/website"}),
        ("service", {"services/production/web", "services/staging/web", "services/staging/website"}),
        ("services/", {"services/production/web", "services/staging/web", "services/staging/website"}),
        ("service/web", {"services/production/web", "services/staging/web"}),
        ("services/staging", {"services/staging/web", "services/staging/website"}),
        ("services/staging/web", {"services/staging/web"}),
        ("project/site", {"projects/production/site/web-1/srv-site"}),
        ("projects/production/site/web-1", {"projects/production/site/web-1/srv-site"}),
        ("node/web", {"nodes/web"}),
        ("secret/local", {"secrets/local"}),
        ("services/taging", set()),
        ("web", set()),
    ],
)
def test_what_is_meant(text: str, found: set[str]) -> None:
    assert {resource for resource in RESOURCES if selection(text).has(resource)} == found


def test_a_kind_that_nothing_is_of() -> None:
    with pytest.raises(SettingsError, match="there is no kind servces; did you mean services"):
        known_selection("servces/web")
    with pytest.raises(SettingsError, match="give one of services, projects"):
        known_selection("web")
