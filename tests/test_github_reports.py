"""Releases told to GitHub by whole passes: once, never at the price of the pass, again after an outage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.primary import open_primary
from reconciler.reconcile import prepare
from reconciler.settings import load_settings
from tests.bad_world import BOTH, Case, make_case
from tests.contracts.github_double import Fault, GitHubDouble

ENVIRONMENT = "environments/staging"


@pytest.fixture
def double() -> Iterator[GitHubDouble]:
    with GitHubDouble() as double:
        double.add("acme/app")
        yield double


def use_github(case: Case, double: GitHubDouble, options: str = "repo: acme/app, token: {env: TOLD}") -> None:
    case.world.environment |= {"GITHUB_API_URL": double.url, "TOLD": double.token}
    case.head = case.head.replace("branch: main}", f"branch: main, github: {{{options}}}}}")
    case.commit(case.good)


def reported(case: Case) -> str:
    said = case.status(ENVIRONMENT)["units"]["app"]["release"].get("reported", "")
    assert isinstance(said, str)
    return said


def states(double: GitHubDouble) -> list[str]:
    return [body["state"] for _, _, body in double.statuses]


async def test_a_release_is_told_once(tmp_path: Path, double: GitHubDouble) -> None:
    async with make_case(tmp_path) as case:
        use_github(case, double)
        await case.reconcile(expect=0)
        repo, commit, body = double.statuses[-1]
        assert (repo, commit) == ("acme/app", case.world.app.resolve("refs/tags/v1.0.0^{commit}"))
        assert body["context"] == "trueup/staging"
        assert reported(case) == states(double)[-1]
        many = len(double.statuses)
        again = await case.reconcile(expect=0)
        assert (again.document["statusCommit"], len(double.statuses)) == (None, many)


async def test_how_a_release_ended_is_told(tmp_path: Path, double: GitHubDouble) -> None:
    async with make_case(tmp_path) as case:
        use_github(case, double)
        case.commit(case.good.replace("task: deploy}", "task: nothing}"))
        await case.reconcile(expect=4)
        assert states(double)[-1] == "failure"
        case.commit(case.good)
        await case.reconcile(expect=0)
        assert states(double)[-1] == "success"
        assert double.releases.get("acme/app", {}) == {}, "nobody has promoted it"


async def test_a_promotion_is_told_and_becomes_a_release_at_github(
    tmp_path: Path, double: GitHubDouble
) -> None:
    async with make_case(tmp_path) as case:
        case.head = case.head.replace(
            "environments:\n", "environments:\n  production: {release: {promote_from: staging}}\n", 1
        )
        use_github(case, double)
        case.commit(case.good.replace("[staging]", "[staging, production]"))
        await case.reconcile(expect=0)
        double.tags["acme/app"] = {"v1.1.0"}  # as GitHub has what is pushed to it
        await case.world.trueup("promote", "staging", "production", "--confirm", "deploy")
        await case.reconcile(expect=0)
        told = {body["context"]: (commit, body["state"]) for _, commit, body in double.statuses}
        commit = case.world.app.resolve("refs/tags/v1.1.0^{commit}")
        assert told["trueup/production"] == (commit, "success")
        [(tag, made)] = double.releases["acme/app"].items()
        assert tag == "v1.1.0"
        assert "v1.0.0" in made["body"], "it says where it comes from"


async def test_an_outage_of_github_fails_nothing_and_is_made_up_for(
    tmp_path: Path, double: GitHubDouble
) -> None:
    async with make_case(tmp_path) as case:
        use_github(case, double)
        double.fail_with(Fault(503), on="status")
        ran = await case.reconcile(expect=0)
        assert "GitHub was not told of a release" in ran.stderr
        assert (case.deployed(), states(double), reported(case)) == (BOTH, [], "")
        await case.reconcile(expect=0)
        assert reported(case) == states(double)[-1]


async def test_who_does_not_lead_tells_nothing(tmp_path: Path, double: GitHubDouble) -> None:
    async with make_case(tmp_path) as case:
        use_github(case, double)
        double.fail_with(Fault(503), on="status")
        await case.reconcile(expect=0)
        settings = load_settings(case.world.environment, root=False)
        async with open_primary(settings, standing=True) as primary:
            spec = (await prepare(primary, patience=None)).spec.spec
            await primary.github_reports(spec).tell(spec, primary.status)
            assert double.statuses == []
        await case.reconcile(expect=0)
        assert states(double)[-1] == "success"


async def test_what_github_refuses_of_one_release_holds_up_no_other(
    tmp_path: Path, double: GitHubDouble
) -> None:
    async with make_case(tmp_path) as case:
        case.head = case.head.replace(
            "environments:\n", "environments:\n  quiet: {release: {from: main, cut: external}}\n", 1
        )
        use_github(case, double)
        case.commit(case.good.replace("[staging]", "[quiet, staging]"))
        double.fail_with(Fault(422), on="status")
        ran = await case.reconcile(expect=0)
        assert "GitHub was not told of a release" in ran.stderr
        assert [body["context"] for _, _, body in double.statuses] == ["trueup/staging"]


async def test_without_a_token_nothing_fails(tmp_path: Path, double: GitHubDouble) -> None:
    async with make_case(tmp_path) as case:
        use_github(case, double, "repo: acme/app")
        ran = await case.reconcile(expect=0)
        assert "No auth token (GH_PAT or GITHUB_TOKEN) available for acme/app" in ran.stderr
        assert (case.deployed(), double.requests) == (BOTH, [])
