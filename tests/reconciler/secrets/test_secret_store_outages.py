"""The store while a source does not serve: old values, asking more rarely, refusals, and fallbacks."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import SourceState
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import (
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
