"""Secrets that GitHub alone holds, exported by whole passes: real commands, the double, values compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bad_world import Case, make_case
from tests.canaries import canary
from tests.contracts.github_double import Fault, GitHubDouble

SOURCE, REPO, ORG = "acme/devops", "acme/billing", "acme"
TARGET = "targets/billing"

SPEC = """\
  devops: {kind: github_actions, repo: acme/devops, token: {env: DEVOPS_TOKEN}, org_fallback: true}
secret_targets:
  billing:
    kind: github_actions
    repo: acme/billing
    from: devops
    timeout: 30s
    keys: [API_KEY, {key: REDIS_URL, name: CACHE_URL}]
    groups: [[DB_USER, DB_PASSWORD]]
"""
VALUES = {"API_KEY": "api-1", "REDIS_URL": "redis-1", "DB_USER": "user-1", "DB_PASSWORD": "password-1"}
EXPORTED = {
    "API_KEY": canary("api-1"),
    "CACHE_URL": canary("redis-1"),
    "DB_PASSWORD": canary("password-1"),
    "DB_USER": canary("user-1"),
}
MISSING = "API_KEY, CACHE_URL, DB_USER, DB_PASSWORD missing"


@dataclass
class Exporting:
    case: Case
    double: GitHubDouble

    def source(self, **values: str) -> None:
        self.double.store(SOURCE, **{name: canary(value) for name, value in values.items()})

    def commit(self, spec: str = SPEC, services: str = "") -> None:
        self.case.commit(self.case.head + spec + services)

    async def reconcile(self, *arguments: str, expect: int = 0) -> Any:
        return (await self.case.reconcile(*arguments, expect=expect)).document

    async def plan(self) -> list[tuple[str, str]]:
        document = (await self.case.plan(expect=0)).document
        return [(step["action"], step["reason"]) for step in document["steps"]]

    def asked(self) -> list[list[str]]:
        """The names of each request so far."""
        payloads = (each.payload for each in self.double.dispatches)
        return [each.get("secret_names") or [each["secret_name"]] for each in payloads]


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Exporting]:
    async with make_case(tmp_path) as case:
        with GitHubDouble() as double:
            double.add(SOURCE, REPO, ORG)
            double.workflows.add(SOURCE)
            case.world.environment |= {"GITHUB_API_URL": double.url, "DEVOPS_TOKEN": double.token}
            made = Exporting(case, double)
            made.source(**VALUES)
            made.commit()
            yield made


async def test_what_is_missing_is_exported_by_one_request_and_then_left_alone(it: Exporting) -> None:
    assert await it.plan() == [("export", f"not applied yet: {MISSING}")]
    await it.reconcile()
    assert it.double.opened(REPO) == EXPORTED
    assert it.asked() == [["API_KEY", "REDIS_URL", "DB_USER", "DB_PASSWORD"]]
    assert it.case.ready(TARGET)[:2] == ("True", "ReconciliationSucceeded")
    assert it.case.status(TARGET)["owned"] == {
        name: stored.updated_at for name, stored in it.double.places[REPO].items()
    }
    again = await it.reconcile()
    assert (again["steps"], again["statusCommit"]) == ([], None)
    assert len(it.asked()) == 1


async def test_what_was_rotated_in_the_source_is_exported_again(it: Exporting) -> None:
    await it.reconcile()
    it.source(REDIS_URL="redis-2")
    assert await it.plan() == [("export", "drift: CACHE_URL newer in acme/devops")]
    await it.reconcile()
    assert it.asked()[1:] == [["REDIS_URL"]]
    assert it.double.opened(REPO) == {**EXPORTED, "CACHE_URL": canary("redis-2")}
    assert await it.plan() == []


async def test_a_group_is_exported_together(it: Exporting) -> None:
    await it.reconcile()
    it.source(DB_PASSWORD="password-2")
    await it.reconcile()
    assert it.asked()[1:] == [["DB_USER", "DB_PASSWORD"]]
    assert await it.plan() == []


async def test_what_is_there_already_is_not_exported(it: Exporting) -> None:
    it.double.store(REPO, API_KEY=canary("of-somebody"))
    it.double.store(ORG, CACHE_URL=canary("shared"))
    assert await it.plan() == [("export", "not applied yet: DB_USER, DB_PASSWORD missing")]
    await it.reconcile()
    assert it.asked() == [["DB_USER", "DB_PASSWORD"]]
    assert it.double.opened(REPO)["API_KEY"] == canary("of-somebody")
    assert sorted(it.case.status(TARGET)["owned"]) == ["DB_PASSWORD", "DB_USER"]
    assert await it.plan() == []


async def test_without_the_fallback_the_organisations_secret_does_not_count(it: Exporting) -> None:
    it.double.store(ORG, CACHE_URL=canary("shared"))
    it.commit(SPEC.replace(", org_fallback: true", ""))
    await it.reconcile()
    assert it.double.opened(REPO) == EXPORTED


async def test_what_somebody_deleted_or_overwrote_is_exported_again(it: Exporting) -> None:
    await it.reconcile()
    del it.double.places[REPO]["CACHE_URL"]
    it.double.store(REPO, API_KEY=canary("of-somebody"))
    assert await it.plan() == [("export", "drift: CACHE_URL missing, API_KEY changed by somebody else")]
    await it.reconcile()
    assert it.asked()[1:] == [["API_KEY", "REDIS_URL"]]
    assert it.double.opened(REPO) == EXPORTED
    assert await it.plan() == []


async def test_another_key_of_the_source_under_the_same_name(it: Exporting) -> None:
    await it.reconcile()
    it.source(OTHER_URL="other")
    it.double.store(REPO, CACHE_URL=canary("redis-1"))  # later than the other one
    await it.reconcile()
    it.commit(SPEC.replace("key: REDIS_URL", "key: OTHER_URL"))
    assert await it.plan() == [("export", "changed: secret CACHE_URL")]
    await it.reconcile()
    assert it.double.opened(REPO)["CACHE_URL"] == canary("other")
    assert await it.plan() == []


async def test_a_name_that_leaves_the_spec_is_removed_if_it_is_ours(it: Exporting) -> None:
    await it.reconcile()
    it.commit(SPEC.replace("keys: [API_KEY, ", "prune: owned\n    keys: ["))
    await it.reconcile()
    assert "API_KEY" not in it.double.opened(REPO)
    assert len(it.asked()) == 1
    assert await it.plan() == []


async def test_a_kill_while_waiting_is_completed_by_the_next_pass(it: Exporting) -> None:
    it.double.export_after = 10**6
    await it.case.world.kill_during(it.double.dispatched.wait, "reconcile")
    assert it.double.opened(REPO) == {}
    it.double.export_after = 0
    it.double.store(REPO, API_KEY=canary("api-1"))  # so far the workflow has come meanwhile
    assert await it.plan() == [("export", f"not applied yet: {MISSING.removeprefix('API_KEY, ')}")]
    await it.reconcile()
    assert it.asked()[1:] == [["REDIS_URL", "DB_USER", "DB_PASSWORD"]]
    assert it.double.opened(REPO) == EXPORTED
    assert await it.plan() == []


async def test_a_source_is_asked_once_for_all_its_targets(it: Exporting) -> None:
    repos = [f"acme/service-{number}" for number in range(5)]
    it.double.add(*repos)
    it.commit(
        SPEC
        + "".join(
            f"  t{number}: {{kind: github_actions, repo: {repo}, from: devops, keys: [API_KEY]}}\n"
            for number, repo in enumerate(repos)
        )
    )
    await it.plan()
    asked = [request.path for request in it.double.requests]
    assert asked.count(f"/repos/{SOURCE}/actions/secrets") == 1
    assert all(asked.count(f"/repos/{repo}/actions/secrets") == 1 for repo in repos)


async def test_half_a_group_is_incomplete_and_what_depends_on_it_waits(it: Exporting) -> None:
    del it.double.places[SOURCE]["DB_PASSWORD"]
    it.commit(
        services="services:\n  api:\n    repository: app\n    depends_on: [target/billing]\n"
        "    deploy: {kind: invoke, task: deploy}\n    environments: [staging]\n"
    )
    await it.reconcile(expect=4)
    status, reason, message = it.case.ready(TARGET)
    assert (status, reason) == ("False", "GroupIncomplete")
    assert "DB_USER in place and DB_PASSWORD not" in message
    assert "acme/devops has no secret DB_PASSWORD" in message
    assert it.case.deployed() == {}
    it.source(DB_PASSWORD="password-1")
    await it.reconcile()
    assert it.double.opened(REPO) == EXPORTED
    assert it.case.ready(TARGET)[0] == "True"
    assert it.case.deployed() == {"api": ["v1.0.0"]}


@pytest.mark.parametrize(
    ("on", "place", "status", "reason"),
    [
        ("list", REPO, 500, "GitHubUnavailable"),
        ("list", SOURCE, 500, "GitHubUnavailable"),
        ("list", SOURCE, 404, "GitHubRefused"),
        ("inherited", REPO, 500, "GitHubUnavailable"),
    ],
)
async def test_could_not_look_is_not_missing(
    it: Exporting, on: Any, place: str, status: int, reason: str
) -> None:
    it.double.fail_with(Fault(status), on=on, place=place, times=3)
    document = (await it.case.plan("--detailed-exitcode", expect=1)).document
    assert [step["action"] for step in document["steps"]] == []
    [finding] = [each for each in document["findings"] if each["resource"] == TARGET]
    assert (finding["reason"], finding["unknown"]) == (reason, True)
    assert it.asked() == []


async def test_a_dispatch_that_is_refused_says_why(it: Exporting) -> None:
    it.double.fail_with(Fault(404), on="dispatch")
    await it.reconcile(expect=4)
    status, reason, message = it.case.ready(TARGET)
    assert (status, reason) == ("False", "ExportRefused")
    assert message.startswith("Export dispatch failed (http 404): acme/devops: it is not there or has no")


async def test_a_secret_that_does_not_come_says_why(it: Exporting) -> None:
    it.double.workflows.clear()
    it.commit(SPEC.replace("timeout: 30s", "timeout: 50ms").replace("groups:", "# groups:"))
    await it.reconcile(expect=4)
    status, reason, message = it.case.ready(TARGET)
    assert (status, reason) == ("False", "ExportTimeout")
    assert message.startswith("Timeout waiting for API_KEY, CACHE_URL (not found after 0.05s); see")
    it.double.workflows.add(SOURCE)
    await it.reconcile("--force", TARGET)
    assert set(it.double.opened(REPO)) == {"API_KEY", "CACHE_URL"}


async def test_without_a_token(it: Exporting) -> None:
    del it.case.world.environment["DEVOPS_TOKEN"]
    document = (await it.case.plan("--detailed-exitcode", expect=1)).document
    [finding] = [each for each in document["findings"] if each["resource"] == TARGET]
    assert finding["reason"] == "SettingsInvalid"
    assert "the variable DEVOPS_TOKEN is not set" in finding["message"]


async def test_an_organisation_is_no_target_of_an_export(it: Exporting) -> None:
    it.commit(SPEC.replace("    repo: acme/billing\n", "    org: acme\n    visibility: all\n"))
    ran = await it.case.reconcile(expect=3)
    assert "is exported to repositories only" in ran.stderr


async def test_a_source_that_is_not_enabled_is_left_alone(it: Exporting) -> None:
    it.commit(SPEC.replace("kind: github_actions,", "kind: github_actions, enabled: false,", 1))
    await it.reconcile(expect=0)
    assert it.asked() == []
    assert it.case.ready(TARGET)[:2] == ("False", "Suspended")
