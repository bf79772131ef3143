"""The cache on disk after a restart: it serves as before, never for longer, and can be cleared."""

import base64
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from reconciler.errors import SettingsError
from reconciler.primary import open_secret_cache
from reconciler.secrets.disk_cache_key import DiskCacheKey, load_or_make
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.store import SecretStore
from reconciler.settings import load_settings
from reconciler.spec.model import SecretCredential
from tests.canaries import canary, may_hold
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.restarting import MARK, Machine, state, stored
from tests.reconciler.secrets.sources import VALUE, context_for, env_file, infisical, write_env_file

# --- after a restart ---------------------------------------------------------------------------


async def test_within_the_ttl_it_serves_as_cached_without_a_call(
    filled: InfisicalDouble, machine: Machine
) -> None:
    assert await state(machine.start(filled)) is SourceState.FRESH
    machine.passes(299, rebooted=True)
    store = machine.start(filled)
    states: list[SourceState] = []

    async def read() -> None:
        states.append(await state(store))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read)
    assert set(states) == {SourceState.CACHED}
    value = (await store.values("prod", "production"))["KEY"]
    assert (value.source, value.is_cached, value.may_cause_change) == ("cache", True, True)
    assert store.freshness()["prod"].last_success == value.retrieved_at
    assert (filled.calls("login"), filled.calls("list")) == (1, 1)
    machine.passes(2, rebooted=True)
    assert await state(machine.start(filled)) is SourceState.FRESH
    assert filled.calls("list") == 2


@pytest.mark.parametrize("other", [{"ID": "somebody-else"}, {"SECRET": "revoked"}, {"SECRET": ""}])
async def test_whoever_has_other_credentials_in_the_same_variables_logs_in(
    filled: InfisicalDouble, machine: Machine, other: dict[str, str]
) -> None:
    assert await state(machine.start(filled)) is SourceState.FRESH
    store = machine.start(filled, **other)
    with pytest.raises((SourceDown, SourceRefused)):
        await store.values("prod", "production")
    assert store.freshness()["prod"].state is SourceState.FAILED
    assert filled.calls("list") == 1
    assert await state(machine.start(filled)) is SourceState.CACHED
    assert machine.start(filled, **other).clear_cache("prod") == 1
    assert machine.files == []


async def test_a_credential_out_of_another_source_counts_by_its_value(
    filled: InfisicalDouble, machine: Machine, tmp_path: Path
) -> None:
    file = write_env_file(tmp_path / "bootstrap.env", f"CODE={filled.client_secret}\n")
    secret = SecretCredential(source="local", key="CODE")
    sources = (env_file(file), infisical(filled, client_secret=secret))
    assert await state(machine.start(filled, *sources)) is SourceState.FRESH
    assert await state(machine.start(filled, *sources)) is SourceState.CACHED
    write_env_file(file, "CODE=revoked\n")
    with pytest.raises(SourceRefused):
        await machine.start(filled, *sources).values("prod", "production")


async def test_a_credential_that_only_a_network_tells_keeps_nothing(
    filled: InfisicalDouble, machine: Machine
) -> None:
    filled.secrets[filled.project, "prod", "/bootstrap"] = {"CODE": filled.client_secret}
    first = infisical(filled, "first", secret_path="/bootstrap")
    second = infisical(filled, client_secret=SecretCredential(source="first", key="CODE"))
    assert await state(machine.start(filled, first, second)) is SourceState.FRESH
    assert len(machine.files) == 1
    assert await state(machine.start(filled, first, second)) is SourceState.FRESH


async def test_the_ttl_goes_on_from_where_it_was(
    filled: InfisicalDouble, machine: Machine, mock_clock: MockClock
) -> None:
    await state(machine.start(filled))
    machine.passes(200)
    store = machine.start(filled)
    assert await state(store) is SourceState.CACHED
    mock_clock.jump(100)
    assert await state(store) is SourceState.FRESH


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.server_error(), SourceDown),
        (faults.api_error(403, "PermissionDenied", "no"), SourceRefused),
        (faults.api_error(404, "NotFound", "no"), SourceRefused),
    ],
)
async def test_older_it_is_stale_until_max_stale(
    filled: InfisicalDouble, machine: Machine, fault: faults.Fault, error: type[Exception]
) -> None:
    await state(machine.start(filled))
    filled.fail_with(fault, times=100)
    machine.passes(86_000)
    store = machine.start(filled)
    assert await state(store) is SourceState.STALE
    assert not (await store.values("prod", "production"))["KEY"].may_cause_change
    # A restart or a failure does not make it younger.
    machine.passes(401)
    with pytest.raises(error):
        await state(machine.start(filled))
    assert machine.files == []


@pytest.mark.parametrize(
    ("seconds", "wall", "rebooted"),
    [
        pytest.param(10, -1, False, id="set back"),
        pytest.param(10, -1, True, id="set back, and a reboot"),
        pytest.param(10, 90_000, True, id="set forward"),
        pytest.param(90_000, 10, False, id="set back by less than has passed"),
    ],
)
async def test_no_clock_that_was_set_makes_it_serve_longer(
    filled: InfisicalDouble, machine: Machine, seconds: float, wall: float, rebooted: bool
) -> None:
    await state(machine.start(filled))
    filled.fail_with(faults.server_error(), times=100)
    machine.passes(seconds, wall=wall, rebooted=rebooted)
    with pytest.raises(SourceDown):
        await state(machine.start(filled))


async def test_a_newer_answer_replaces_the_older(filled: InfisicalDouble, machine: Machine) -> None:
    filled.secrets[filled.project, "prod", "/"] = {"KEY": canary("before"), "OLD": "x"}
    store = machine.start(filled)
    await store.values("prod", "production")
    filled.secrets[filled.project, "prod", "/"] = {"KEY": VALUE}
    await store.refresh("prod", "production")
    [_] = machine.files
    store = machine.start(filled)
    assert await state(store) is SourceState.CACHED
    assert store.freshness()["prod"].keys == ("KEY",)


async def test_another_question_has_another_file(filled: InfisicalDouble, machine: Machine) -> None:
    await state(machine.start(filled))
    filled.fail_with(faults.server_error(), times=1000)
    for change in ({"secret_path": "/x"}, {"recursive": True}, {"tags": ("t",)}, {"project_id": "other"}):
        with pytest.raises(SourceDown):
            await state(machine.start(filled, infisical(filled, **change)))
    assert await state(machine.start(filled, infisical(filled, "renamed")), "renamed") is SourceState.CACHED


async def test_only_what_is_behind_a_network_is_kept(
    filled: InfisicalDouble, machine: Machine, tmp_path: Path
) -> None:
    local = env_file(write_env_file(tmp_path / "local.env", f"KEY={VALUE}\n"))
    assert await state(machine.start(filled, local), "local") is SourceState.FRESH
    assert machine.files == []


# --- clearing ----------------------------------------------------------------------------------


async def test_clearing_removes_the_files(filled: InfisicalDouble, machine: Machine) -> None:
    filled.secrets[filled.project, "prod", "/other"] = {"KEY": VALUE}
    sources = infisical(filled), infisical(filled, "other", secret_path="/other")
    store = machine.start(filled, *sources)
    for name in ("prod", "other"):
        await store.values(name, "production")
    # In another process, which has read nothing yet, as `trueup secrets clear-cache` is.
    assert machine.start(filled, *sources).clear_cache("other") == 1
    assert len(machine.files) == 1
    await store.refresh("other", "production")
    assert store.clear_cache() == 2
    assert machine.files == []
    await store.values("prod", "production")
    assert machine.start(filled, infisical(filled, project_id="of another spec")).clear_cache() == 1
    assert machine.files == []
    assert machine.start(filled, *sources).clear_cache() == 0


async def test_a_list_that_is_cleared_while_it_is_loaded_stays_forgotten(
    filled: InfisicalDouble, machine: Machine
) -> None:
    await state(machine.start(filled))
    store = machine.start(filled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.values, "prod", "production")
        await trio.lowlevel.checkpoint()
        assert store.clear_cache() == 1
    assert filled.calls("list") == 2


def test_what_was_dropped_meanwhile_is_not_written(machine: Machine) -> None:
    disk = machine.disk()
    for drop in (lambda: disk.drop(b"q"), disk.drop_all):
        drops = disk.drops(b"q")
        drop()
        disk.save(b"q", MARK, stored(machine), drops)
        assert machine.files == []


# --- the key -----------------------------------------------------------------------------------


async def test_another_key_finds_nothing(filled: InfisicalDouble, machine: Machine) -> None:
    await state(machine.start(filled))
    machine.key = DiskCacheKey(b"o" * 32)
    assert await state(machine.start(filled)) is SourceState.FRESH
    assert len(machine.files) == 2


def test_the_key_file_is_made_once(tmp_path: Path) -> None:
    path = may_hold(tmp_path / "secret-cache.key")
    sealed = load_or_make(path).seal(b"data", b"")
    text = path.read_text()
    assert text.startswith("trueup-cache-1:")
    assert load_or_make(path).unseal(sealed, b"") == b"data"
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]
    assert text not in repr(load_or_make(path))


@pytest.mark.parametrize("text", ["", "x\n", "trueup-cache-1:\n", "trueup-cache-1:AAAA\n", "\xff" * 5000])
def test_a_damaged_key_file_is_told_without_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret-cache.key"
    path.write_text(text)
    with pytest.raises(SettingsError, match="remove it") as caught:
        load_or_make(path)
    assert text.strip() not in str(caught.value) or not text.strip()


async def test_the_settings_choose(tmp_path: Path, filled: InfisicalDouble) -> None:
    def start(**environ: str) -> SecretStore:
        settings = load_settings({"TRUEUP_STATE_DIR": str(tmp_path), **environ})
        return SecretStore(
            {"prod": infisical(filled)}, context=context_for(filled), cache=open_secret_cache(settings)
        )

    assert await state(start()) is SourceState.FRESH
    assert await state(start(TRUEUP_SECRET_CACHE="memory")) is SourceState.FRESH
    assert os.listdir(tmp_path) == []
    assert await state(start(TRUEUP_SECRET_CACHE="disk")) is SourceState.FRESH
    assert sorted(os.listdir(tmp_path)) == ["secret-cache", "secret-cache.key"]
    assert await state(start(TRUEUP_SECRET_CACHE="disk")) is SourceState.CACHED
    own = "trueup-cache-1:" + base64.b64encode(b"o" * 32).decode()
    assert await state(start(TRUEUP_SECRET_CACHE="disk", TRUEUP_SECRET_CACHE_KEY=own)) is SourceState.FRESH
    assert await state(start(TRUEUP_SECRET_CACHE="disk", TRUEUP_SECRET_CACHE_KEY=own)) is SourceState.CACHED
    with pytest.raises(SettingsError, match="TRUEUP_SECRET_CACHE_KEY does not hold a key"):
        start(TRUEUP_SECRET_CACHE="disk", TRUEUP_SECRET_CACHE_KEY=canary("no-key"))
    with pytest.raises(SettingsError, match="give memory or disk"):
        start(TRUEUP_SECRET_CACHE="yes")
