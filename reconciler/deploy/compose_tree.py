"""Where the files of a compose project stand for as long as it runs.

Containers mount files of the checkout by path, and a checkout is gone after its deploy. So its files are
placed below the state directory, always at the same path, and changed in place: what containers wrote
between them stays, and so does everything else that was not placed from here.

Containers may write into mounted directories as root. No link of theirs is followed: every step on the way
to a file is opened relative to the one before.
"""

import filecmp
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

_LIST = "placed"
_TREE = "tree"
_TEMPORARY = ".trueup-placing"


def place(checkout: Path, home: Path) -> Path:
    """Make the tree in `home` hold the files of `checkout`; returns its path. Blocks; raises OSError.

    Files that an earlier call placed and that are not wanted any more go.
    """
    tree = home / _TREE
    for directory in (home.parent, home, tree):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = dict(_files(checkout))
    before = _listed(home)
    # Killed in the middle, the next call knows of everything that may be there.
    _write_list(home, before | wanted.keys())
    with _opened(tree) as root:
        for path in sorted(before - wanted.keys()):
            _remove(root, PurePosixPath(path))
        for path, source in sorted(wanted.items()):
            _put(root, PurePosixPath(path), source)
    _write_list(home, wanted)
    return tree


def clear(home: Path) -> None:
    """Remove what was placed, and nothing else. Blocks; raises OSError."""
    tree = home / _TREE
    if tree.is_dir():
        with _opened(tree) as root:
            for path in sorted(_listed(home)):
                _remove(root, PurePosixPath(path))
    (home / _LIST).unlink(missing_ok=True)
    for directory in (tree, home):
        with suppress(OSError):  # data of containers stays
            directory.rmdir()


def _files(checkout: Path) -> Iterator[tuple[str, Path]]:
    for directory, names, files in os.walk(checkout):
        here = Path(directory)
        if here == checkout:
            names[:] = [name for name in names if name != ".git"]
        links = [name for name in names if (here / name).is_symlink()]
        for name in (*files, *links):
            path = here / name
            yield path.relative_to(checkout).as_posix(), path


def _listed(home: Path) -> frozenset[str]:
    try:
        text = (home / _LIST).read_bytes()
    except FileNotFoundError:
        return frozenset()
    return frozenset(os.fsdecode(line) for line in text.split(b"\0") if line)


def _write_list(home: Path, paths: Iterable[str]) -> None:
    new = home / f"{_LIST}.new"
    new.write_bytes(b"\0".join(os.fsencode(path) for path in sorted(paths)))
    new.replace(home / _LIST)


@contextmanager
def _opened(path: Path | str, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _parent(root: int, path: PurePosixPath, *, make: bool) -> Iterator[int]:
    """The directory that holds a path. With `make` it is there afterwards, whatever stood in its way."""
    if len(path.parts) == 1:
        yield root
        return
    first = path.parts[0]
    if make:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(first, dir_fd=root).st_mode):
                os.unlink(first, dir_fd=root)
        with suppress(FileExistsError):
            os.mkdir(first, 0o755, dir_fd=root)
    with (
        _opened(first, root) as directory,
        _parent(directory, PurePosixPath(*path.parts[1:]), make=make) as held,
    ):
        yield held


def _remove(root: int, path: PurePosixPath) -> None:
    """A file, and the directories that are empty without it."""
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, OSError):
        with _parent(root, path, make=False) as directory:
            os.unlink(path.name, dir_fd=directory)
        for parent in path.parents[:-1]:
            with _parent(root, parent, make=False) as directory:
                os.rmdir(parent.name, dir_fd=directory)


def _put(root: int, path: PurePosixPath, source: Path) -> None:
    with _parent(root, path, make=True) as directory:
        status = source.lstat()
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        if _is_same(directory, path.name, source, mode):
            return
        with suppress(FileNotFoundError):
            os.unlink(_TEMPORARY, dir_fd=directory)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(source.readlink(), _TEMPORARY, dir_fd=directory)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(_TEMPORARY, flags, mode, dir_fd=directory)
            with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
                shutil.copyfileobj(original, copy)
                os.fchmod(copy.fileno(), mode)
        with suppress(OSError):
            os.rmdir(path.name, dir_fd=directory)  # docker makes a directory where a file to mount is missing
        os.replace(_TEMPORARY, path.name, src_dir_fd=directory, dst_dir_fd=directory)


def _is_same(directory: int, name: str, source: Path, mode: int) -> bool:
    try:
        there = os.lstat(name, dir_fd=directory)
        if source.is_symlink():
            there_too = stat.S_ISLNK(there.st_mode)
            return there_too and os.readlink(name, dir_fd=directory) == str(source.readlink())
        if not stat.S_ISREG(there.st_mode) or stat.S_IMODE(there.st_mode) != mode:
            return False
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        return filecmp.cmp(source, f"/proc/self/fd/{descriptor}", shallow=False)
    finally:
        os.close(descriptor)
