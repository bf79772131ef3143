"""The files of the cache on disk: they show nothing, nothing in them is believed, and they are bounded."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.secrets import disk_cache
from reconciler.secrets.disk_cache_key import DiskCacheKey, load_or_make
from reconciler.secrets.freshness import SourceState
from tests.canaries import search_tree
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.restarting import KEY, MARK, WALL, Machine, load, save, state, stored
from tests.reconciler.secrets.sources import VALUE


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
