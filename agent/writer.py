"""Puts files, links and directories into a target, each whole or not at all.

A file is put together in the staging directory of the target's root, so on the same file system, and
renamed to its name once it is complete, verified and has its owner, mode and time. What replaces
something waits in staging until `commit`, so that an update that fails half way has changed no file;
what is new is placed at once, so that a first copy that was cut resumes. All is done relative to
held directory descriptors, and each entry is looked at again right before it is replaced or removed.

Everything here blocks and runs in worker threads, several at a time.
"""

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from agent.backups import save_beside
from agent.blocks import block_count, block_size_for
from agent.changes import Write
from agent.errors import PathRefused
from agent.failures import TaskFailed, about
from agent.filenames import named
from agent.folders import Folders
from agent.index import PERMISSIONS, STAGING, directory_entry
from agent.modes import LEFT_ALONE, change
from agent.owners import NOBODYS, UNCHANGED, Ids, give
from agent.scan import Found, look_at, same_thing
from agent.staging import (
    Landed,
    Partial,
    Staged,
    drop_staged,
    leave_staging,
    open_staging,
    stage_file,
    stage_link,
    sweep_staging,
    write_all,
    write_sparsely,
)
from agent.wire.messages import Entry

_WRITER_BITS = 0o700


class Writer:
    """All writing of one task into the target open as `root_fd`.

    `found` is what was there when the changes were planned; whoever finds something else in its place
    treats it as a local edit, by `on_local_edit`. `owners`: by path, what is to be given to whom. With
    `holds`, what is new waits for `commit` as well. Results are in `landed` (by path), `kept` (where a local
    edit stays after all), `backups`, `written` (files and links) and `deleted`. Raises OSError as system
    calls do, about a path in the target, PathRefused where a symlink turned up in the way.
    """

    def __init__(
        self,
        root_fd: int,
        found: Mapping[str, Found],
        *,
        on_local_edit: Literal["overwrite", "keep", "backup"] = "overwrite",
        ignore_permissions: bool = False,
        owners: Mapping[str, Ids] | None = None,
        holds: bool = False,
    ) -> None:
        self.root_fd = root_fd
        self._found = found
        self._on_local_edit = on_local_edit
        self._ignore_permissions = ignore_permissions
        self._owners = owners or {}
        self._holds = holds
        self._numbers = itertools.count()
        self.staging_fd = -1
        self.keeps_staging = False
        self._waiting: list[Staged] = []
        self._open: set[Partial] = set()
        self.landed: dict[str, Landed] = {}
        self.kept: set[str] = set()
        self.made_above: set[str] = set()
        self._made: dict[str, Found | None] = {}
        self.backups: list[str] = []
        self.written = 0
        self.deleted = 0
        self._count_lock = threading.Lock()

    # --- staging -------------------------------------------------------------------------------

    def open_staging(self) -> None:
        with about(STAGING):
            self.staging_fd = open_staging(self.root_fd)

    def close(self) -> None:
        """Removes staging, unless it is to be kept and something is in it; never raises, as it runs when
        something failed."""
        for partial in list(self._open):
            self._abandon(partial)
        if self.staging_fd >= 0:
            os.close(self.staging_fd)
            self.staging_fd = -1
            with contextlib.suppress(OSError, PathRefused):
                if self.keeps_staging:
                    os.rmdir(STAGING, dir_fd=self.root_fd)
                else:
                    sweep_staging(self.root_fd)

    def _stage_for(self, entry: Entry, *, whole: bool = False) -> tuple[int, str]:
        found = self._found.get(entry.path)
        at_once = whole and found is None and not self._holds
        kept_for = None if at_once else entry  # what is placed at once is not found in staging after a cut
        # A new file may get the source's bits as the umask leaves them; staging itself lets nobody in.
        own_mode = self._ignore_permissions and (found is None or found.kind != "file")
        mode = 0o600 | (entry.mode & PERMISSIONS if own_mode else 0)
        fd, name = stage_file(self.staging_fd, next(self._numbers), entry.path, kept_for, mode)
        if self._ignore_permissions and found is not None and found.kind == "file":
            os.fchmod(fd, found.mode & PERMISSIONS)
        return fd, name

    # --- files ---------------------------------------------------------------------------------

    def put(self, folders: Folders, write: Write, content: bytes | bytearray | memoryview) -> None:
        """Places a file whose whole, verified content is at hand."""
        fd, name = self._stage_for(write.entry, whole=True)
        try:
            with about(write.entry.path):
                write_all(fd, content, 0)
                landed = self._dress(fd, write.entry)
        finally:
            os.close(fd)
        self._place_or_wait(folders, Staged(write, name, landed))

    def begin(self, write: Write) -> Partial:
        """Starts a file of several blocks."""
        fd, name = self._stage_for(write.entry)
        partial = Partial(write, fd, name, block_count(write.entry.size))
        self._open.add(partial)
        return partial

    def put_block(
        self, folders: Folders, partial: Partial, number: int, content: bytes | bytearray | memoryview
    ) -> bool:
        """Writes one verified block; whether the file is complete with it, and then placed."""
        write = write_all if number in partial.soiled else write_sparsely
        with about(partial.write.entry.path):
            write(partial.fd, content, number * block_size_for(partial.write.entry.size))
        return self._complete(folders, partial) if partial.arrived() else False

    def count_block(self, folders: Folders, partial: Partial) -> bool:
        """Counts one block that needs no writing: it is there, or nothing but zeros. Else as `put_block`."""
        return self._complete(folders, partial) if partial.arrived() else False

    def _complete(self, folders: Folders, partial: Partial) -> bool:
        try:
            with about(partial.write.entry.path):
                # No truncate: a crash must leave it short, as torn.
                if os.fstat(partial.fd).st_size < (size := partial.write.entry.size):
                    write_all(partial.fd, b"\0", size - 1)
                landed = self._dress(partial.fd, partial.write.entry)
        finally:
            self._open.discard(partial)
            os.close(partial.fd)
        self._place_or_wait(folders, Staged(partial.write, partial.name, landed))
        return True

    def _abandon(self, partial: Partial) -> None:
        self._open.discard(partial)
        os.close(partial.fd)

    def _dress(self, fd: int, entry: Entry) -> Landed:
        give(fd, self._owners.get(entry.path, NOBODYS), entry.path)
        if not self._ignore_permissions:
            os.fchmod(fd, entry.mode & PERMISSIONS)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        status = os.fstat(fd)
        return Landed(status.st_ino, status.st_mtime_ns)

    def make_links(self, writes: Iterable[Write]) -> None:
        """Places symlinks."""
        with Folders(self.root_fd) as folders:
            for write in writes:
                name = f"{next(self._numbers):x}"
                ids = self._owners.get(write.entry.path, NOBODYS)
                landed = stage_link(write.entry, name, self.staging_fd, ids)
                self._place_or_wait(folders, Staged(write, name, landed))

    def _place_or_wait(self, folders: Folders, staged: Staged) -> None:
        if self._holds or staged.write.entry.path in self._found:
            self._waiting.append(staged)
        else:
            self._place(folders, staged)

    @property
    def waiting(self) -> int:
        """Replacements that `commit` will make."""
        return len(self._waiting)

    def plan_waiting(self, writes: Mapping[str, Write], found: Mapping[str, Found]) -> None:
        """Of what waits, these are placed, as they say, over what was found since."""
        self._found = found
        waiting = [(staged, writes.get(staged.write.entry.path)) for staged in self._waiting]
        self._waiting = [replace(staged, write=write) for staged, write in waiting if write is not None]

    def commit(self, limit: int) -> bool:
        """Puts up to `limit` replacements in place; whether there are more."""
        batch, self._waiting = self._waiting[:limit], self._waiting[limit:]
        with Folders(self.root_fd) as folders:
            for staged in batch:
                self._place(folders, staged)
        return bool(self._waiting)

    def _place(self, folders: Folders, staged: Staged) -> None:
        path = staged.write.entry.path
        with about(path):
            if not self._make_way(folders, path, backup=staged.write.backup):
                drop_staged(path, self.staging_fd, staged.name)
                self.kept.add(path)
                return
            leave_staging(folders, path, self.staging_fd, staged.name)
        self.landed[path] = staged.landed
        with self._count_lock:
            self.written += 1

    def _make_way(self, folders: Folders, path: str, *, backup: bool) -> bool:
        """Looks at what is about to be replaced; False if it must stay after all."""
        now = look_at(folders, path)
        if now is None:
            return True
        if now.kind == "directory":
            raise TaskFailed(
                "TargetChanged", f"{path!r} became a directory while the task ran", hint="try again"
            )
        surprise = not same_thing(now, self._found.get(path))
        if surprise and self._on_local_edit == "keep":
            return False
        if backup or (surprise and self._on_local_edit == "backup"):
            self.backups.append(save_beside(folders, path))
        return True

    # --- rendered files ------------------------------------------------------------------------

    def put_rendered(self, path: str, content: bytes, *, mode: int, uid: int, gid: int) -> None:
        """Places a file made in memory, over whatever file or link is there.

        It is never readable by anybody but the agent's user before it has its owner and its mode.
        """
        with Folders(self.root_fd) as folders, about(path):
            self._make_above(folders, path)
            there = look_at(folders, path)
            if there is not None and there.kind == "directory":
                raise TaskFailed(
                    "PathOccupied",
                    f"{path!r} shall be a rendered file and is a directory",
                    hint="move it away",
                )
            fd, staged = stage_file(self.staging_fd, next(self._numbers), path)
            try:
                write_all(fd, content, 0)
                if (uid, gid) != (UNCHANGED, UNCHANGED):
                    os.fchown(fd, uid, gid)
                os.fchmod(fd, mode & PERMISSIONS)
                # These are few, and placed after everything else went to the disk.
                os.fsync(fd)
            finally:
                os.close(fd)
            leave_staging(folders, path, self.staging_fd, staged)
            self.written += 1

    def _make_above(self, folders: Folders, path: str) -> None:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above, name = folders.locate("/".join(parts[:depth]))
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
                self.made_above.add("/".join(parts[:depth]))

    # --- directories, modes and times ----------------------------------------------------------

    def make_folders(self, entries: Iterable[Entry]) -> None:
        """Makes directories, those above first; one that is there already is as good."""
        with Folders(self.root_fd) as folders:
            for entry in entries:
                with about(entry.path):
                    above, name = folders.locate(entry.path)
                    try:
                        os.mkdir(name, (entry.mode & PERMISSIONS) | _WRITER_BITS, dir_fd=above)
                        self._made[entry.path] = look_at(folders, entry.path)
                    except FileExistsError:
                        folders.fd(entry.path)  # refuses what is no directory

    def unlock_folders(self, paths: Iterable[str]) -> list[Entry]:
        """Lets the agent's user write in directories of ours that forbid it; their entries as found."""
        unlocked: list[Entry] = []
        if os.geteuid() == 0:
            return unlocked
        with Folders(self.root_fd) as folders:
            for path in paths:
                found = self._found.get(path)
                if found is None or found.kind != "directory" or not _WRITER_BITS & ~found.mode:
                    continue
                with about(path):
                    change(folders, path, found.mode & PERMISSIONS | _WRITER_BITS, None)
                unlocked.append(directory_entry(path, mode=found.mode, mtime_ns=found.mtime_ns))
        return unlocked

    def finish_folders(self, entries: Iterable[Entry], *, modes: bool) -> None:
        """Gives directories, deepest first, their owners and times and with `modes` their modes, once nothing
        more is written in them. One that is gone or was replaced is for the next look."""
        with Folders(self.root_fd) as folders:
            for entry in sorted(entries, key=lambda entry: entry.path, reverse=True):
                with contextlib.suppress(FileNotFoundError, PathRefused):
                    mode = entry.mode & PERMISSIONS if modes else None
                    time = None if entry.mtime_ns == LEFT_ALONE else entry.mtime_ns
                    self._change(folders, entry.path, mode, time)

    def touch(self, entries: Iterable[Entry]) -> None:
        """Gives files whose content is right the owner, mode and time of the tree."""
        with Folders(self.root_fd) as folders:
            for entry in entries:
                if not same_thing(look_at(folders, entry.path), self._found.get(entry.path)):
                    continue  # edited meanwhile; the next look sees it
                mode = None if self._ignore_permissions else entry.mode & PERMISSIONS
                self._change(folders, entry.path, mode, entry.mtime_ns)

    def _change(self, folders: Folders, path: str, mode: int | None, mtime_ns: int | None) -> None:
        ids = self._owners.get(path, NOBODYS)
        found = self._made.get(path, self._found.get(path))  # a file may have stood there before
        with about(path):
            ino, time = change(folders, path, mode, mtime_ns, ids, found)
        if ino is not None:
            self.landed[path] = Landed(ino, time)

    # --- removal -------------------------------------------------------------------------------

    def save(self, paths: Iterable[str]) -> None:
        """Renames local edits to backups."""
        with Folders(self.root_fd) as folders:
            for path in paths:
                if look_at(folders, path) is None:
                    continue
                with about(path):
                    self.backups.append(save_beside(folders, path))
                    above, name = folders.locate(path)
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=above)

    def clear(self, paths: Iterable[str]) -> None:
        """Removes what is in the way of something of another kind, deepest first."""
        with Folders(self.root_fd) as folders:
            for path in paths:
                if not self._remove(folders, path):
                    raise TaskFailed(
                        "ForeignFiles",
                        f"{named(path)} is in the way of the tree and changed or was filled"
                        " while the task ran",
                        hint="move away what trueup did not place, and try again",
                    )

    def delete(self, paths: Sequence[str]) -> list[str]:
        """Removes what the tree no longer has, deepest first; the paths that stayed.

        A directory stays while anything is in it, and so does what somebody changed meanwhile, unless
        local edits are overwritten.
        """
        with Folders(self.root_fd) as folders:
            return [path for path in paths if not self._remove(folders, path)]

    def _remove(self, folders: Folders, path: str) -> bool:
        """Whether nothing is at `path` any more."""
        with about(path):
            now = look_at(folders, path)
            removed = now is not None and self._remove_found(folders, path, now)
        self.deleted += removed
        return removed or now is None

    def _remove_found(self, folders: Folders, path: str, now: Found) -> bool:
        before = self._found.get(path)
        above, name = folders.locate(path)
        if now.kind == "directory":
            if before is None or before.kind != "directory":
                return False
            try:
                os.rmdir(name, dir_fd=above)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
            return True
        if not same_thing(now, before):
            if self._on_local_edit == "keep" or before is None:
                return False
            if self._on_local_edit == "backup":
                self.backups.append(save_beside(folders, path))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above)
        return True
