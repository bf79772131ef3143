"""The cache on disk: it survives a restart, shows nothing, believes nothing, and never serves for longer."""

import base64
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.errors import SettingsError
from reconciler.primary import open_secret_cache
from reconciler.secrets import disk_cache
from reconciler.secrets.cache import SecretCache
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.disk_cache import DiskCache
from reconciler.secrets.disk_cache_key import DiskCacheKey, load_or_make
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.stored import Clocks, Stored
from reconciler.secrets.values import Secret
from reconciler.settings import load_settings
from reconciler.spec.model import SecretCredential, SecretSource
from tests.canaries import canary, may_hold, search_tree
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import context_for, env_file, infisical, write_env_file

MockClock = trio.testing.MockClock
VALUE = canary("on-disk")
WALL = 1_700_000_000.0
KEY = DiskCacheKey(b"k" * 32)
MARK = KEY.mark([Secret("id"), Secret("secret")])


@dataclass
class Machine:
    """A primary's host whose clocks the test sets; `start` is what a new process would do."""

    directory: Path
    clocks: Clocks = field(default_factory=lambda: Clocks(WALL, "boot-1", 1000.0))
    key: DiskCacheKey = KEY

    def disk(self) -> DiskCache:
        return DiskCache(self.directory, self.key, clocks=lambda: self.clocks)

    def start(self, double: InfisicalDouble, *sources: SecretSource, **environ: str) -> SecretStore:
        specs = sources or (infisical(double),)
        variables = {"ID": double.client_id, "SECRET": double.client_secret, **environ}
        context = SourceContext(Credentials(variables), utc_now=context_for(double).utc_now)
        return SecretStore({one.name: one for one in specs}, context=context, cache=SecretCache(self.disk()))

    def passes(self, seconds: float, *, wall: float | None = None, rebooted: bool = False) -> None:
        """Time passes; the wall clock says `wall` of it where somebody sets it meanwhile."""
        was = self.clocks
        boot, uptime = ("boot-2", seconds) if rebooted else (was.boot, was.uptime + seconds)
        self.clocks = Clocks(was.wall + (seconds if wall is None else wall), boot, uptime)

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "secret-cache")


@pytest.fixture
def filled(double: InfisicalDouble) -> InfisicalDouble:
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    return double


async def state(store: SecretStore, name: str = "prod") -> SourceState:
    values = await store.values(name, "production")
    assert values["KEY"].value.reveal() == VALUE
    return store.freshness()[name].state


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


# --- what stands on the disk -------------------------------------------------------------------


def stored(machine: Machine, value: str = VALUE) -> Stored:
    return Stored({"KEY": Secret(value)}, datetime(2026, 1, 1, tzinfo=UTC), 1.0, machine.clocks)


def save(machine: Machine, question: bytes = b"q", value: str = VALUE) -> Path:
    """Into the file that is returned."""
    before = set(machine.files) if machine.directory.exists() else set()
    disk = machine.disk()
    disk.max_age = 86_400
    disk.save(question, MARK, stored(machine, value), disk.drops(question))
    [new] = set(machine.files) - before
    return new


def load(machine: Machine, question: bytes = b"q") -> dict[str, str] | None:
    disk = machine.disk()
    disk.max_age = 86_400
    found = disk.load(question, MARK)
    return None if found is None else {name: value.reveal() for name, value in found[0].values.items()}


def test_it_shows_nothing_and_is_private(machine: Machine, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = save(machine)
        key = tmp_path / "secret-cache.key"
        load_or_make(key)
    finally:
        os.umask(before)
    assert stat.S_IMODE(machine.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(key.stat().st_mode) == 0o600
    assert search_tree(tmp_path) == []
    assert b"KEY" not in file.read_bytes()
    machine.directory.chmod(0o755)
    assert load(machine) == {"KEY": VALUE}
    assert stat.S_IMODE(machine.directory.stat().st_mode) == 0o700


def test_a_size_does_not_tell_the_length_of_a_value(machine: Machine) -> None:
    sizes = {save(machine, str(n).encode(), "x" * n).stat().st_size for n in (1, 10, 100, 1000)}
    assert len(sizes) == 1


def test_any_text_comes_back(machine: Machine) -> None:
    values = ["", "\0", "line\nline", "é" * 100_000]
    for number, value in enumerate(values):
        save(machine, bytes([number]), value)
        assert load(machine, bytes([number])) == {"KEY": value}


def test_what_is_no_text_does_not_come_back(machine: Machine) -> None:
    save(machine, b"1", "\ud800 half a character")
    assert load(machine, b"1") is None


def flip(position: int) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[position] ^= 1
        file.write_bytes(data)

    return change


def cut_to(size: int) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, size)


def into_a_link(file: Path) -> None:
    shutil.copy(file, file.parent.parent / "elsewhere")
    file.unlink()
    file.symlink_to(file.parent.parent / "elsewhere")


def into_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def into_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def into_a_huge_one(file: Path) -> None:
    os.truncate(file, disk_cache.MAX_FILE + 10)


def with_a_foreign_key(file: Path) -> None:
    file.write_bytes(DiskCacheKey(b"f" * 32).seal(b"x" * 4096, b"trueup-secret-cache-1\nq"))


def sealed_nonsense(file: Path) -> None:
    file.write_bytes(KEY.seal(b"\xff" * 4096, b"trueup-secret-cache-1\nq"))


def answer_of_another_question(file: Path) -> None:
    other = save(Machine(file.parent), b"another")
    other.rename(file)


@pytest.mark.parametrize(
    "harm",
    [
        *(pytest.param(flip(position), id=f"byte {position}") for position in (0, 12, 100, -1)),
        *(pytest.param(cut_to(size), id=f"cut to {size}") for size in (0, 1, 12, 27, 28, 4000)),
        *(into_a_link, into_a_directory, into_a_pipe, into_a_huge_one),
        *(with_a_foreign_key, sealed_nonsense, answer_of_another_question),
    ],
)
async def test_damaged_and_foreign_files_are_ignored_with_one_warning(
    machine: Machine,
    filled: InfisicalDouble,
    harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    harm(file := save(machine))
    os.utime(file, (WALL, WALL), follow_symlinks=False)
    disk = machine.disk()
    disk.max_age = 86_400
    for _ in range(3):
        assert disk.load(b"q", MARK) is None
    [warning] = caplog.records
    assert warning.getMessage().startswith(f"the secret cache at {machine.directory}: ")
    assert await state(machine.start(filled)) is SourceState.FRESH


async def test_what_cannot_be_written_stays_in_memory(
    machine: Machine, filled: InfisicalDouble, caplog: pytest.LogCaptureFixture
) -> None:
    store = machine.start(filled)
    machine.directory.rmdir()
    machine.directory.touch()
    for _ in range(3):
        values = await store.refresh("prod", "production")
        assert values["KEY"].value.reveal() == VALUE
    assert await state(store) is SourceState.CACHED
    store.clear_cache()
    told = [record.getMessage() for record in caplog.records if "secret cache" in record.getMessage()]
    where = f"the secret cache at {machine.directory}"
    assert told == [
        f"{where}: it cannot be read: Not a directory",
        f"{where}: it cannot be written: Not a directory; secrets are kept in memory only",
        f"{where}: it cannot be cleared: Not a directory",
    ]


def test_it_is_bounded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "MAX_FILES", 3)
    disk = machine.disk()
    disk.max_age = 86_400
    for number in range(6):
        machine.passes(1)
        disk.save(bytes([number]), MARK, stored(machine), disk.drops(bytes([number])))
    assert [load(machine, bytes([number])) is None for number in range(6)] == [True] * 3 + [False] * 3
    size = machine.files[0].stat().st_size
    monkeypatch.setattr(disk_cache, "MAX_TOTAL", 2 * size)
    load(machine)
    assert len(machine.files) == 2
    # A list that is too large by itself is not written at all.
    monkeypatch.setattr(disk_cache, "MAX_FILE", size)
    disk.save(b"large", MARK, stored(machine, "x" * 10_000), disk.drops(b"large"))
    assert len(machine.files) == 2


def test_what_is_too_old_or_left_over_is_swept(machine: Machine) -> None:
    save(machine, b"old")
    machine.passes(86_000)
    save(machine, b"young")
    draft = machine.directory / "0123.4567.draft"
    draft.touch()
    os.utime(draft, (WALL, WALL))
    foreign = machine.directory / "notes.txt"
    foreign.touch()
    machine.passes(1000)
    assert load(machine, b"never asked") is None
    assert len(machine.files) == 2
    assert load(machine, b"young") == {"KEY": VALUE}
    assert foreign in machine.files


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
