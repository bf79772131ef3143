"""What the reconciler relies on at GitHub, against the double, and against the real one if a token is named.

For the real one set these variables; the suite writes a name of its own in that repository, and removes it.

    GITHUB_TEST_TOKEN      with the right to read and write the repository's Actions secrets
    GITHUB_TEST_REPO       owner/name
    GITHUB_TEST_API_URL    https://api.github.com unless set

An export is tried where these are set too; the token then needs the right to dispatch to the source.

    GITHUB_TEST_SOURCE_REPO    owner/name, with examples/github/export-secret.yml and its EXPORT_TOKEN
    GITHUB_TEST_COMMIT, GITHUB_TEST_TAG   of that repository: they get a status and a GitHub Release that stay
    GITHUB_TEST_SOURCE_SECRET  a secret of that repository, which is copied into GITHUB_TEST_REPO and removed
"""

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from reconciler.github.client import DEFAULT_API, GitHub
from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.export import POLL, ExportRefused, export_secrets, look
from reconciler.github.export_work import Route
from reconciler.github.pace import Pace
from reconciler.github.scopes import OrganizationScope, RepositoryScope
from reconciler.secrets.values import Secret
from tests.canaries import canary
from tests.contracts.github_double import Fault, GitHubDouble, slow_down

REPO = "acme/app"


@dataclass
class Place:
    url: str
    token: str
    repo: str
    double: GitHubDouble | None = None

    def github(self, token: str | None = None) -> GitHub:
        return GitHub(self.url, Secret(token or self.token), pace=Pace(0.0))


@pytest.fixture(params=["double", "real"] if "GITHUB_TEST_TOKEN" in os.environ else ["double"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "double":
        with GitHubDouble() as double:
            double.add(REPO)
            yield Place(double.url, double.token, REPO, double)
        return
    yield Place(
        os.environ.get("GITHUB_TEST_API_URL", DEFAULT_API),
        os.environ["GITHUB_TEST_TOKEN"],
        os.environ["GITHUB_TEST_REPO"],
    )


async def test_a_secret_is_written_listed_and_deleted(place: Place) -> None:
    scope = RepositoryScope(place.repo)
    name = f"TRUEUP_TEST_{uuid.uuid4().hex[:12].upper()}"
    async with place.github() as github:
        key = await github.public_key(scope)
        assert len(key.key) == 32
        await github.put_secret(scope, name, Secret(canary("pushed")), key)
        try:
            first = (await github.list_secrets(scope))[name]
            assert first.updated_at
        finally:
            await github.delete_secret(scope, name)
        assert name not in await github.list_secrets(scope)
        await github.delete_secret(scope, name)  # gone already: no error


async def test_a_name_that_github_keeps_for_itself_is_refused(place: Place) -> None:
    scope = RepositoryScope(place.repo)
    async with place.github() as github:
        key = await github.public_key(scope)
        with pytest.raises(GitHubRefused, match=r"does not accept the request \(http 422\)"):
            await github.put_secret(scope, "GITHUB_X", Secret(canary("pushed")), key)


async def test_a_repository_that_is_not_there_is_refused_and_not_empty(place: Place) -> None:
    async with place.github() as github:
        with pytest.raises(GitHubRefused, match=r"not there, or .* \(http 404\)"):
            await github.list_secrets(RepositoryScope(f"{place.repo}-{uuid.uuid4().hex[:8]}"))


async def test_a_wrong_token_is_refused(place: Place) -> None:
    async with place.github(canary("wrong")) as github:
        with pytest.raises(GitHubRefused, match=r"does not accept the token \(http 401\)"):
            await github.list_secrets(RepositoryScope(place.repo))


async def test_a_repository_has_an_id(place: Place) -> None:
    async with place.github() as github:
        assert await github.repository_id(place.repo) > 0


async def test_a_commit_has_a_status_and_a_tag_its_release(place: Place) -> None:
    """At GitHub itself both stay: GITHUB_TEST_COMMIT and GITHUB_TEST_TAG say which ones may be used."""
    commit, tag = os.environ.get("GITHUB_TEST_COMMIT", "a" * 40), os.environ.get("GITHUB_TEST_TAG", "web/v1")
    if place.double is not None:
        place.double.tags[place.repo] = {tag}
    elif "GITHUB_TEST_COMMIT" not in os.environ or "GITHUB_TEST_TAG" not in os.environ:
        pytest.skip("GITHUB_TEST_COMMIT and GITHUB_TEST_TAG are not set")
    async with place.github() as github:
        for state in ("pending", "success"):
            await github.set_commit_status(
                place.repo, commit, state=state, context="trueup/test", description="a test"
            )
        await github.create_release(place.repo, tag, name=tag, body="a test")
        assert not await github.create_release(place.repo, tag, name=tag, body="another one")
        with pytest.raises(GitHubRefused, match="GitHub has no such tag"):
            await github.create_release(place.repo, f"no-such-{uuid.uuid4().hex[:8]}", name="x", body="x")


# --- what only the double can be made to do ----------------------------------------------------


@pytest.fixture
def double() -> object:
    with GitHubDouble() as double:
        double.add(REPO)
        yield double


def client(double: GitHubDouble, patience: float = 30.0) -> GitHub:
    return GitHub(double.url, Secret(double.token), pace=Pace(0.0), patience=patience)


async def test_a_release_that_somebody_else_makes_at_once_is_none_of_ours(double: GitHubDouble) -> None:
    double.tags[REPO] = {"v1"}
    async with client(double) as github:
        assert await github.create_release(REPO, "v1", name="v1", body="first")
        double.fail_with(Fault(404), on="find")  # as it was when we looked
        assert not await github.create_release(REPO, "v1", name="v1", body="second")
    assert double.releases[REPO]["v1"]["body"] == "first"


async def test_a_release_that_github_refuses_is_an_error(double: GitHubDouble) -> None:
    double.tags[REPO] = {"v1"}
    double.fail_with(Fault(422), on="release")
    async with client(double) as github:
        with pytest.raises(GitHubRefused, match=r"release v1: GitHub does not accept the request"):
            await github.create_release(REPO, "v1", name="v1", body="")


async def test_values_arrive_sealed_and_open_to_what_they_were(double: GitHubDouble) -> None:
    value = f"{canary('sealed')}\nline two – grüße"
    scope = RepositoryScope(REPO)
    async with client(double) as github:
        await github.put_secret(scope, "KEY", Secret(value), await github.public_key(scope))
    assert double.opened(REPO) == {"KEY": value}


async def test_long_lists_are_read_to_their_end(double: GitHubDouble) -> None:
    double.store(REPO, **{f"KEY_{number:03}": "x" for number in range(230)})
    async with client(double) as github:
        assert len(await github.list_secrets(RepositoryScope(REPO))) == 230


async def test_a_list_that_ends_early_is_no_list(double: GitHubDouble) -> None:
    double.fail_with(Fault(200, body=b'{"total_count": 7, "secrets": []}'), on="list")
    async with client(double) as github:
        with pytest.raises(GitHubDown, match="named 0 of 7 secrets"):
            await github.list_secrets(RepositoryScope(REPO))


@pytest.mark.parametrize("status", [403, 429])
async def test_a_rate_limit_is_waited_for(double: GitHubDouble, status: int) -> None:
    double.fail_with(slow_down(1, status), on="list")
    async with client(double) as github:
        assert await github.list_secrets(RepositoryScope(REPO)) == {}
    assert len(double.requests) == 2


async def test_a_rate_limit_that_asks_for_too_long_is_an_outage_that_says_how_long(
    double: GitHubDouble,
) -> None:
    double.fail_with(slow_down(600), on="list")
    async with client(double, patience=30.0) as github:
        with pytest.raises(GitHubDown, match="asks to slow down") as raised:
            await github.list_secrets(RepositoryScope(REPO))
    assert raised.value.retry_after == 600.0
    assert len(double.requests) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(500), GitHubDown, "has a fault (http 500)"),
        (Fault(403), GitHubRefused, "the token has no right to this (http 403)"),
        (
            Fault(301, (("Location", "https://example.org/"),)),
            GitHubRefused,
            "redirects or refuses (http 301)",
        ),
        (Fault(200, body=b"<html>sign in"), GitHubDown, "not what GitHub's API answers"),
        (Fault(200, body=b'{"secrets": "many"}'), GitHubDown, "not what GitHub's API answers"),
        (Fault(200, body=b"[]"), GitHubDown, "not what GitHub's API answers"),
    ],
)
async def test_other_answers(double: GitHubDouble, fault: Fault, kind: type[Exception], said: str) -> None:
    double.fail_with(fault, on="list")
    async with client(double) as github:
        with pytest.raises(kind) as raised:
            await github.list_secrets(RepositoryScope(REPO))
    assert said in str(raised.value)


async def test_nothing_listens(double: GitHubDouble) -> None:
    async with GitHub("http://127.0.0.1:1", Secret(double.token)) as github:
        with pytest.raises(GitHubDown, match="it cannot be reached"):
            await github.list_secrets(RepositoryScope(REPO))


async def test_a_token_is_sent_over_https_or_to_this_machine_alone() -> None:
    with pytest.raises(GitHubRefused, match="plain http"):
        async with GitHub("http://192.0.2.1", Secret(canary("token"))):
            pass


async def test_an_organisations_secret_needs_a_visibility(double: GitHubDouble) -> None:
    double.add("acme")
    scope = OrganizationScope("acme")
    async with client(double) as github:
        key = await github.public_key(scope)
        with pytest.raises(GitHubRefused, match="needs a visibility"):
            await github.put_secret(scope, "KEY", Secret(canary("org")), key)
        ids = [await github.repository_id(REPO)]
        await github.put_secret(
            scope, "KEY", Secret(canary("org")), key, visibility="selected", selected_repository_ids=ids
        )
        assert (await github.list_secrets(scope))["KEY"].visibility == "selected"
        assert set(await github.list_organization_secrets(REPO)) == {"KEY"}
    assert double.places["acme"]["KEY"].repositories == tuple(ids)


async def test_a_value_that_is_too_large_is_not_sent(double: GitHubDouble) -> None:
    scope = RepositoryScope(REPO)
    async with client(double) as github:
        key = await github.public_key(scope)
        with pytest.raises(GitHubRefused, match="larger than GitHub takes"):
            await github.put_secret(scope, "KEY", Secret("x" * 50_000), key)
    assert double.writes() == []


async def test_an_export_that_is_asked_for_arrives(place: Place) -> None:
    if isinstance(place.double, GitHubDouble):
        source, name = "acme/devops", "HANDED_OVER"
        place.double.store(source, **{name: canary("handed-over")})
        place.double.workflows.add(source)
    elif "GITHUB_TEST_SOURCE_REPO" in os.environ:
        source, name = os.environ["GITHUB_TEST_SOURCE_REPO"], os.environ["GITHUB_TEST_SOURCE_SECRET"].upper()
    else:
        pytest.skip("GITHUB_TEST_SOURCE_REPO and GITHUB_TEST_SOURCE_SECRET are not set")
    route = Route(source, RepositoryScope(place.repo))
    async with place.github() as github:
        found = await look(github, github, route, organization=True)
        assert name in (found.offered or {})
        often = POLL if place.double is None else 0.01
        times = await export_secrets(
            github, github, route, {name: name}, before=found.own, patience=120, poll=often
        )
        after = await look(github, github, route, organization=True)
        assert after.own[name] == times[name] >= (after.offered or {})[name]
        await github.delete_secret(route.target, name)


async def test_a_dispatch_to_a_repository_that_is_not_there_is_refused(place: Place) -> None:
    route = Route(f"{place.repo}-{uuid.uuid4().hex[:8]}", RepositoryScope(place.repo))
    async with place.github() as github:
        with pytest.raises(ExportRefused, match=r"Export dispatch failed \(http 404\)"):
            await export_secrets(github, github, route, {"A": "A"}, before={})
