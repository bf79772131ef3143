"""The store: one call for many readers, the cache, old values, fallbacks, and what status may say of it."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.errors import SettingsError
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from reconciler.spec.model import EnvCredential, GithubActionsSettings, SecretCredential, SecretSource
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import (
    NOW,
    context_for,
    env_file,
    environ,
    infisical,
    store_of,
    write_env_file,
)

MockClock = trio.testing.MockClock
VALUE = canary("store")


@pytest.fixture
def filled(double: InfisicalDouble) -> InfisicalDouble:
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    return double


def plain(values: Mapping[str, SecretValue]) -> dict[str, str]:
    return {name: value.value.reveal() for name, value in values.items()}


def provenance(values: Mapping[str, SecretValue]) -> tuple[str, str, bool, bool, bool]:
    (value,) = values.values()
    assert value.retrieved_at == NOW
    assert value.environment == "production"
    assert value.key == "KEY"
    return value.source, value.origin, value.is_cached, value.is_stale, value.is_fallback


def lines(caplog: pytest.LogCaptureFixture, phrase: str) -> list[str]:
    return [message for message in caplog.messages if phrase in message]


# --- fresh and cached --------------------------------------------------------------------------


async def test_fresh_then_cached_then_fresh_again(
    filled: InfisicalDouble, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reconciler.secrets")
    store = store_of(context_for(filled), infisical(filled, cache_ttl=60.0))
    values = await store.values("prod", "production")
    assert plain(values) == {"KEY": VALUE}
    assert provenance(values) == ("infisical", "prod", False, False, False)
    mock_clock.jump(59)
    for _ in range(3):
        assert provenance(await store.values("prod", "production")) == ("cache", "prod", True, False, False)
    mock_clock.jump(1)
    assert provenance(await store.values("prod", "production")) == (
        "infisical",
        "prod",
        False,
        False,
        False,
    )
    assert filled.calls("list") == 2
    assert caplog.messages == [
        "[Infisical] Fetching fresh secrets: source prod",
        "[Infisical] Using cached secrets: source prod",
        "[Infisical] Fetching fresh secrets: source prod",
    ]


async def test_no_cache_with_a_ttl_of_nothing(filled: InfisicalDouble, mock_clock: MockClock) -> None:
    store = store_of(context_for(filled), infisical(filled, cache_ttl=0.0))
    for _ in range(2):
        assert provenance(await store.values("prod", "production"))[0] == "infisical"
    assert filled.calls("list") == 2


async def test_a_hundred_readers_make_one_call(filled: InfisicalDouble) -> None:
    filled.fail_with(faults.held())
    store = store_of(context_for(filled), infisical(filled, cache_ttl=0.0))
    found: list[Mapping[str, SecretValue]] = []

    async def read() -> None:
        found.append(await store.values("prod", "production"))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        filled.release()
    assert len(found) == 100
    assert all(plain(values) == {"KEY": VALUE} for values in found)
    assert (filled.calls("login"), filled.calls("list")) == (1, 1)


async def test_a_hundred_readers_share_one_failure(filled: InfisicalDouble) -> None:
    filled.fail_with(faults.server_error(), times=100)
    store = store_of(context_for(filled), infisical(filled))
    failures: list[SourceDown] = []

    async def read() -> None:
        with pytest.raises(SourceDown) as caught:
            await store.values("prod", "production")
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read)
    assert len(failures) == 100
    assert filled.calls("list") == 1


async def test_a_cancelled_reader_leaves_the_others_their_answer(filled: InfisicalDouble) -> None:
    filled.fail_with(faults.held())
    store = store_of(context_for(filled), infisical(filled))
    found: list[Mapping[str, SecretValue]] = []
    first = trio.CancelScope()

    async def read(scope: trio.CancelScope) -> None:
        with scope:
            found.append(await store.values("prod", "production"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        filled.release()
    assert [plain(values) for values in found] == [{"KEY": VALUE}]


async def test_sources_and_environments_with_one_question_share_a_call(filled: InfisicalDouble) -> None:
    filled.secrets[filled.project, "prod", "/other"] = {"KEY": "other"}
    store = store_of(
        context_for(filled),
        infisical(filled, "one"),
        infisical(filled, "two", host=f"{filled.url}/api", cache_ttl=30.0),
        infisical(filled, "three", secret_path="/other"),
    )
    assert (await store.values("one", "production"))["KEY"].environment == "production"
    assert (await store.values("one", "staging"))["KEY"].environment == "staging"
    assert (await store.values("two", "production"))["KEY"].origin == "two"
    assert filled.calls("list") == 1
    assert plain(await store.values("three", "production")) == {"KEY": "other"}
    assert (filled.calls("login"), filled.calls("list")) == (1, 2)


async def test_refresh_and_clear(filled: InfisicalDouble, mock_clock: MockClock) -> None:
    store = store_of(context_for(filled), infisical(filled))
    await store.values("prod", "production")
    filled.secrets[filled.project, "prod", "/"] = {"KEY": "new"}
    assert plain(await store.values("prod", "production")) == {"KEY": VALUE}
    refreshed = await store.refresh("prod", "production")
    assert (plain(refreshed), provenance(refreshed)[0]) == ({"KEY": "new"}, "infisical")
    filled.secrets[filled.project, "prod", "/"] = {"KEY": "newer"}
    store.clear_cache()
    assert plain(await store.values("prod", "production")) == {"KEY": "newer"}
    filled.fail_with(faults.server_error())
    store.clear_cache()
    with pytest.raises(SourceDown):
        await store.values("prod", "production")


async def test_clearing_one_source_leaves_the_others(filled: InfisicalDouble, tmp_path: Path) -> None:
    filled.secrets[filled.project, "prod", "/other"] = {"KEY": "other"}
    store = store_of(
        context_for(filled),
        infisical(filled, "one"),
        infisical(filled, "two", secret_path="/other"),
        infisical(filled, "unused", secret_path="/unused"),
    )
    for source in ("one", "two"):
        await store.values(source, "production")
    assert store.clear_cache("unused") == 0
    assert store.clear_cache("one") == 1
    assert provenance(await store.values("two", "production"))[0] == "cache"
    assert provenance(await store.values("one", "production"))[0] == "infisical"
    assert store.clear_cache() == 2
    assert store.clear_cache() == 0
    with pytest.raises(SourceRefused, match="there is no secret source other"):
        store.clear_cache("other")


async def test_a_ttl_for_one_call(filled: InfisicalDouble, mock_clock: MockClock) -> None:
    store = store_of(context_for(filled), infisical(filled, cache_ttl=60.0))
    await store.values("prod", "production")
    mock_clock.jump(30)
    assert provenance(await store.values("prod", "production", ttl=31))[0] == "cache"
    assert provenance(await store.values("prod", "production", ttl=30))[0] == "infisical"
    assert provenance(await store.values("prod", "production", ttl=0))[0] == "infisical"
    mock_clock.jump(3599)
    assert provenance(await store.values("prod", "production", ttl=3600))[0] == "cache"
    assert filled.calls("list") == 3
    for wrong in (-1.0, 3600.1, float("nan")):
        with pytest.raises(SettingsError, match="give 0 to 3600 seconds"):
            await store.values("prod", "production", ttl=wrong)


async def test_a_refresh_does_not_join_a_call_that_began_before(filled: InfisicalDouble) -> None:
    filled.fail_with(faults.held())
    store = store_of(context_for(filled), infisical(filled))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.values, "prod", "production")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            nursery.start_soon(store.refresh, "prod", "production")
        await trio.testing.wait_all_tasks_blocked()
        assert filled.calls("list") <= 1
        filled.release()
    assert filled.calls("list") == 2


async def test_a_call_that_was_under_way_at_a_clear_is_not_kept(filled: InfisicalDouble) -> None:
    filled.fail_with(faults.held())
    store = store_of(context_for(filled), infisical(filled))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.values, "prod", "production")
        await trio.testing.wait_all_tasks_blocked()
        store.clear_cache()
        filled.release()
    assert provenance(await store.values("prod", "production"))[0] == "infisical"
    assert filled.calls("list") == 2


# --- outages and refusals ----------------------------------------------------------------------


async def test_an_old_value_serves_in_an_outage_until_max_stale(
    filled: InfisicalDouble, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(context_for(filled), infisical(filled, cache_ttl=60.0, max_stale=600.0))
    await store.values("prod", "production")
    filled.fail_with(faults.server_error(), times=1000)
    mock_clock.jump(120)
    for _ in range(5):
        values = await store.values("prod", "production")
        assert plain(values) == {"KEY": VALUE}
        assert provenance(values) == ("cache", "prod", True, True, False)
        assert not values["KEY"].may_cause_change
    mock_clock.jump(480)
    assert provenance(await store.values("prod", "production"))[3] is True
    mock_clock.jump(1)
    with pytest.raises(SourceDown, match="it has a fault"):
        await store.values("prod", "production")
    (stale,) = lines(caplog, "[Infisical] Using stale cache")
    assert "source prod, 120 s old (secret source prod: " in stale
    filled.recover()
    mock_clock.jump(61)
    assert provenance(await store.values("prod", "production")) == ("infisical", "prod", False, False, False)


async def test_a_failing_source_is_asked_ever_more_rarely(
    filled: InfisicalDouble, mock_clock: MockClock
) -> None:
    filled.fail_with(faults.server_error(), times=1000)
    store = store_of(context_for(filled), infisical(filled))
    asked: list[int] = []
    for second in range(130):
        with pytest.raises(SourceDown):
            await store.values("prod", "production")
        if filled.calls("list") > len(asked):
            asked.append(second)
        mock_clock.jump(1)
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123]


async def test_a_waiting_time_is_kept(filled: InfisicalDouble, mock_clock: MockClock) -> None:
    filled.fail_with(faults.too_many_requests(30))
    store = store_of(context_for(filled), infisical(filled))
    with pytest.raises(SourceDown) as caught:
        await store.values("prod", "production")
    assert caught.value.retry_after == 30
    mock_clock.jump(29)
    with pytest.raises(SourceDown, match="it asks to wait 30 s"):
        await store.values("prod", "production")
    assert filled.calls("list") == 1
    mock_clock.jump(1)
    assert plain(await store.values("prod", "production")) == {"KEY": VALUE}


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_an_old_value_serves_through_a_refusal_until_max_stale(
    filled: InfisicalDouble, mock_clock: MockClock, status: int
) -> None:
    store = store_of(context_for(filled), infisical(filled, cache_ttl=60.0, max_stale=600.0))
    await store.values("prod", "production")
    filled.fail_with(faults.api_error(status, "Refused", "no"), times=10)
    mock_clock.jump(61)
    values = await store.values("prod", "production")
    assert plain(values) == {"KEY": VALUE}
    assert not any(value.may_cause_change for value in values.values())
    assert store.freshness()["prod"].state is SourceState.STALE
    assert f"status {status}" in (store.freshness()["prod"].error or "")
    mock_clock.jump(600)
    with pytest.raises(SourceRefused, match=f"status {status}"):
        await store.values("prod", "production")
    assert store.freshness()["prod"].state is SourceState.FAILED


@pytest.mark.parametrize("order", [("production", "staging"), ("staging", "production")])
async def test_what_a_source_is_in_does_not_depend_on_who_asked_last(
    filled: InfisicalDouble, tmp_path: Path, order: tuple[str, str]
) -> None:
    """As the fallback of another source it may not serve in staging; in production it serves."""
    missing = env_file(tmp_path / "missing.env", fallback=("prod",))
    store = store_of(context_for(filled), infisical(filled, environments=("production",)), missing)
    for environment in order:
        if environment == "production":
            await store.values("prod", environment)
        else:
            with pytest.raises(SourceRefused):
                await store.values("local", environment)
    assert store.freshness()["prod"].state is SourceState.FAILED
    assert (
        store.freshness()["prod"].error
        == "secret source prod may not serve environment staging, only production"
    )


async def test_an_empty_answer_never_blanks(filled: InfisicalDouble, mock_clock: MockClock) -> None:
    store = store_of(context_for(filled), infisical(filled, cache_ttl=60.0))
    await store.values("prod", "production")
    filled.secrets[filled.project, "prod", "/"] = {}
    mock_clock.jump(61)
    values = await store.values("prod", "production")
    assert plain(values) == {"KEY": VALUE}
    assert provenance(values)[3] is True


# --- fallbacks ---------------------------------------------------------------------------------


async def test_fallbacks_serve_in_order_and_recovery_ends_it(
    filled: InfisicalDouble, mock_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = tmp_path / "missing.env"
    local = write_env_file(tmp_path / "local.env", f"KEY={canary('local')}\n")
    store = store_of(
        context_for(filled),
        infisical(filled, fallback=("gone", "local")),
        env_file(missing, "gone"),
        env_file(local, cache_ttl=0.0),
    )
    filled.fail_with(faults.server_error())
    for _ in range(3):
        values = await store.values("prod", "production")
        assert plain(values) == {"KEY": canary("local")}
        assert provenance(values) == ("env_file", "local", False, False, True)
        assert not values["KEY"].may_cause_change
    (said,) = lines(caplog, "[Infisical] Using fallback: source prod: local serves")
    assert "it has a fault" in said
    assert str(missing) in said
    state = store.freshness()["prod"]
    assert (state.state, state.served_by) == (SourceState.FALLBACK, "local")
    assert state.error is not None
    assert "it has a fault" in state.error
    mock_clock.jump(2)
    assert provenance(await store.values("prod", "production")) == ("infisical", "prod", False, False, False)


async def test_all_attempts_are_named_when_nothing_serves(filled: InfisicalDouble, tmp_path: Path) -> None:
    store = store_of(
        context_for(filled),
        infisical(filled, fallback=("one", "bound")),
        env_file(tmp_path / "1.env", "one", fallback=("two", "prod")),
        env_file(tmp_path / "2.env", "two"),
        environ("KEY", name="bound", environments=("staging",)),
    )
    filled.forbidden = True
    with pytest.raises(SourceRefused) as caught:
        await store.values("prod", "production")
    text = str(caught.value)
    assert text.startswith(
        "nothing serves secret source prod in environment production: (1) secret source prod"
    )
    assert f"(2) secret source one: {tmp_path}/1.env: there is no such file" in text
    assert f"(3) secret source two: {tmp_path}/2.env: there is no such file" in text
    assert "(4) secret source bound may not serve environment production, only staging" in text
    assert "\n" not in text


async def test_a_disabled_source_leaves_it_to_its_fallback(filled: InfisicalDouble, tmp_path: Path) -> None:
    local = write_env_file(tmp_path / "local.env", "KEY=x\n")
    store = store_of(
        context_for(filled), infisical(filled, enabled=False, fallback=("local",)), env_file(local)
    )
    values = await store.values("prod", "production")
    assert provenance(values) == ("env_file", "local", False, False, False)
    assert values["KEY"].may_cause_change, "a choice in the spec is no outage"
    assert filled.requests == []
    lonely = store_of(context_for(filled), infisical(filled, enabled=False))
    with pytest.raises(SourceRefused, match="secret source prod is not enabled"):
        await lonely.values("prod", "production")


async def test_a_source_serves_only_its_environments(filled: InfisicalDouble) -> None:
    store = store_of(
        context_for(filled, KEY="x"),
        infisical(filled, environments=("production",), fallback=("own",)),
        environ("KEY"),
    )
    assert plain(await store.values("prod", "production")) == {"KEY": VALUE}
    asked = len(filled.requests)
    with pytest.raises(SourceRefused, match="may not serve environment staging, only production"):
        await store.values("prod", "staging")
    with pytest.raises(SourceRefused, match="may not serve what belongs to no environment"):
        await store.values("prod", "")
    assert len(filled.requests) == asked
    with pytest.raises(SourceRefused, match="there is no secret source other"):
        await store.values("other", "production")


# --- credentials, kinds, status ----------------------------------------------------------------


async def test_a_credential_may_come_from_another_source(filled: InfisicalDouble, tmp_path: Path) -> None:
    path = write_env_file(tmp_path / "identity.env", f"CLIENT_SECRET={filled.client_secret}\n")
    secret = SecretCredential(source="identity", key="CLIENT_SECRET")
    store = store_of(context_for(filled), infisical(filled, client_secret=secret), env_file(path, "identity"))
    assert plain(await store.values("prod", "production")) == {"KEY": VALUE}
    wrong = SecretCredential(source="identity", key="OTHER")
    store = store_of(context_for(filled), infisical(filled, client_secret=wrong), env_file(path, "identity"))
    with pytest.raises(SourceRefused, match="secret source identity has no key 'OTHER'"):
        await store.values("prod", "production")


async def test_credentials_that_lead_back_to_their_source(filled: InfisicalDouble) -> None:
    def needing(name: str, other: str, **more: tuple[str, ...]) -> SecretSource:
        credential = SecretCredential(source=other, key="X")
        return infisical(filled, name, client_secret=credential, secret_path=f"/{name}", **more)

    store = store_of(
        context_for(filled, X="x"),
        needing("a", "b"),
        needing("b", "own"),
        needing("c", "d"),
        infisical(filled, "d", secret_path="/d", fallback=("c",)),
        environ("X", fallback=("a",)),
    )
    with trio.fail_after(30):
        for name in ("a", "c"):
            with pytest.raises(SourceRefused, match=f"{name}: its credentials come, in the end, from itself"):
                await store.values(name, "production")


async def test_github_gives_no_values(filled: InfisicalDouble) -> None:
    settings = GithubActionsSettings(repo="org/repo", token=EnvCredential(name="T"))
    source = SecretSource(name="gh", kind="github_actions", settings=settings)
    store = SecretStore({"gh": source}, context=context_for(filled))
    with pytest.raises(SourceRefused, match="secret source gh: GitHub gives no values of secrets back; take"):
        await store.values("gh", "production")


async def test_freshness_tells_names_times_and_causes(filled: InfisicalDouble, mock_clock: MockClock) -> None:
    store = store_of(context_for(filled), infisical(filled, cache_ttl=60.0), environ("ID", "NOT_SET"))
    assert store.freshness() == {
        "prod": Freshness("prod", "infisical", SourceState.UNUSED),
        "own": Freshness("own", "environ", SourceState.UNUSED),
    }
    await store.values("prod", "production")
    fresh = Freshness("prod", "infisical", SourceState.FRESH, NOW, ("KEY",), "prod", last_success=NOW)
    assert store.freshness()["prod"] == fresh
    await store.values("prod", "production")
    assert store.freshness()["prod"].state is SourceState.CACHED
    mock_clock.jump(61)
    filled.fail_with(faults.server_error())
    await store.values("prod", "production")
    stale = store.freshness()["prod"]
    assert (stale.state, stale.keys, stale.reason) == (SourceState.STALE, ("KEY",), "SecretFetchFailed")
    assert stale.error is not None
    assert "it has a fault (status 500" in stale.error
    await store.values("own", "production")
    assert store.freshness()["own"] == Freshness(
        "own", "environ", SourceState.FRESH, NOW, ("ID",), "own", last_success=NOW
    )


async def test_the_last_success_is_known_while_a_source_fails(
    filled: InfisicalDouble, mock_clock: MockClock
) -> None:
    store = store_of(context_for(filled), infisical(filled, max_stale=0.0))
    filled.fail_with(faults.server_error())
    with pytest.raises(SourceDown):
        await store.values("prod", "production")
    assert store.freshness()["prod"].last_success is None
    mock_clock.jump(1)
    await store.values("prod", "production")
    mock_clock.jump(301)
    filled.fail_with(faults.server_error())
    with pytest.raises(SourceDown):
        await store.values("prod", "production")
    failed = store.freshness()["prod"]
    assert (failed.state, failed.retrieved_at, failed.last_success) == (SourceState.FAILED, None, NOW)
    store.clear_cache()
    assert store.freshness()["prod"].last_success == NOW


async def test_failures_are_logged_with_the_source(
    filled: InfisicalDouble, caplog: pytest.LogCaptureFixture
) -> None:
    filled.forbidden = True
    store = store_of(context_for(filled), infisical(filled))
    with pytest.raises(SourceRefused):
        await store.values("prod", "production")
    (line,) = lines(caplog, "[Infisical] Failed to fetch secrets: secret source prod: ")
    assert "status 403 PermissionDenied" in line


async def test_variables_that_are_not_set_are_no_keys(filled: InfisicalDouble) -> None:
    store = store_of(context_for(filled, SET="x", SET_FILE="/never/read"), environ("SET", "NOT_SET"))
    assert plain(await store.values("own", "production")) == {"SET": "x"}
