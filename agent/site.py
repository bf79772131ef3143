"""A target of strategy `release` on the disk: `releases` with its versions, and the symlink `current`.

Everything is done relative to held descriptors and follows no symlink. Here it blocks.
"""

import contextlib
import errno
import os
import stat
from types import TracebackType

from agent.errors import PathRefused
from agent.failures import TaskFailed
from agent.folders import OPEN_FOLDER
from agent.pulse import beat
from agent.target import Target
from agent.versions import BUILDING, CURRENT, FOLDER

_PREPARED = ".trueup-current"
"""The symlink that will be `current`, for the moment before it is renamed."""


class Site:
    """The open target, and `releases` in it once that is there."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._releases = -1

    def __enter__(self) -> "Site":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._releases >= 0:
            os.close(self._releases)
            self._releases = -1
        self.target.close()

    def _folder(self) -> int | None:
        if self._releases < 0:
            try:
                self._releases = os.open(FOLDER, OPEN_FOLDER, dir_fd=self.target.fd)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise PathRefused(
                        f"{FOLDER!r} in {self.target.path!r} is a symlink or no directory: not followed",
                        hint="move it away",
                    ) from error
                raise
        return self._releases

    # --- looking -------------------------------------------------------------------------------

    def versions(self) -> set[str]:
        """The names of the directories in `releases`, ours or not; not the one that is being built."""
        folder = self._folder()
        if folder is None:
            return set()
        with os.scandir(folder) as items:
            return {item.name for item in items if item.is_dir(follow_symlinks=False)} - {BUILDING}

    def is_building(self) -> bool:
        folder = self._folder()
        return folder is not None and _kind(BUILDING, folder) == stat.S_IFDIR

    def current(self) -> str:
        """The name of the version that `current` leads to; empty where there is no such link.

        Raises TaskFailed where something stands there that no release has put there.
        """
        kind = _kind(CURRENT, self.target.fd)
        if kind is None:
            return ""
        if kind == stat.S_IFLNK:
            link = os.readlink(CURRENT, dir_fd=self.target.fd)
            above, _, name = link.rpartition("/")
            # An absolute one is how other tools make it; a switch replaces it.
            if above in (FOLDER, f"./{FOLDER}", f"{self.target.path}/{FOLDER}"):
                return name
        raise TaskFailed(
            "PathOccupied",
            f"{CURRENT!r} in {self.target.path!r} is no symlink to one of its {FOLDER}",
            hint="move it away, or name another target_path: releases need one of their own",
        )

    # --- changing ------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Removes what was being built, and a link that was prepared and not put in place."""
        if _kind(_PREPARED, self.target.fd) is not None:
            os.unlink(_PREPARED, dir_fd=self.target.fd)
        folder = self._folder()
        if folder is not None:
            remove_tree(folder, BUILDING)

    def name(self, name: str, *, durable: bool) -> None:
        """Gives the version that was built its name."""
        folder = self._folder()
        assert folder is not None
        # Nothing else makes such names, and rename would replace an empty directory.
        if _kind(name, folder) is not None:
            raise TaskFailed("TargetChanged", f"{name!r} appeared in {FOLDER!r}", hint="try again")
        os.rename(BUILDING, name, src_dir_fd=folder, dst_dir_fd=folder)
        if durable:
            os.fsync(folder)

    def switch(self, name: str, *, durable: bool) -> None:
        """Lets `current` lead to a version: one rename, before which it leads to the one before."""
        self.current()  # nothing that is not a release's own is replaced
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_PREPARED, dir_fd=self.target.fd)
        os.symlink(f"{FOLDER}/{name}", _PREPARED, dir_fd=self.target.fd)
        os.rename(_PREPARED, CURRENT, src_dir_fd=self.target.fd, dst_dir_fd=self.target.fd)
        if durable:
            os.fsync(self.target.fd)

    def remove_link(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CURRENT, dir_fd=self.target.fd)

    def remove_version(self, name: str) -> None:
        """Removes a version with all that is in it, whosever that is."""
        folder = self._folder()
        if folder is not None:
            remove_tree(folder, name)

    def remove_folder(self) -> bool:
        """Removes `releases` if it is empty; whether it is gone."""
        if self._releases >= 0:
            os.close(self._releases)
            self._releases = -1
        try:
            os.rmdir(FOLDER, dir_fd=self.target.fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
                return False
            raise
        return True


def _kind(name: str, folder: int) -> int | None:
    try:
        return stat.S_IFMT(os.lstat(name, dir_fd=folder).st_mode)
    except FileNotFoundError:
        return None


def remove_tree(above: int, name: str) -> None:
    """Removes whatever has `name` in the directory open as `above`, with all below it."""
    kind = _kind(name, above)
    if kind is None:
        return
    if kind != stat.S_IFDIR:
        os.unlink(name, dir_fd=above)
        return
    fd = os.open(name, OPEN_FOLDER, dir_fd=above)
    try:
        if os.geteuid() != 0:
            os.fchmod(fd, 0o700)  # a tree may have directories in which nobody may write
        with os.scandir(fd) as items:
            names = [item.name for item in items]
        for each in names:
            beat()
            remove_tree(fd, each)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=above)
