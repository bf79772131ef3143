"""Directories held open below a root: every path is walked without following a symlink.

A path that was checked may be another one a moment later. A descriptor may not: it stays with the
directory it was opened on. So all work on a target is relative to descriptors opened one component
at a time from the root's, each with O_NOFOLLOW and O_DIRECTORY.
"""

import errno
import os
from collections import OrderedDict
from types import TracebackType

from agent.errors import PathRefused
from agent.filenames import named
from agent.pulse import beat

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory and nothing else."""

HELD = 64
"""Descriptors that one walk keeps open."""


class Folders:
    """A bounded set of open directories below `root_fd`, for one thread and a short time.

    The root's descriptor stays the caller's. Raises PathRefused where a component is a symlink or no
    directory, FileNotFoundError where it is missing.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> "Folders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def fd(self, folder: str) -> int:
        """The descriptor of `folder`; empty means the root. Valid until the next call."""
        beat()
        if not folder:
            return self._root_fd
        held = self._open.get(folder)
        if held is not None:
            self._open.move_to_end(folder)
            return held
        above, _, name = folder.rpartition("/")
        missing = [(folder, name)]
        while above and above not in self._open:
            folder = above
            above, _, name = folder.rpartition("/")
            missing.append((folder, name))
        fd = self._root_fd
        if above:
            fd = self._open[above]
            self._open.move_to_end(above)
        for path, component in reversed(missing):
            fd = self._enter(fd, component, path)
        return fd

    def _enter(self, above: int, name: str, path: str) -> int:
        try:
            fd = os.open(name, OPEN_FOLDER, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise PathRefused(
                    f"{named(path)} in the target is a symlink or no directory, and is not followed"
                ) from error
            raise
        self._open[path] = fd
        if len(self._open) > HELD:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def locate(self, path: str) -> tuple[int, str]:
        """The descriptor of the directory that holds `path`, and its name in it."""
        above, _, name = path.rpartition("/")
        return self.fd(above), name
