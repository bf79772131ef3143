"""Refreshing ahead of need: when it is due, who shares it, what a failure leaves, who hears of a change."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from reconciler.primary import as_settings_say
from reconciler.secrets.cache import SecretCache
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.errors import SourceDown
from reconciler.secrets.refresh import interval_of
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.settings import load_settings
from reconciler.spec.model import InfisicalSettings, SecretSource
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import NOW, context_for, environ, infisical, store_of


@asynccontextmanager
async def kept_fresh(store: SecretStore, draw: float = 0.0) -> AsyncIterator[list[tuple[str, str]]]:
    """The store with its refresher at work, which always draws the same; gives what it tells of changes."""
    told: list[tuple[str, str]] = []
    async with trio.open_nursery() as nursery:
        task = partial(store.keep_fresh, lambda *change: told.append(change), draw=lambda: draw)
        nursery.start_soon(task)
        yield told
        nursery.cancel_scope.cancel()


async def settled(condition: Callable[[], bool]) -> None:
    """Until it is so; a test's clock does not know of worker threads, so it cannot be waited on."""
    while not condition():
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()


class Variables:
    """Sources of the kind `environ`, which need no thread, over variables that the test changes."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.context = SourceContext(Credentials(values), utc_now=lambda: NOW)


async def read(store: SecretStore, source: str = "own", environment: str = "production") -> str:
    values = await store.values(source, environment)
    return values["KEY"].value.reveal()


@pytest.mark.parametrize(
    ("cache_ttl", "refresh_interval", "draw", "due"),
    [
        (300.0, 300.0, 0.0, 240.0),  # 0.8 of the ttl is less
        (300.0, 100.0, 0.0, 100.0),
        (300.0, 100.0, 1.0, 80.0),
        (100.0, 300.0, 0.5, 72.0),
    ],
)
async def test_when_it_is_due(
    autojump_clock: MockClock, cache_ttl: float, refresh_interval: float, draw: float, due: float
) -> None:
    own = Variables(KEY=canary("one"))
    source = environ("KEY", cache_ttl=cache_ttl, refresh_interval=refresh_interval)
    store = store_of(own.context, source)
    async with kept_fresh(store, draw) as told:
        await read(store)
        began = trio.current_time()
        own.values["KEY"] = canary("two")
        await trio.sleep_until(began + due - 0.01)
        assert (await read(store), told) == (canary("one"), [])
        await trio.sleep_until(began + due + 0.01)
        assert (await read(store), told) == (canary("two"), [("own", "production")])
        own.values["KEY"] = canary("three")
        await trio.sleep_until(began + 2 * due + 0.01)
        assert await read(store) == canary("three")


@pytest.mark.parametrize("never", [{"cache_ttl": 0.0}, {"refresh_interval": 0.0}])
async def test_what_is_never_refreshed(autojump_clock: MockClock, never: dict[str, Any]) -> None:
    own = Variables(KEY="1")
    store = store_of(own.context, environ("KEY", **never))
    async with kept_fresh(store) as told:
        await read(store)
        own.values["KEY"] = "2"
        await trio.sleep(80_000)
        assert told == []


@pytest.mark.parametrize(("minutes", "interval"), [("", 100.0), ("0", None), ("2", 120.0), ("60", 240.0)])
def test_a_setting_stands_for_the_interval_of_infisical(minutes: str, interval: float | None) -> None:
    settings = load_settings({"HOME": "/", "INFISICAL_SYNC_INTERVAL_MINUTES": minutes})
    own = environ("KEY", refresh_interval=100.0)
    vault = SecretSource(
        name="vault",
        kind="infisical",
        settings=InfisicalSettings(project_id="p", environment_slug="prod"),
        refresh_interval=100.0,
    )
    assert interval_of(as_settings_say(vault, settings)) == interval
    assert interval_of(as_settings_say(own, settings)) == 100.0


async def test_only_what_was_read_and_only_for_a_day(autojump_clock: MockClock) -> None:
    own = Variables(KEY="1", OTHER="1")
    store = store_of(own.context, environ("KEY"), environ("OTHER", name="unread"))
    async with kept_fresh(store) as told:
        await read(store)
        own.values["OTHER"] = "2"
        await trio.sleep(23 * 3600)
        own.values["KEY"] = "2"
        await trio.sleep(300)
        assert told == [("own", "production")]
        await trio.sleep(3600)  # a day since it was read
        own.values["KEY"] = "3"
        await trio.sleep(80_000)
        assert len(told) == 1
        # Read again, it is kept again.
        assert await read(store) == "3"
        own.values["KEY"] = "4"
        await trio.sleep(300)
        assert len(told) == 2


async def test_each_that_reads_a_list_is_told(autojump_clock: MockClock) -> None:
    own = Variables(KEY="1")
    store = store_of(own.context, environ("KEY", name="one"), environ("KEY", name="two"))
    async with kept_fresh(store) as told:
        for source, environment in (("one", "staging"), ("two", "production"), ("two", "production")):
            await read(store, source, environment)
        await trio.sleep(1000)
        assert told == []
        own.values["KEY"] = "2"
        await trio.sleep(300)
        assert sorted(told) == [("one", "staging"), ("two", "production")]


async def test_lists_that_were_fetched_together_spread_out(autojump_clock: MockClock) -> None:
    own = Variables(**{f"KEY{number}": "1" for number in range(10)})
    store = store_of(own.context, *(environ(f"KEY{number}", name=f"s{number}") for number in range(10)))
    drawn = cycle([number / 10 for number in range(10)])
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        for number in range(10):
            await store.values(f"s{number}", "production")
        for name in own.values:
            own.values[name] = "2"
        nursery.start_soon(
            partial(store.keep_fresh, lambda *_: times.append(trio.current_time()), draw=lambda: next(drawn))
        )
        await trio.sleep(250)
        nursery.cancel_scope.cancel()
    expected = [240 * (1 - 0.02 * number) for number in reversed(range(10))]
    assert [when - began for when in times] == pytest.approx(expected)


async def test_a_failure_keeps_what_there_is_and_is_told_once(
    double: InfisicalDouble, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": canary("one")}
    store = store_of(context_for(double), infisical(double))
    async with kept_fresh(store) as told:
        await read(store, "prod")
        double.fail_with(faults.server_error(), times=1000)
        calls = 1
        for wait in (240, 1, 2, 4, 8, 16):  # as readers would have to wait
            mock_clock.jump(wait - 0.01)
            await wait_all_tasks_blocked()
            assert double.calls("list") == calls
            mock_clock.jump(0.02)
            calls += 1
            await settled(lambda: double.calls("list") == calls)  # noqa: B023 - awaited at once
            await settled(lambda: not store._cache.entry(next(iter(store._cache.entries)))._flight)
            assert await read(store, "prod") == canary("one")
        warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len([record for record in warned if "Failed to fetch secrets" in record.message]) == 1
        assert told == []
        # Back, with a new value.
        double.recover()
        double.secrets[double.project, "prod", "/"] = {"KEY": canary("two")}
        mock_clock.jump(60)
        await settled(lambda: bool(told))
        assert told == [("prod", "production")]
        assert await read(store, "prod") == canary("two")


async def test_a_waiting_time_is_kept(double: InfisicalDouble, mock_clock: MockClock) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": "1"}
    double.fail_with(faults.too_many_requests(30))
    store = store_of(context_for(double), infisical(double))
    async with kept_fresh(store) as told:
        with pytest.raises(SourceDown):
            await read(store, "prod")
        mock_clock.jump(29)
        await wait_all_tasks_blocked()
        assert double.calls("list") == 1
        # It serves now and did not before: whoever waits for it hears of that.
        mock_clock.jump(1.01)
        await settled(lambda: bool(told))
        assert (told, double.calls("list")) == ([("prod", "production")], 2)


async def test_a_reader_joins_the_refresh_that_is_under_way(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": "1"}
    store = store_of(context_for(double), infisical(double))
    async with kept_fresh(store):
        await read(store, "prod")
        double.fail_with(faults.held())
        mock_clock.jump(241)
        await settled(lambda: double.calls("list") == 2)
        mock_clock.jump(60)  # expired meanwhile
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(read, store, "prod")
            await wait_all_tasks_blocked()
            double.release()
        assert double.calls("list") == 2


async def test_a_cleared_list_is_not_fetched_before_it_is_read(autojump_clock: MockClock) -> None:
    own = Variables(KEY="1")
    store = store_of(own.context, environ("KEY"))
    async with kept_fresh(store) as told:
        await read(store)
        store.clear_cache()
        own.values["KEY"] = "2"
        await trio.sleep(1000)
        assert store.clear_cache() == 0
        assert await read(store) == "2"
        own.values["KEY"] = "3"
        await trio.sleep(300)
        assert told == [("own", "production")]


async def test_what_was_fetched_outlives_a_change_of_the_spec(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    """An outage must not begin anew for every commit; what no source asks any more is forgotten."""
    double.secrets[double.project, "prod", "/"] = {"KEY": canary("one")}
    double.secrets[double.project, "prod", "/other"] = {"KEY": canary("other")}
    cache = SecretCache()
    first = [infisical(double), infisical(double, "other", secret_path="/other")]
    store = SecretStore({one.name: one for one in first}, context=context_for(double), cache=cache)
    for name in ("prod", "other"):
        await read(store, name)
    renamed = infisical(double, "renamed", cache_ttl=30.0)
    second = SecretStore({"renamed": renamed}, context=context_for(double), cache=cache)
    async with kept_fresh(second):
        assert await read(second, "renamed") == canary("one")
        assert double.calls("list") == 2
        mock_clock.jump(31)
        double.fail_with(faults.server_error(), times=1000)
        values = await second.values("renamed", "production")
        assert values["KEY"].is_stale
        # The store of before may still be in somebody's hands, and its readers are not ours.
        await read(store, "prod")
        mock_clock.jump(500)
        await settled(lambda: double.calls("list") == 4)
    third = SecretStore({one.name: one for one in first}, context=context_for(double), cache=cache)
    with pytest.raises(SourceDown):
        await read(third, "other")
