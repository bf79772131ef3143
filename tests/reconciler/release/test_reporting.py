"""What GitHub is told of releases: each change once, and nothing of what is not its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from reconciler.release.reporting import Report, what_to_report, with_reported
from reconciler.spec.load import SPEC_FILE, load, load_or_raise
from reconciler.status.documents import EnvironmentStatus, Recorded, Release, UnitStatus

NOW = datetime(2026, 3, 4, tzinfo=UTC)
SPEC = """\
version: 1
repositories:
  app: {url: "git@github.com:acme/app.git", github: {OPTIONS}}
  infra:
    url: git@git.example.org:infra
    github: {repo: acme/infra}
    units: {web: {}}
  quiet: {url: "git@github.com:acme/quiet.git"}
environments:
  staging: {release: {cut: external}}
  production: {release: {promote_from: staging}}
"""


def release(tag: str = "v1.0.0", **fields: Any) -> Release:
    plain = Release(tag=tag, commit="a" * 40, recorded_at=NOW)
    return msgspec.structs.replace(plain, **fields)


def recorded(environment: str, current: Release, *before: Release, unit: str = "app") -> Recorded:
    status = EnvironmentStatus(
        id=f"environments/{environment}", units={unit: UnitStatus(release=current, history=before)}
    )
    return Recorded().put(status)


def reports(known: Recorded, options: str = "") -> list[Report]:
    return what_to_report(load_or_raise({SPEC_FILE: SPEC.replace("OPTIONS", options).encode()}), known)


def told(known: Recorded) -> Recorded:
    done = [(each, each.told(released=each.github_release is not None)) for each in reports(known)]
    return with_reported(known, done)


@pytest.mark.parametrize(
    ("outcome", "state", "description"),
    [
        ("", "pending", "v1.0.0 is on its way to staging"),
        ("succeeded", "success", "v1.0.0 runs in staging"),
        ("failed", "failure", "v1.0.0 failed in staging: DeployFailed"),
    ],
)
def test_the_status_of_a_commit(outcome: str, state: str, description: str) -> None:
    (report,) = reports(recorded("staging", release(outcome=outcome, reason="DeployFailed")))
    assert report.status is not None
    assert (report.status.commit, report.status.state) == ("a" * 40, state)
    assert (report.status.context, report.status.description) == ("trueup/staging", description)
    assert report.github_release is None


def test_units_of_one_repository_have_a_status_each() -> None:
    (report,) = reports(recorded("staging", release("web/v1.0.0"), unit="infra/web"))
    assert report.status is not None and report.status.context == "trueup/staging/web"


def test_a_long_reason_is_cut() -> None:
    (report,) = reports(recorded("staging", release(outcome="failed", reason="x" * 300)))
    assert report.status is not None and len(report.status.description) == 140


def test_each_change_is_told_once() -> None:
    known = told(recorded("staging", release()))
    assert reports(known) == []
    current = known.environments["environments/staging"].units["app"].release
    assert current.reported == "pending"
    ended = msgspec.structs.replace(current, outcome="succeeded", ended_at=NOW)
    known = recorded("staging", ended)
    assert [each.status.state for each in reports(known) if each.status] == ["success"]
    assert reports(told(known)) == []


def test_a_promoted_release_that_succeeded_becomes_a_github_release() -> None:
    promoted = release(
        "v1.3.0",
        kind="promotion",
        promoted_from="v1.2.7",
        previous="b" * 40,
        triggered_by="promote by ann",
        outcome="succeeded",
    )
    (report,) = reports(recorded("production", promoted))
    assert report.github_release is not None
    assert report.github_release.tag == "v1.3.0"
    assert report.github_release.body == (
        f"Runs in `production`.\n\nCommits: {'b' * 40}...{'a' * 40}\n\n"
        "Promoted from: v1.2.7\n\nTriggered by: promote by ann\n"
    )


@pytest.mark.parametrize(
    ("environment", "fields"),
    [
        ("staging", {"outcome": "succeeded"}),
        ("production", {"outcome": ""}),
        ("production", {"outcome": "failed"}),
        ("production", {"outcome": "succeeded", "kind": "rollback"}),
        ("production", {"outcome": "succeeded", "reported": "success release"}),
    ],
)
def test_what_becomes_no_github_release(environment: str, fields: dict[str, str]) -> None:
    assert not any(each.github_release for each in reports(recorded(environment, release(**fields))))


def test_a_github_release_that_could_not_be_made_is_tried_again() -> None:
    known = recorded("production", release(outcome="succeeded"))
    known = with_reported(known, [(each, each.told(released=False)) for each in reports(known)])
    (report,) = reports(known)
    assert report.status is None and report.github_release is not None


def test_a_release_that_was_given_up_in_the_same_pass_is_told_as_failed() -> None:
    failed = release("v2.0.0", outcome="failed", recorded_at=NOW + timedelta(minutes=1))
    known = recorded("staging", release("v1.0.0", outcome="succeeded", reported="success"), failed)
    assert [(each.release.tag, each.status.state) for each in reports(known) if each.status] == [
        ("v2.0.0", "failure")
    ]
    assert reports(told(known)) == []


def test_what_another_pass_has_replaced_meanwhile_is_left_alone() -> None:
    known = recorded("staging", release("v1.0.0", outcome="succeeded"))
    said = [(each, each.told(released=False)) for each in reports(known)]
    newer = recorded("staging", release("v1.0.1"))
    assert with_reported(newer, said) == newer


def test_what_is_switched_off_or_not_asked_for() -> None:
    known = recorded("production", release(outcome="succeeded"))
    (report,) = reports(known, "releases: false")
    assert report.status is not None and report.github_release is None
    (report,) = reports(known, "commit_status: false")
    assert report.status is None and report.github_release is not None
    assert reports(known, "releases: false, commit_status: false") == []
    assert reports(recorded("staging", release(), unit="quiet")) == []
    assert reports(recorded("staging", release(), unit="gone")) == []


@pytest.mark.parametrize(
    ("url", "repo"),
    [
        ("git@github.com:acme/app.git", "acme/app"),
        ("https://github.com/acme/app", "acme/app"),
        ("ssh://git@github.com/acme/app.git", "acme/app"),
        ("https://github.com.example.org/acme/app", None),
        ("git@git.example.org:acme/app.git", None),
    ],
)
def test_the_name_at_github_is_in_its_address(url: str, repo: str | None) -> None:
    text = f"version: 1\nrepositories:\n  app: {{url: '{url}', github: {{}}}}\n"
    loaded = load({SPEC_FILE: text.encode()})
    if repo is None:
        assert ["`repo` is missing" in problem.message for problem in loaded.problems] == [True]
    else:
        assert loaded.spec is not None and loaded.problems == ()
        github = loaded.spec.repositories["app"].github
        assert github is not None and github.repo == repo


def test_a_token_that_belongs_to_an_environment_is_refused() -> None:
    text = SPEC.replace("OPTIONS", "token: {secret: vault/TOKEN}")
    assert any("name a variable" in problem.message for problem in load({SPEC_FILE: text.encode()}).problems)
