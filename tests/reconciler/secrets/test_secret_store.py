"""The store: one call for many readers, the cache, credentials, and what status may say of it."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from reconciler.errors import SettingsError
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from reconciler.spec.model import EnvCredential, GithubActionsSettings, SecretCredential, SecretSource
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import (
    NOW,
    VALUE,
    context_for,
    env_file,
    environ,
    infisical,
    lines,
    plain,
    provenance,
    store_of,
    write_env_file,
)

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
        await wait_all_tasks_blocked()
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
        await wait_all_tasks_blocked()
        nursery.start_soon(read, trio.CancelScope())
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
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
        await wait_all_tasks_blocked()
        for _ in range(10):
            nursery.start_soon(store.refresh, "prod", "production")
        await wait_all_tasks_blocked()
        assert filled.calls("list") <= 1
        filled.release()
    assert filled.calls("list") == 2


async def test_a_call_that_was_under_way_at_a_clear_is_not_kept(filled: InfisicalDouble) -> None:
    filled.fail_with(faults.held())
    store = store_of(context_for(filled), infisical(filled))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.values, "prod", "production")
        await wait_all_tasks_blocked()
        store.clear_cache()
        filled.release()
    assert provenance(await store.values("prod", "production"))[0] == "infisical"
    assert filled.calls("list") == 2


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
    with trio.fail_after(120):
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
