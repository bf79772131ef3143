"""Which project a run means, and what keeps it as it is."""

import pytest

from reconciler.control.state import fold
from reconciler.journal_records import TaskRecord
from reconciler.spec.model import Project, Spec, SyncRules
from reconciler.web.apis.project_writes import keeping, project_named, require_retriable
from reconciler.web.page.activity import tasks
from reconciler.web.refusals import RequestRefused
from tests.reconciler.control.records import record


def project(environment: str | None) -> Project:
    branch = None if environment else "main"
    return Project(id="site", repository="app", environment=environment, branch=branch, sync=SyncRules())


def spec(*projects: Project) -> Spec:
    return Spec(version=1, projects={f"{each.id} in {each.scope}": each for each in projects})


def test_one_of_several_has_to_be_named() -> None:
    staging, production = project("staging"), project("production")
    both = spec(staging, production)
    with pytest.raises(RequestRefused, match="site is in several environments") as refused:
        project_named(both, "site", "")
    assert refused.value.status == 409
    assert "production, staging" in str(refused.value)
    assert project_named(both, "site", "production") is production
    assert project_named(spec(staging), "site", "") is staging
    branch = project(None)
    assert project_named(spec(branch), "site", "") is branch
    for name, environment in (("site", "lab"), ("sit", "")):
        with pytest.raises(RequestRefused) as refused:
            project_named(both, name, environment)
        assert refused.value.status == 404


@pytest.mark.parametrize(
    ("suspended", "kept"),
    [
        ("projects/staging/site", True),
        ("projects/site", True),
        ("environments/staging", True),
        ("projects/production/site", False),
        ("projects/staging/site/web-1/srv+site", False),
    ],
)
def test_what_keeps_a_project_as_it_is(suspended: str, kept: bool) -> None:
    control = fold([record("suspend", 1, resource=suspended)])
    found = keeping(control, "projects/staging/site")
    assert (found is not None) == kept
    target = keeping(control, "projects/staging/site/web-1/srv+site")
    assert (target is not None) == (suspended != "projects/production/site")


def test_what_no_pass_would_do_again_is_not_tried_again() -> None:
    at = "2026-01-02T03:04:05.678+00:00"
    sync = TaskRecord("ab12", "projects/staging/site/web-1/srv+site", "web-1", "FAILED", at)
    install = TaskRecord("cd34", "nodes/web-1", "web-1", "FAILED", at)
    running = TaskRecord("ef56", sync.resource, "web-1", "RUNNING", at)
    require_retriable(sync)
    for task, says in ((install, "run `trueup node install` again"), (running, "the task is RUNNING")):
        with pytest.raises(RequestRefused, match=says) as refused:
            require_retriable(task)
        assert refused.value.status == 409
    assert [view.can_retry for view in tasks((sync, install, running), {})] == [True, False, False]
