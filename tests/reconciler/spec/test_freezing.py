"""What a problem of one resource freezes: what refers to it waits too, all else stays in use."""

import pytest

from reconciler.spec.load import Loaded
from tests.reconciler.spec.documents import BASE, OK, loaded


def frozen_spec() -> Loaded:
    text = (
        BASE.replace("production: {}", "production: {release: {bump: huge}}").replace(
            "disk: slow}", "disk: slow}, fingerprint: nope"
        )
        + "services:\n"
        "  web: {repository: app, deploy: {kind: manual}, environments: [staging, production]}\n"
        "  broken: {repository: app, deploy: {kind: manual}, environments: [staging], suspend: maybe}\n"
        "  needs: {repository: app, deploy: {kind: manual}, environments: [staging], depends_on: [broken]}\n"
        "  far: {repository: app, deploy: {kind: manual}, environments: [staging], depends_on: [needs]}\n"
        "projects:\n"
        "  live: {repository: app, environment: production, sync: {}}\n"
        "  all: {repository: app, branch: main, "
        "sync: {nodes: [{labels: {group: web}, target_path: /srv/a}]}}\n"
        "  one: {repository: app, branch: main, sync: {nodes: [{node_id: web-2, target_path: /srv/b}]}}\n"
    )
    return loaded(text)


def test_what_refers_to_a_broken_resource_waits_without_a_problem_of_its_own() -> None:
    result = frozen_spec()
    assert {each.resource for each in result.problems} == {
        "environments/production",
        "nodes/web-2",
        "services/broken",
    }
    assert len(result.problems) == 3
    assert set(result.frozen) == {
        "environments/production",
        "nodes/web-2",
        "projects/live",
        "projects/one",
        "services/broken",
        "services/far",
        "services/needs",
    }
    assert result.frozen["services/far"] == "waits for services/needs, which has a problem"
    assert result.spec is not None
    assert [each.id for each in result.spec.services] == ["services/staging/web"]
    assert list(result.spec.environments) == ["staging"]
    assert list(result.spec.nodes) == ["web-1"]
    assert [target.node for target in result.spec.projects["all"].sync.targets] == ["web-1"]


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("services/staging/web", False),
        ("services/production/web", True),
        ("services/staging/broken", True),
        ("services/broken", True),
        ("services/web", False),
        ("environments/production", True),
        ("environments/staging", False),
        ("nodes/web-2", True),
        ("nodes/web-1", False),
        ("projects/branch/all/web-1/srv+a", False),
        ("projects/branch/all/web-2/srv+a", True),
        ("projects/branch/one/web-2/srv+b", True),
        ("projects/production/gone/web-1/x", True),
        ("projects/production/live", True),
        ("secrets/local", False),
        ("targets/none", False),
        ("summary", False),
    ],
)
def test_ids_of_the_status_branch_are_known_as_frozen(resource: str, expected: bool) -> None:
    assert frozen_spec().is_frozen(resource) is expected


def test_a_frozen_secret_source_is_known_under_both_names() -> None:
    result = loaded(BASE.replace("file: .env", "fle: .env"))
    assert result.is_frozen("secrets/local")
    assert result.is_frozen("secret_sources/local")


def test_duplicate_names_freeze_their_resource() -> None:
    text = BASE + f"services:\n  web: {{{OK}}}\n  api: {{{OK}}}\n  web: {{{OK}}}\n"
    result = loaded(text)
    [problem] = result.problems
    assert str(problem) == "trueup.yaml:14:3: services.web: stands twice, first in line 12; remove one"
    assert list(result.frozen) == ["services/web"]
    assert result.spec is not None
    assert [each.name for each in result.spec.services] == ["api"]
