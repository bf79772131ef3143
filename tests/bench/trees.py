"""Trees to copy: made from a seed, changed a little, and compared."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
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


def insert_at_front(where: Path, *, seed: int) -> None:
    """One byte before all others: no block of a fixed grid holds what it did."""
    file = where / "large.bin"
    longer = file.with_suffix(".longer")
    with file.open("rb") as old, longer.open("wb") as new:
        new.write(bytes([seed % 256]))
        while chunk := old.read(16 * MIB):
            new.write(chunk)
    longer.replace(file)


def make_small_files(
    where: Path, count: int, *, seed: int = 2, smallest: int = SMALLEST, largest: int = LARGEST
) -> None:
    """Many small files, a hundred to a directory, two levels deep."""
    source = random.Random(seed)
    for number in range(count):
        if number % FILES_PER_DIRECTORY == 0:
            group = number // FILES_PER_DIRECTORY
            directory = where / f"{group // 25:02}" / f"part-{group:04}"
            directory.mkdir(parents=True)
        (directory / f"file-{number:06}.dat").write_bytes(_small(source, smallest, largest))


def change_small_files(where: Path, *, seed: int, smallest: int = SMALLEST, largest: int = LARGEST) -> None:
    """Rewrite a hundredth of the files with other contents and sizes."""
    source = random.Random(seed)
    files = sorted(path for path in where.rglob("*.dat"))
    for path in source.sample(files, max(1, int(len(files) * CHANGED))):
        path.write_bytes(_small(source, smallest, largest))


def change_one_file(where: Path, *, seed: int) -> None:
    """Rewrite one of the small files with another content and size, as most commits do."""
    source = random.Random(seed)
    path = source.choice(sorted(where.rglob("*.dat")))
    path.write_bytes(_small(source, SMALLEST, LARGEST))


def make_mixed_files(where: Path, size: int, *, seed: int = 4) -> None:
    """So many bytes in files of 200 bytes to a MiB, a hundred to a directory."""
    source = random.Random(seed)
    number = 0
    while size > 0:
        directory = where / f"part-{number // FILES_PER_DIRECTORY:03}"
        directory.mkdir(parents=True, exist_ok=True)
        length = min(size, int(SMALLEST * (MIB / SMALLEST) ** source.random()))
        (directory / f"file-{number:06}.dat").write_bytes(source.randbytes(length))
        size -= length
        number += 1


def change_files(where: Path, *, seed: int) -> None:
    """Rewrite a hundredth of the files with other contents of the same size."""
    source = random.Random(seed)
    files = sorted(where.rglob("*.dat"))
    for path in source.sample(files, max(1, int(len(files) * CHANGED))):
        path.write_bytes(source.randbytes(path.stat().st_size))


def _small(source: random.Random, smallest: int, largest: int) -> bytes:
    return source.randbytes(int(smallest * (largest / smallest) ** source.random()))


def size_of(where: Path) -> int:
    """The bytes of all files below a directory."""
    return sum(path.stat().st_size for path in where.rglob("*") if path.is_file())


def differences(left: Path, right: Path, options: Sequence[str] = ()) -> list[str]:
    """What rsync would change in `right` to make it equal to `left`, by contents; at most ten lines.

    `options` are rsync's, for what is not to be compared.
    """
    command = ["rsync", "-anci", "--delete", *options, f"{left}/", f"{right}/"]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    return found.stdout.splitlines()[:10]
