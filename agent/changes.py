"""What has to be done to bring a target to an index. Pure: the same inputs give the same changes."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from agent.failures import TaskFailed
from agent.filenames import named
from agent.index import PERMISSIONS
from agent.wire.messages import Entry

ALWAYS_DELETED = 2
"""Deletions that every `max_delete` but 0 allows: a file that was renamed, and its directory."""

_NOTHING: Final[Mapping[str, bool]] = MappingProxyType({})


class Seen(msgspec.Struct, frozen=True, gc=False):
    """One thing in a target. `kind` is an `Entry`'s, or "other".

    `blocks` is None for a file whose content is not known, as it needs not be or kept changing.
    `ours` means that the manifest lists it, `edited` that it no longer holds what trueup placed.
    """

    kind: str
    mode: int
    size: int
    mtime_ns: int
    blocks: bytes | None = None
    link: str = ""
    ours: bool = False
    edited: bool = False
    linked: bool = False
    """Whether it is a file that has several names."""

    def holds(self, entry: Entry) -> bool:
        """Whether this has the content of `entry`, whatever its mode and time."""
        if self.kind != entry.kind:
            return False
        if self.kind == "file":
            return self.size == entry.size and self.blocks == entry.blocks
        return self.link == entry.link


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a task may do to what it finds; the fields are `Task`'s."""

    strategy: Literal["mirror", "overlay"] = "mirror"
    delete_foreign: bool = False
    max_delete: float = 0.5
    allow_empty: bool = False
    on_local_edit: Literal["overwrite", "keep", "backup"] = "overwrite"
    ignore_permissions: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """An entry to place. `backup`: what stands there now is a local edit and is saved first."""

    entry: Entry
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """Steps in the order in which they are done; paths to remove are deepest first."""

    save_first: tuple[str, ...] = ()
    """Local edits where a directory must be, renamed to backups."""
    remove_first: tuple[str, ...] = ()
    """What stands where something of another kind must be."""
    folders: tuple[Entry, ...] = ()
    writes: tuple[Write, ...] = ()
    links: tuple[Write, ...] = ()
    touch: tuple[Entry, ...] = ()
    """Files and directories whose content is right and whose owner, mode or time is not."""
    save_last: tuple[str, ...] = ()
    """Local edits that the tree has no more, renamed to backups instead of deleted."""
    delete: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    """Paths of the index where a local edit stays."""
    local_edits: int = 0

    def __bool__(self) -> bool:
        return bool(
            self.save_first
            or self.remove_first
            or self.folders
            or self.writes
            or self.links
            or self.touch
            or self.save_last
            or self.delete
        )

    def placed(self) -> Iterator[Entry]:
        """What comes to stand in the target, or gets another content."""
        yield from self.folders
        yield from (write.entry for write in self.writes)
        yield from (write.entry for write in self.links)

    def removed(self) -> tuple[str, ...]:
        """What stands no more where it stood."""
        return *self.save_first, *self.remove_first, *self.save_last, *self.delete


def diff(
    index: Sequence[Entry],
    seen: Mapping[str, Seen],
    policy: Policy,
    *,
    ours: Collection[str],
    ours_in_all: int | None = None,
    ignored: Collection[str] = (),
    protected: Collection[str] = (),
    disowned: Mapping[str, bool] = _NOTHING,
) -> Changes:
    """The changes that bring a target in which `seen` was found to `index`.

    `ours` are the manifest's paths, seen or not; `ours_in_all`, how many it has where these are not all.
    `ignored` are paths found and left out of `seen`;
    `protected` are directories that must stay though no index names them. `disowned` is what has another
    owner than it should, and whether that is a file with several names: such a file is written anew, as the
    other names may be anybody's, and so is a symlink. Raises TaskFailed where a
    guard of the policy forbids it, before anything is changed.
    """
    if not index and not policy.allow_empty:
        raise TaskFailed(
            "EmptyTree",
            "the tree to place is empty",
            hint="correct the project's path or build; to empty the target, take the project out of the spec",
        )
    count = len(ours) if ours_in_all is None else ours_in_all
    return _Differ(index, seen, policy, ours, count, ignored, protected, disowned).run()


class _Differ:
    def __init__(
        self,
        index: Sequence[Entry],
        seen: Mapping[str, Seen],
        policy: Policy,
        ours: Collection[str],
        ours_in_all: int,
        ignored: Collection[str],
        protected: Collection[str],
        disowned: Mapping[str, bool],
    ) -> None:
        self._index = index
        self._seen = seen
        self._policy = policy
        self._ours = ours
        self._ours_in_all = ours_in_all
        self._ignored = ignored
        self._protected = protected
        self._disowned = disowned
        self._sorted_seen: list[str] | None = None
        self._save_first: list[str] = []
        self._remove_first: list[str] = []
        self._folders: list[Entry] = []
        self._writes: list[Write] = []
        self._links: list[Write] = []
        self._touch: list[Entry] = []
        self._save_last: list[str] = []
        self._delete: list[str] = []
        self._kept: set[str] = set()
        self._local_edits = 0

    def run(self) -> Changes:
        for entry in self._index:
            there = self._seen.get(entry.path)
            if there is None:
                self._place(entry)
            elif there.holds(entry):
                self._touch_up(entry, there)
            elif entry.kind == "directory":
                self._clear_for_folder(entry, there)
            else:
                self._replace(entry, there)
        if self._policy.strategy == "mirror":
            self._remove_the_rest()
        self._guard_deletions()
        return Changes(
            save_first=tuple(self._save_first),
            remove_first=tuple(self._remove_first),
            folders=tuple(self._folders),
            writes=tuple(self._writes),
            links=tuple(self._links),
            touch=tuple(self._touch),
            save_last=tuple(self._save_last),
            delete=tuple(self._delete),
            kept=frozenset(self._kept),
            local_edits=self._local_edits,
        )

    def _place(self, entry: Entry, *, backup: bool = False) -> None:
        if entry.kind == "directory":
            self._folders.append(entry)
        elif entry.kind == "symlink":
            self._links.append(Write(entry, backup))
        else:
            self._writes.append(Write(entry, backup))

    def _touch_up(self, entry: Entry, there: Seen) -> None:
        wrong_owner = entry.path in self._disowned
        wrong_time = entry.kind != "directory" and there.mtime_ns != entry.mtime_ns
        if entry.kind == "symlink":
            if wrong_owner or wrong_time:
                self._place(entry)
            return
        wrong_mode = not self._policy.ignore_permissions and there.mode != entry.mode & PERMISSIONS
        if (wrong_owner and self._disowned[entry.path]) or (there.linked and (wrong_mode or wrong_time)):
            self._place(entry)  # the other names may be anybody's, or of the tree too and right
        elif wrong_owner or wrong_mode or wrong_time:
            self._touch.append(entry)

    def _is_local_edit(self, there: Seen) -> bool:
        return there.edited or not there.ours

    def _clear_for_folder(self, entry: Entry, there: Seen) -> None:
        """Something that is no directory stands where one must be."""
        if self._is_local_edit(there):
            self._local_edits += 1
            if self._policy.on_local_edit == "keep":
                raise TaskFailed(
                    "LocalEditInTheWay",
                    f"{entry.path!r} is a {there.kind} in the target and a directory in the tree",
                    hint="move it away, or let local edits be overwritten or backed up",
                )
            if self._policy.on_local_edit == "backup":
                self._save_first.append(entry.path)
                self._folders.append(entry)
                return
        self._remove_first.append(entry.path)
        self._folders.append(entry)

    def _replace(self, entry: Entry, there: Seen) -> None:
        """A file or symlink must stand where something else does."""
        backup = False
        if self._is_local_edit(there):
            self._local_edits += 1
            if self._policy.on_local_edit == "keep":
                self._kept.add(entry.path)
                return
            backup = self._policy.on_local_edit == "backup" and there.kind != "directory"
        if there.kind == "directory":
            self._empty_folder(entry.path)
        self._place(entry, backup=backup)

    def _empty_folder(self, folder: str) -> None:
        """Removes a directory and all in it, as long as nobody else's files are there."""
        inside = self._below(folder)
        for path in inside:
            if not self._may_go(path):
                raise TaskFailed(
                    "ForeignFiles",
                    f"{folder!r} is a directory in the target, not in the tree, and holds {named(path)}, "
                    "which trueup did not place or somebody changed",
                    hint="move it away, or set delete_foreign",
                )
        hidden = next((path for path in sorted(self._ignored) if path.startswith(f"{folder}/")), None)
        if hidden is not None:
            raise TaskFailed(
                "ForeignFiles",
                f"{folder!r} is a directory in the target, not in the tree, and holds {named(hidden)}, "
                "which is ignored or kept apart and is never deleted",
                hint="move it away",
            )
        self._remove_first.extend(reversed(inside))
        self._remove_first.append(folder)

    def _may_go(self, path: str) -> bool:
        if self._policy.strategy == "overlay" or path in self._protected:
            return False
        there = self._seen[path]
        if there.ours and not there.edited:
            return True
        if self._policy.delete_foreign:
            return True
        return there.ours and self._policy.on_local_edit == "overwrite"

    def _below(self, folder: str) -> list[str]:
        if self._sorted_seen is None:
            self._sorted_seen = sorted(self._seen)
        paths = self._sorted_seen
        # "0" follows "/", so these bounds hold exactly what starts with `folder/`.
        return paths[bisect_left(paths, f"{folder}/") : bisect_left(paths, f"{folder}0")]

    def _remove_the_rest(self) -> None:
        wanted = {entry.path for entry in self._index}
        gone = set(self._remove_first)
        for path in sorted(self._seen, reverse=True):
            if path in wanted or path in gone or path in self._protected:
                continue
            there = self._seen[path]
            if not there.ours:
                if self._policy.delete_foreign:
                    self._delete.append(path)
            elif not there.edited:
                self._delete.append(path)
            else:
                self._local_edits += 1
                if self._policy.on_local_edit == "overwrite":
                    self._delete.append(path)
                elif self._policy.on_local_edit == "backup" and there.kind != "directory":
                    self._save_last.append(path)

    def _guard_deletions(self) -> None:
        """Judges by two shares: what is ours and goes by all that is ours, and all that goes by all that may.

        One alone would not do: among much of others' that stays, all that is ours would be a small share.
        """
        wanted = {entry.path for entry in self._index}
        going = {path for paths in (self._remove_first, self._delete) for path in paths if path not in wanted}
        ours = sum(1 for path in going if path in self._ours)
        if foreign := len(going) - ours:
            # What others put there goes with `delete_foreign` alone: then all that is there is at stake.
            there = self._ours_in_all + sum(
                1 for path in self._seen if path not in self._ours and path not in self._protected
            )
            if self._is_too_much(len(going), there):
                raise self._too_much(
                    f"{len(going)} of {there} entries there would be deleted, {foreign} of them foreign,",
                    "look with `trueup plan --files`; raise max_delete for this project if that is meant",
                )
        if self._is_too_much(ours, self._ours_in_all):
            beside = f", and {foreign} foreign ones," if foreign else ""
            raise self._too_much(
                f"{ours} of {self._ours_in_all} placed entries would be deleted{beside or ','}",
                "raise max_delete for this project if that is meant",
            )

    def _is_too_much(self, going: int, of: int) -> bool:
        share = self._policy.max_delete
        # In a small tree a share is nothing: renaming its only file would be a deletion of all.
        return going > (max(share * of, ALWAYS_DELETED) if share else 0)

    def _too_much(self, what: str, hint: str) -> TaskFailed:
        told = f"{what} and max_delete allows {self._policy.max_delete:.0%}"
        return TaskFailed("TooManyDeletions", told, hint=hint)
