"""Exports from one repository to another: what is judged, what is asked, how long is waited, what is said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from reconciler.github.client import GitHub
from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.export import Arrivals, ExportRefused, ExportTimeout, bring, export_secrets, look
from reconciler.github.export_work import Found, Route, State, due, judge, payloads, told
from reconciler.github.pace import Pace
from reconciler.github.scopes import EnvironmentScope, RepositoryScope, Scope, SecretMeta
from reconciler.secrets.values import Secret
from tests.canaries import canary
from tests.contracts.github_double import Fault, GitHubDouble

SOURCE, TARGET = "acme/devops", "acme/billing"
ROUTE = Route(SOURCE, RepositoryScope(TARGET))


# --- pure --------------------------------------------------------------------------------------


def test_each_name_is_judged_by_its_times() -> None:
    found = Found(
        own={"FINE": "2", "OLD": "1", "THEIRS": "9", "UNKNOWN": "1"},
        inherited={"SHARED": "1", "FINE": "1"},
        offered={"FINE": "2", "OLD": "2", "THEIRS": "1", "SHARED": "5", "GONE": "1"},
    )
    wanted = {name: name for name in ("FINE", "OLD", "THEIRS", "SHARED", "GONE", "UNKNOWN")}
    states = judge(wanted, found, owned={"THEIRS": "3", "FINE": "2"}, org_fallback=True)
    assert states == {
        "FINE": State.REPOSITORY,
        "OLD": State.OUTDATED,
        "THEIRS": State.FOREIGN,
        "SHARED": State.ORGANISATION,
        "GONE": State.MISSING,
        "UNKNOWN": State.REPOSITORY,
    }
    assert told(states, SOURCE) == "GONE missing, OLD newer in acme/devops, THEIRS changed by somebody else"
    assert judge({"SHARED": "SHARED"}, found, org_fallback=False) == {"SHARED": State.MISSING}


def test_a_group_is_exported_together() -> None:
    states = {"USER": State.REPOSITORY, "PASSWORD": State.OUTDATED, "KEY": State.REPOSITORY}
    assert due(states) == ("PASSWORD",)
    assert due(states, [("USER", "PASSWORD"), ("KEY",)]) == ("USER", "PASSWORD")


def test_the_request_has_the_documented_form() -> None:
    assert payloads(ROUTE, {"A": "A"}, ["A"]) == [{"secret_name": "A", "target_repo": TARGET}]
    route = Route(SOURCE, EnvironmentScope(TARGET, "prod"), source_environment="docs")
    assert payloads(route, {"A": "A", "CACHE_URL": "REDIS_URL", "B": "B"}, ["A", "CACHE_URL"]) == [
        {
            "secret_names": ["A", "REDIS_URL"],
            "target_repo": TARGET,
            "target_environment": "prod",
            "target_names": {"REDIS_URL": "CACHE_URL"},
            "source_environment": "docs",
        }
    ]


@given(st.dictionaries(st.integers(0, 400), st.integers(0, 300), max_size=250))
def test_requests_ask_for_each_name_once(wanted: dict[int, int]) -> None:
    names = {f"N{name}": f"K{key}" for name, key in wanted.items()}
    asked: dict[str, str] = {}
    for payload in payloads(ROUTE, names, list(names)):
        keys = payload.get("secret_names") or [payload["secret_name"]]
        assert len(set(keys)) == len(keys) <= 100
        for key in keys:
            name = payload.get("target_names", {}).get(key, key)
            assert name not in asked
            asked[name] = key
    assert asked == names


# --- waiting, by a clock that jumps --------------------------------------------------------------


@dataclass
class Site:
    """GitHub as far as exports go, in memory, where a workflow takes its time."""

    secrets: dict[str, dict[str, str]] = field(default_factory=lambda: {SOURCE: {}, TARGET: {}})
    takes: float = 12.0
    fails: list[Exception] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    requests: list[Mapping[str, Any]] = field(default_factory=list)
    on_export: Callable[[], None] = lambda: None
    runs: list[tuple[float, str]] = field(default_factory=list)

    async def list_secrets(self, scope: Scope) -> dict[str, SecretMeta]:
        assert isinstance(scope, RepositoryScope)
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        if scope.repo == TARGET:
            self.looks.append(now)
            if self.fails:
                raise self.fails.pop(0)
        for at, key in self.runs:
            if at <= now and key in self.secrets[SOURCE]:
                self.secrets[TARGET][key] = f"{at:06.1f}"
        return {name: SecretMeta(name, time) for name, time in self.secrets[scope.repo].items()}

    async def list_organization_secrets(self, repo: str) -> dict[str, SecretMeta]:
        await trio.lowlevel.checkpoint()
        raise GitHubRefused("no organisation", status=404)

    async def dispatch(self, repo: str, event_type: str, payload: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.requests.append(payload)
        keys = payload.get("secret_names") or [payload["secret_name"]]
        self.runs += [(trio.current_time() + self.takes, key) for key in keys]


@pytest.fixture
def site() -> Site:
    return Site()


async def run(site: Site, *names: str, **options: Any) -> dict[str, str]:
    before = {name: time for name, time in site.secrets[TARGET].items() if name in names}
    wanted = {name: name for name in names}
    return await export_secrets(site, site, ROUTE, wanted, before=before, **options)


async def test_the_target_is_polled_every_two_seconds(site: Site, autojump_clock: MockClock) -> None:
    site.secrets[SOURCE] = {"A": "0", "B": "0"}
    started = trio.current_time()
    assert set(await run(site, "A", "B")) == {"A", "B"}
    assert [at - started for at in site.looks] == [2, 4, 6, 8, 10, 12]
    assert len(site.requests) == 1


async def test_one_that_is_told_looks_at_once(site: Site, autojump_clock: MockClock) -> None:
    site.secrets[SOURCE] = {"A": "0"}
    site.takes = 3.0
    arrivals = Arrivals()
    started = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def tell() -> None:
            await trio.sleep(3.0)
            arrivals.tell("Acme/Devops")
            arrivals.tell("acme/other")

        await run(site, "A", arrivals=arrivals)
    assert trio.current_time() - started == 3.0
    arrivals.tell(SOURCE)  # nobody listens any more


async def test_what_does_not_come_ends_after_the_time_given(site: Site, autojump_clock: MockClock) -> None:
    site.secrets[SOURCE] = {"A": "0"}
    started = trio.current_time()
    with pytest.raises(ExportTimeout) as caught:
        await run(site, "A", "TYPO")
    assert trio.current_time() - started == 30.0
    assert len(site.looks) == 15
    assert str(caught.value).startswith("Timeout waiting for TYPO (not found after 30s)")
    assert "acme/devops has no secret TYPO" in str(caught.value)
    assert set(caught.value.arrived) == {"A"}


async def test_a_workflow_that_does_not_run_is_told_as_such(site: Site, autojump_clock: MockClock) -> None:
    site.secrets[SOURCE] = {"A": "0"}
    site.takes = 1000.0
    with pytest.raises(ExportTimeout, match=r"no run means that the workflow is not on the default branch"):
        await run(site, "A", patience=5.0)
    assert len(site.looks) == 3


async def test_what_is_there_has_come_when_its_time_moves(site: Site, autojump_clock: MockClock) -> None:
    site.secrets = {SOURCE: {"A": "9"}, TARGET: {"A": "000001.0"}}
    assert await run(site, "A") != {"A": "000001.0"}
    assert len(site.looks) == 6


async def test_a_look_that_fails_is_not_the_end(site: Site, autojump_clock: MockClock) -> None:
    site.secrets[SOURCE] = {"A": "0"}
    site.fails = [GitHubDown("away"), GitHubDown("away")]
    assert set(await run(site, "A")) == {"A"}
    site.fails = [GitHubRefused("no", status=403)]
    with pytest.raises(GitHubRefused):
        await run(site, "A")


# --- against the double ----------------------------------------------------------------------------


@pytest.fixture
async def double() -> AsyncIterator[GitHubDouble]:
    with GitHubDouble() as made:
        made.add(SOURCE, TARGET, f"{TARGET}#prod")
        made.add("acme")
        made.workflows.add(SOURCE)
        yield made


def client(double: GitHubDouble, token: str | None = None) -> GitHub:
    return GitHub(double.url, Secret(token or double.token), pace=Pace(0.0))


async def test_secrets_arrive_as_they_are_in_the_source(double: GitHubDouble) -> None:
    double.store(SOURCE, DB_USER=canary("user"), REDIS_URL=canary("redis"))
    double.export_after = 3
    route = Route(SOURCE, EnvironmentScope(TARGET, "prod"))
    wanted = {"DB_USER": "DB_USER", "CACHE_URL": "REDIS_URL"}
    async with client(double) as github:
        found = await look(github, github, route, organization=True)
        assert judge(wanted, found, org_fallback=True) == dict.fromkeys(wanted, State.MISSING)
        times = await export_secrets(github, github, route, wanted, before=found.own, poll=0.001)
        after = await look(github, github, route, organization=True)
    assert double.opened(f"{TARGET}#prod") == {"DB_USER": canary("user"), "CACHE_URL": canary("redis")}
    assert after.own == times
    assert len(double.dispatches) == 1


async def test_the_organisation_serves_as_a_fallback_on_both_ends(double: GitHubDouble) -> None:
    double.store("acme", SHARED=canary("shared"))
    async with client(double) as github:
        found = await look(github, github, ROUTE, organization=True)
    assert found.own == {}
    assert found.inherited.keys() == (found.offered or {}).keys() == {"SHARED"}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, "does not accept the token"),
        (403, "no right to dispatch"),
        (404, "not there or has no workflow export-secret.yml, or the token has no right"),
        (422, "does not accept the request"),
    ],
)
async def test_a_dispatch_that_fails_has_its_cause(double: GitHubDouble, status: int, cause: str) -> None:
    double.fail_with(Fault(status), on="dispatch")
    async with client(double) as github:
        with pytest.raises(ExportRefused, match=rf"Export dispatch failed \(http {status}\)") as caught:
            await export_secrets(github, github, ROUTE, {"A": "A"}, before={})
    assert cause in str(caught.value)
    assert caught.value.status == status
    assert caught.value.reason == "ExportRefused"


async def test_a_source_that_is_not_there(double: GitHubDouble) -> None:
    route = Route("acme/nowhere", RepositoryScope(TARGET))
    async with client(double) as github:
        with pytest.raises(ExportRefused, match=r"Export dispatch failed \(http 404\)"):
            await export_secrets(github, github, route, {"A": "A"}, before={})


async def test_an_organisation_that_cannot_be_asked_is_not_one_without_secrets(double: GitHubDouble) -> None:
    async with client(double) as github:
        for status, error in ((403, GitHubRefused), (500, GitHubDown)):
            double.fail_with(Fault(status), on="inherited")
            with pytest.raises(error, match=f"the organisation's secrets for {TARGET}: "):
                await look(github, None, ROUTE, organization=True)


async def test_the_repository_of_a_user_has_no_organisation(double: GitHubDouble) -> None:
    double.store(TARGET, OWN=canary("own"))
    double.fail_with(Fault(404), on="inherited", times=2)
    async with client(double) as github:
        found = await look(github, github, ROUTE, organization=True)
        assert found.own.keys() == {"OWN"}
        assert not found.inherited
        assert found.offered == {}
        route = Route("acme/nowhere", RepositoryScope(TARGET))
        with pytest.raises(GitHubRefused, match="acme/nowhere: not there"):
            await look(github, github, route, organization=False)


async def test_a_source_whose_organisation_cannot_be_looked_at_is_asked_all_the_same(
    double: GitHubDouble,
) -> None:
    double.store("acme", SHARED=canary("shared"))
    double.fail_with(Fault(403), on="inherited", times=2, place=SOURCE)
    async with client(double) as github:
        found = await look(github, github, ROUTE, organization=False)
        assert found.offered is None
        wanted = {"SHARED": "SHARED", "GONE": "GONE"}
        brought = await bring(github, github, ROUTE, wanted, found, patience=0.2, poll=0.001)
    assert double.opened(TARGET) == {"SHARED": canary("shared")}
    assert brought.arrived.keys() == {"SHARED"}
    assert isinstance(brought.failures["GONE"], ExportTimeout)
    assert "has no secret" not in (brought.failures["GONE"].hint or "")


async def test_a_name_that_vanishes_while_it_is_waited_for_has_not_come(
    double: GitHubDouble,
) -> None:
    double.store(TARGET, KEY=canary("old"))
    async with client(double) as github:
        found = await look(github, None, ROUTE, organization=False)
        del double.places[TARGET]["KEY"]
        double.workflows.clear()
        with pytest.raises(ExportTimeout, match="Timeout waiting for KEY") as caught:
            await export_secrets(
                github, github, ROUTE, {"KEY": "KEY"}, before=found.own, patience=0.05, poll=0.001
            )
    assert caught.value.arrived == {}
