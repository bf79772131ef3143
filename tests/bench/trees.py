"""Trees to copy: made from a seed, changed a little, and compared."""

from __future__ import annotations

import filecmp
import os
import random
import stat
from pathlib import Path

MIB = 1024 * 1024
SMALLEST, LARGEST = 200, 16 * 1024  # bytes of a small file; in between evenly on a logarithmic scale
FILES_PER_DIRECTORY = 100
CHANGED = 0.01
_RUNS = 16  # places over which the changed hundredth of the one large file is spread


def make_large_file(where: Path, size: int, *, seed: int = 1) -> None:
    """One file of incompressible bytes."""
    source = random.Random(seed)
    where.mkdir(parents=True)
    with (where / "large.bin").open("wb") as file:
        for start in range(0, size, 16 * MIB):
            file.write(source.randbytes(min(16 * MIB, size - start)))


def change_large_file(where: Path, *, seed: int) -> None:
    """Overwrite a hundredth of the file, in a few runs spread evenly."""
    source = random.Random(seed)
    size = (where / "large.bin").stat().st_size
    run = int(size * CHANGED / _RUNS)
    with (where / "large.bin").open("r+b") as file:
        for number in range(_RUNS):
            file.seek(number * size // _RUNS + source.randrange(size // _RUNS - run))
            file.write(source.randbytes(run))


def make_small_files(where: Path, count: int, *, seed: int = 2) -> None:
    """Many small files, a hundred to a directory, two levels deep."""
    source = random.Random(seed)
    for number in range(count):
        if number % FILES_PER_DIRECTORY == 0:
            group = number // FILES_PER_DIRECTORY
            directory = where / f"{group // 25:02}" / f"part-{group:04}"
            directory.mkdir(parents=True)
        (directory / f"file-{number:06}.dat").write_bytes(_small(source))


def change_small_files(where: Path, *, seed: int) -> None:
    """Rewrite a hundredth of the files with other contents and sizes."""
    source = random.Random(seed)
    files = sorted(path for path in where.rglob("*.dat"))
    for path in source.sample(files, max(1, int(len(files) * CHANGED))):
        path.write_bytes(_small(source))


def _small(source: random.Random) -> bytes:
    return source.randbytes(int(SMALLEST * (LARGEST / SMALLEST) ** source.random()))


def size_of(where: Path) -> int:
    """The bytes of all files below a directory."""
    return sum(path.stat().st_size for path in where.rglob("*") if path.is_file())


def differences(left: Path, right: Path) -> list[str]:
    """What differs between two trees: names, kinds, permission bits and contents; at most ten lines."""
    found: list[str] = []
    waiting = [Path()]
    while waiting and len(found) < 10:
        here = waiting.pop()
        names = set(os.listdir(left / here))
        found += [f"{here / name}: on one side only" for name in names ^ set(os.listdir(right / here))]
        for name in names & set(os.listdir(right / here)):
            path = here / name
            modes = [(side / path).lstat().st_mode for side in (left, right)]
            if modes[0] != modes[1]:
                found.append(f"{path}: kinds or permissions differ")
            elif stat.S_ISDIR(modes[0]):
                waiting.append(path)
            elif not filecmp.cmp(left / path, right / path, shallow=False):
                found.append(f"{path}: contents differ")
    return found[:10]
