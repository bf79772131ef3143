"""The Python client in ordinary threads, against the double: what serves, what is asked, and what is told."""

import asyncio
import gc
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio

from reconciler.secrets.client import (
    ClientState,
    InfisicalClient,
    InfisicalConfig,
    InfisicalConnectionError,
    SecretNotFoundError,
)
from reconciler.secrets.client.loop import LoopThread
from reconciler.secrets.client.model import CLIENT_MOVES
from reconciler.secrets.source import HttpTimeouts
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import config_for

KEY = "GMAIL_API_KEY"
THREADS = 20


class Recording(InfisicalClient):
    """Keeps the states that it went through."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.states: list[ClientState] = []
        super().__init__(*arguments, **options)

    def _move(self, state: ClientState) -> None:
        super()._move(state)
        self.states.append(state)


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        running.secrets[running.project, "dev", "/"] = {KEY: canary("gmail"), "OTHER": canary("other")}
        yield running


@contextmanager
def client_of(
    double: InfisicalDouble,
    environ: dict[str, str] | None = None,
    timeouts: HttpTimeouts | None = None,
    **changes: Any,
) -> Iterator[Recording]:
    with Recording(config_for(double, **changes), environ=environ or {}, timeouts=timeouts) as client:
        yield client


def texts(caplog: pytest.LogCaptureFixture, phrase: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if phrase in record.getMessage()]


# --- the three scenarios -----------------------------------------------------------------------


def test_a_first_read_is_fresh_and_a_second_comes_from_memory(
    double: InfisicalDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with client_of(double) as client:
        first = client.get_secret(KEY)
        again = [client.get_secret(KEY) for _ in range(3)]
    assert (first.source, first.is_cached, first.environment) == ("infisical", False, "dev")
    assert first.value.reveal() == canary("gmail")
    assert {(value.source, value.is_cached, value.retrieved_at) for value in again} == {
        ("cache", True, first.retrieved_at)
    }
    assert (double.calls("login"), double.calls("list")) == (1, 1)
    assert client.states == [ClientState.AUTHENTICATING, ClientState.AUTHENTICATED, ClientState.READY]
    assert len(texts(caplog, "[Infisical] Fetching fresh secrets")) == 1
    assert len(texts(caplog, "[Infisical] Using cached secrets")) == 1


def test_infisical_is_down_from_the_start_and_the_environment_serves(
    double: InfisicalDouble, caplog: pytest.LogCaptureFixture
) -> None:
    double.fail_with(faults.server_error(), on="login", times=9)
    with client_of(double, {KEY: canary("own"), "EMPTY": ""}) as client:
        values = [client.get_secret(KEY) for _ in range(3)]
        with pytest.raises(InfisicalConnectionError, match="and the environment has no OTHER: "):
            client.get_secret("OTHER")
        with pytest.raises(InfisicalConnectionError, match="and the environment has no EMPTY: "):
            client.get_secret("EMPTY")
        with pytest.raises(InfisicalConnectionError, match=r"^Infisical is unavailable: .* it has a fault"):
            client.get_all_secrets()
        assert client.state is ClientState.DISCONNECTED
    assert {(v.source, v.is_cached, v.is_fallback, v.value.reveal()) for v in values} == {
        ("env_file", False, True, canary("own"))
    }
    [warning] = texts(caplog, "Infisical unavailable, using .env fallback")
    assert canary("own") not in warning
    assert texts(caplog, "[Infisical] Failed to fetch secrets")


def test_infisical_goes_down_and_an_old_answer_serves_before_the_environment(
    double: InfisicalDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(double, {KEY: canary("own")}, cache_ttl=0) as client:
        client.get_secret(KEY)
        double.fail_with(faults.server_error(), times=1000)
        old = client.get_secret(KEY)
        assert (old.source, old.is_cached, old.is_stale) == ("cache", True, True)
        assert client.get_all_secrets()[KEY] == old
        assert old.value.reveal() == canary("gmail")
        assert texts(caplog, "[Infisical] Using stale cache")
        # Back again, as soon as it is asked.
        double.recover()
        client.refresh_cache()
        assert client.states[-3:] == [
            ClientState.DISCONNECTED,
            ClientState.AUTHENTICATED,
            ClientState.READY,
        ]
    assert not texts(caplog, "using .env fallback")


def test_each_outage_is_warned_of_once(double: InfisicalDouble, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(double, {KEY: canary("own")}) as client:
        for _ in range(2):
            double.forbidden = True
            client._store.clear_cache()
            for _ in range(3):
                assert client.get_secret(KEY, force_refresh=True).source == "env_file"
            double.forbidden = False
            client.refresh_cache()
    assert len(texts(caplog, "using .env fallback")) == 2


# --- what it gives -----------------------------------------------------------------------------


def test_all_secrets_within_the_rules(double: InfisicalDouble) -> None:
    double.secrets[double.project, "dev", "/"] |= {"lower": "x", "EMPTY": ""}
    with client_of(double) as client:
        fresh = client.get_all_secrets()
        assert set(fresh) == {KEY, "OTHER"}
        assert {value.source for value in fresh.values()} == {"infisical"}
        fresh.clear()
        assert {value.source for value in client.get_all_secrets().values()} == {"cache"}
        assert set(client.cache.secrets) == {KEY, "OTHER"}
        assert canary("gmail") not in f"{client!r} {client.get_all_secrets()} {client.cache}"


@pytest.mark.parametrize("name", ["NO_SUCH_KEY", "EMPTY", "lower", ""])
def test_what_is_not_there_is_not_looked_for_in_the_environment(double: InfisicalDouble, name: str) -> None:
    double.secrets[double.project, "dev", "/"] |= {"lower": "x", "EMPTY": ""}
    with client_of(double, {"NO_SUCH_KEY": canary("own")}) as client:
        for _ in range(2):
            with pytest.raises(SecretNotFoundError, match=f"^Secret {name} not found"):
                client.get_secret(name)


def test_ttl_and_force_refresh_of_one_call(double: InfisicalDouble) -> None:
    with client_of(double, cache_ttl=0) as client:
        assert client.get_secret(KEY).source == "infisical"
        assert client.get_secret(KEY).source == "infisical"
        assert client.get_secret(KEY, ttl=3600).source == "cache"
        assert client.get_all_secrets(ttl=3600)[KEY].source == "cache"
        assert double.calls("list") == 2
        assert client.get_secret(KEY, ttl=3600, force_refresh=True).source == "infisical"
        assert client.get_all_secrets(ttl=3600, force_refresh=True)[KEY].source == "infisical"
        for wrong in (-1, 3601):
            with pytest.raises(ValueError, match="give 0 to 3600 seconds"):
                client.get_secret(KEY, ttl=wrong)
    with client_of(double, cache_ttl=3600) as client:
        client.get_secret(KEY)
        assert client.get_secret(KEY, ttl=0).source == "infisical"


def test_a_refresh_brings_a_new_value_into_memory(double: InfisicalDouble) -> None:
    with client_of(double) as client:
        client.get_secret(KEY)
        double.secrets[double.project, "dev", "/"][KEY] = canary("rotated")
        assert client.get_secret(KEY).value.reveal() == canary("gmail")
        client.refresh_cache()
        assert client.get_secret(KEY).value.reveal() == canary("rotated")
        assert (client.get_secret(KEY).source, client.cache.state.value) == ("cache", "Refreshed")


def test_a_refresh_that_fails_says_so_though_an_old_answer_serves(double: InfisicalDouble) -> None:
    with client_of(double) as client:
        client.get_secret(KEY)
        double.fail_with(faults.too_many_requests(30))
        with pytest.raises(InfisicalConnectionError, match="too many requests"):
            client.refresh_cache()
        assert client.get_secret(KEY).source == "cache"


def test_an_outage_says_how_long_to_wait(double: InfisicalDouble) -> None:
    double.fail_with(faults.too_many_requests(30))
    with client_of(double) as client, pytest.raises(InfisicalConnectionError) as caught:
        client.get_secret(KEY)
    assert caught.value.retry_after == 30


# --- whether it is connected -------------------------------------------------------------------


def test_is_connected_asks_and_never_raises(double: InfisicalDouble) -> None:
    with client_of(double) as client:
        assert client.is_connected()
        assert client.is_connected()
        assert double.calls("list") == 2
        double.fail_with(faults.too_many_requests(300))
        assert not client.is_connected()
        assert not client.is_connected(), "it is left alone for a while after it failed"
        assert double.calls("list") == 3
    assert not client.is_connected()


def test_a_wrong_secret_is_no_connection_and_no_loop_of_logins(double: InfisicalDouble) -> None:
    with client_of(double, client_secret=canary("wrong")) as client:
        assert not any(client.is_connected() for _ in range(5))
        with pytest.raises(InfisicalConnectionError, match="refused the login"):
            client.get_secret(KEY)
    assert double.calls("login") == 1


def test_a_server_that_hangs(double: InfisicalDouble) -> None:
    double.fail_with(faults.held(), on="login", times=2)
    with client_of(double, {KEY: canary("own")}, HttpTimeouts(read=0.05)) as client:
        assert not client.is_connected()
        assert client.get_secret(KEY).source == "env_file"


# --- not enabled -------------------------------------------------------------------------------


def test_not_enabled_is_the_environment_alone(caplog: pytest.LogCaptureFixture) -> None:
    environ = {KEY: canary("own"), "lower": "x", "EMPTY": ""}
    with InfisicalClient(InfisicalConfig(), environ=environ) as client:
        value = client.get_secret(KEY)
        assert (value.source, value.is_cached, value.is_fallback) == ("env_file", False, False)
        assert set(client.get_all_secrets()) == {KEY}
        for name in ("EMPTY", "lower", "NO_SUCH_KEY"):
            with pytest.raises(SecretNotFoundError, match=f"Secret {name} not found"):
                client.get_secret(name)
        client.refresh_cache()
        assert not client.is_connected()
        assert client.state is ClientState.UNINITIALIZED
    assert caplog.records == []


def test_without_other_variables_those_of_the_process_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    with InfisicalClient(InfisicalConfig()) as client:
        monkeypatch.setenv("CLIENT_TEST_VALUE", canary("own"))
        assert client.get_secret("CLIENT_TEST_VALUE").value.reveal() == canary("own")


# --- threads -----------------------------------------------------------------------------------


def test_many_threads_make_one_call(double: InfisicalDouble) -> None:
    double.fail_with(faults.held(), on="login")
    with client_of(double) as client, ThreadPoolExecutor(THREADS) as pool:
        reads = [pool.submit(client.get_secret, KEY) for _ in range(THREADS)]
        double.wait_for_calls("login")
        double.release()
        assert {read.result().value.reveal() for read in reads} == {canary("gmail")}
    assert (double.calls("login"), double.calls("list")) == (1, 1)


def test_memory_answers_while_a_refresh_hangs(double: InfisicalDouble) -> None:
    with client_of(double) as client, ThreadPoolExecutor(1) as pool:
        client.get_secret(KEY)
        double.fail_with(faults.held())
        refresh = pool.submit(client.refresh_cache)
        double.wait_for_calls("list", 2)
        assert client.get_secret(KEY).source == "cache"
        assert not refresh.done()
        double.release()
        refresh.result()


def test_closing_ends_calls_that_wait_and_the_thread(double: InfisicalDouble) -> None:
    double.fail_with(faults.held())
    with ThreadPoolExecutor(1) as pool:
        with client_of(double) as client:
            read = pool.submit(client.get_secret, KEY)
            double.wait_for_calls("list")
        with pytest.raises(InfisicalConnectionError, match="this InfisicalClient is closed"):
            read.result()
    with pytest.raises(InfisicalConnectionError, match="is closed"):
        client.get_secret(KEY)
    client.close()


def test_a_loop_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    loop = LoopThread("test-deadline")
    try:
        with pytest.raises(TimeoutError):
            loop.call(0.01, trio.sleep_forever)
        loop.call(60, trio.lowlevel.checkpoint)
    finally:
        loop.close()


def test_a_closed_client_forgets_its_values(double: InfisicalDouble) -> None:
    with client_of(double) as client:
        client.get_secret(KEY)
    with pytest.raises(InfisicalConnectionError, match="is closed"):
        client.get_secret(KEY)
    assert client.cache.secrets == {}


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises((InfisicalConnectionError, SecretNotFoundError)) as caught:
        call()
    return caught.value


def test_errors_hold_no_value(double: InfisicalDouble) -> None:
    """As a crash report would print them, with the variables of our frames."""
    own = {"lower": canary("own"), KEY: canary("own")}
    double.secrets[double.project, "dev", "/"]["lower"] = canary("other")
    with InfisicalClient(InfisicalConfig(), environ=own) as off:
        errors = [raised(partial(off.get_secret, name)) for name in ("lower", "NONE")]
    with client_of(double, own) as client:
        errors += [raised(partial(client.get_secret, name)) for name in ("lower", "NONE")]
        double.forbidden = True
        errors.append(raised(client.refresh_cache))
    with client_of(double, own) as client:
        errors += [raised(client.get_all_secrets), raised(partial(client.get_secret, "OTHER"))]
    for one in errors:
        report = traceback.TracebackException.from_exception(one, capture_locals=True)
        ours = [str(frame.locals) for frame in report.stack if "/tests/" not in frame.filename]
        for name in ("own", "gmail", "other", "infisical-client-secret"):
            assert canary(name) not in "".join([*ours, repr(one), str(one)])
        assert one.__cause__ is None and (one.__suppress_context__ or one.__context__ is None)


def test_a_client_that_nobody_has_any_more_ends_its_thread(double: InfisicalDouble) -> None:
    client = InfisicalClient(config_for(double), environ={})
    client.get_secret(KEY)
    thread = client._loop._thread if client._loop else None
    assert isinstance(thread, threading.Thread) and thread.is_alive()
    del client
    gc.collect()
    assert not thread.is_alive()


async def test_it_works_inside_of_a_trio_loop(double: InfisicalDouble) -> None:
    with client_of(double) as client:
        assert client.get_secret(KEY).source == "infisical"
        assert (await trio.to_thread.run_sync(client.get_secret, KEY)).source == "cache"


def test_it_works_beside_asyncio(double: InfisicalDouble) -> None:
    async def main() -> str:
        with client_of(double) as client:
            return (await asyncio.to_thread(client.get_secret, KEY)).source

    assert asyncio.run(main()) == "infisical"


def test_the_table_of_moves_has_every_state() -> None:
    assert set(CLIENT_MOVES) == set(ClientState)
    assert set().union(*CLIENT_MOVES.values()) == set(ClientState) - {ClientState.UNINITIALIZED}
