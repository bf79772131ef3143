"""What a target holds, set against the manifest: what is ours, what was edited, what is foreign.

Looking changes nothing. A file whose stamp fits is believed to hold what the manifest says; any other
is read.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import trio

from agent.changes import Seen
from agent.ignore import Ignore
from agent.index import (
    PERMISSIONS,
    ancestors,
    directory_entry,
    file_entry,
    symlink_entry,
    tree_digest,
)
from agent.manifest import Identity, Listing, Manifest, Placed, doubtful, settle_doubts, torn
from agent.owners import Ids, Owners
from agent.ownership import NameRun, Names, spread
from agent.reuse import Content, Searchable
from agent.scan import Found, hash_files, scan
from agent.wire.messages import Entry


@dataclass(frozen=True, slots=True)
class Scope:
    """What a task looks at. `forbidden` are rendered files and the agent's own, which no index may name;
    `reserved` are these and other targets inside this one."""

    ignore: Ignore
    forbidden: frozenset[str]
    reserved: frozenset[str]
    delete_foreign: bool
    keep_edits: bool
    ignore_permissions: bool
    owners: Owners | None = None
    """What names come to; None where owners do not count."""

    @property
    def above_reserved(self) -> frozenset[str]:
        return frozenset(above for path in self.reserved for above in ancestors(path))

    def owner_ids(self, names: Mapping[str, Names]) -> dict[str, Ids]:
        """By path, what is to be given to whom; blocks."""
        return self.owners.wanted(names) if self.owners is not None else {}

    def owner_warnings(self, runs: Iterable[NameRun]) -> list[str]:
        """About the names that are not used here; blocks."""
        warning = self.owners.warning(runs) if self.owners is not None else ""
        return [warning] if warning else []

    def leaves_out(self, path: str, is_dir: bool) -> bool:
        return path in self.reserved or (bool(self.ignore) and self.ignore.covers(path, is_dir))


@dataclass(slots=True)
class View:
    """A target as it was found, by path."""

    found: dict[str, Found] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    """What an ignore line, a reservation or trueup's own names kept out of `found`."""
    ignored_folders: set[str] = field(default_factory=set)
    """Those of `ignored` that are directories."""
    entered: frozenset[str] | None = frozenset()
    """Directories that were looked into where they exist; None: all."""
    ours: dict[str, Placed] = field(default_factory=dict)
    blocks: dict[str, bytes | None] = field(default_factory=dict)
    """The digests of files whose content is known; None for one that changed while it was read."""
    edited: set[str] = field(default_factory=set)
    """Paths of ours where something else stands now; one where nothing stands is no edit."""
    torn: set[str] = field(default_factory=set)
    """Paths of ours that a crash left incomplete."""
    known: bool = False
    """Whether there is a manifest, so that there is something to compare."""
    files_glanced: int = 0
    """Files that are as they were, at a glance; nothing else is known of them here."""
    files_read: int = 0
    """Files that had to be read, as nothing was known of them."""
    untouched: bool = False
    """Whether all that the manifest lists is there, as it was when the manifest was saved."""
    read_at: int = 0
    """When reading began, in nanoseconds since the epoch."""
    names: dict[str, Names] = field(default_factory=dict)
    """Whose ours are to be, by name, as far as that counts."""
    disowned: dict[str, bool] = field(default_factory=dict)
    """What of ours has another owner than this host would give it; see `changes.diff`."""
    besides: Listing | tuple[()] = ()
    """Where only what a task is about was looked at: all that is recorded, this included, and stands."""
    rendered: Collection[str] = ()
    """Paths of rendered files that were placed, by whatever task."""

    @property
    def ours_in_all(self) -> int:
        """Entries of ours, looked at or not."""
        return len(self.besides or self.ours)

    @property
    def files_known(self) -> int:
        """Files whose content is known without reading them."""
        return self.files_glanced + max(0, len(self.blocks) - self.files_read)

    def leave_behind(self, keep_edits: bool) -> None:
        """Forgets what a copy would not have that is made of what is as it was placed."""
        kept = {path for path, placed in self.ours.items() if keep_edits or not placed.kept}
        self.found = {path: found for path, found in self.found.items() if path in kept}
        self.ignored, self.ignored_folders, self.entered = set(), set(), None
        if not keep_edits:
            # The path stays, as something else will be there, or nothing; the content is not taken along.
            self.blocks.update((path, None) for path in self.edited & self.blocks.keys())

    def entry_of(self, path: str) -> Entry | None:
        """What stands at `path`, as an index would have it; None for nothing, a FIFO or the like, or a
        file that could not be read without changing."""
        found = self.found.get(path)
        if found is None:
            return None
        if found.kind == "directory":
            return directory_entry(path, mode=found.mode, mtime_ns=found.mtime_ns)
        if found.kind == "symlink":
            return symlink_entry(path, mtime_ns=found.mtime_ns, link=found.link)
        blocks = self.blocks.get(path) if found.kind == "file" else None
        if blocks is None:
            return None
        return file_entry(path, mode=found.mode, size=found.size, mtime_ns=found.mtime_ns, blocks=blocks)

    def contents(self) -> "Contents":
        """The files whose content is known."""
        return Contents(self)

    def holds(self, entry: Entry) -> bool:
        """Whether the content of `entry` is at its path, whatever its mode and time."""
        found = self.found.get(entry.path)
        if found is None or found.kind != entry.kind:
            return False
        if found.kind == "file":
            return found.size == entry.size and self.blocks.get(entry.path) == entry.blocks
        return found.link == entry.link

    def is_as_placed(self, entry: Entry) -> bool:
        """Whether `entry` is of the manifest itself, of a file whose stamp fits; False may be either."""
        # `_believe` takes the very object from the manifest, where there is something to take.
        if not entry.blocks or self.blocks.get(entry.path) is not entry.blocks:
            return False
        placed = self.ours.get(entry.path)
        return placed is not None and placed.entry is entry and not placed.kept

    def seen(self, besides: Collection[str] = ()) -> dict[str, Seen]:
        """All that was found but `besides`, as `changes.diff` wants it.

        A local edit that was kept is nobody's to delete: trueup may never have placed anything there.
        """
        ours, edited, blocks = self.ours, self.edited, self.blocks
        return {
            path: Seen(
                found.kind,
                found.mode & PERMISSIONS,
                found.size,
                found.mtime_ns,
                blocks.get(path),
                found.link,
                path in ours and not (ours[path].kept and path in edited),
                path in edited,
                found.kind == "file" and found.nlink > 1,
            )
            for path, found in self.found.items()
            if path not in besides
        }

    def protected(self, scope: Scope) -> frozenset[str]:
        """Directories that hold something ignored or reserved: they can't go, so they don't count."""
        return scope.above_reserved.union(above for path in self.ignored for above in ancestors(path))

    def foreign(self, scope: Scope) -> int:
        """Entries that are not ours and count."""
        uncounted = self.uncounted(scope)
        return sum(1 for path in self.found if path not in self.ours and path not in uncounted)

    def uncounted(self, scope: Scope) -> frozenset[str]:
        """What is not foreign though it is not the tree's: rendered files that were placed, and the
        directories that hold these, or ignored or reserved paths."""
        placed = (each for path in self.rendered for each in (path, *ancestors(path)))
        return self.protected(scope).union(placed)


@dataclass(frozen=True, slots=True)
class Contents(Searchable):
    """Of what a view has found, and of what it knows besides."""

    view: View

    def __iter__(self) -> Iterator[Content]:
        return self._with(self.view.besides)

    def holding(self, blocks: Collection[bytes]) -> Iterator[Content]:
        besides = self.view.besides
        return self._with(besides.holding(blocks) if besides else ())

    def _with(self, besides: Iterable[Placed]) -> Iterator[Content]:
        view = self.view
        for path, found in view.found.items():
            if found.kind == "file" and (blocks := view.blocks.get(path)):
                yield path, found.size, blocks
        for entry in (placed.entry for placed in besides):
            if entry.blocks and entry.path not in view.found:
                yield entry.path, entry.size, entry.blocks


async def look(root_fd: int, identity: Identity, manifest: Manifest | None, scope: Scope) -> View:
    """Scans a target and reads what must be read to know what is ours and whether it is as placed."""
    view = View(read_at=time.time_ns(), known=manifest is not None)
    view.rendered = manifest.rendered if manifest is not None else ()
    doubts = await trio.to_thread.run_sync(_scan_at_first, view, root_fd, scope, manifest, identity)
    if manifest is not None:
        if doubts:
            await read_contents(view, root_fd, doubts)
        await trio.to_thread.run_sync(_take_ours, view, scope, manifest, identity, doubts)
        view.untouched = (
            view.untouched and not doubts and len(view.ours) == len(manifest.placed) and not view.edited
        )
    await read_contents(view, root_fd, view.found if scope.delete_foreign else view.ours)
    if manifest is not None and manifest.owners and scope.owners is not None:
        await trio.to_thread.run_sync(_look_at_owners, view, manifest, scope.owners)
    return view


def _look_at_owners(view: View, manifest: Manifest, owners: Owners) -> None:
    """A local edit that was kept is somebody else's."""
    view.names = spread((placed.entry.path for placed in manifest.placed), manifest.owned)
    differing = owners.differing(view.found, view.names)
    view.disowned = {
        path: several
        for path, several in differing.items()
        if path in view.ours and not view.ours[path].kept and path not in view.edited
    }


def _scan_at_first(
    view: View, root_fd: int, scope: Scope, manifest: Manifest | None, identity: Identity
) -> set[str]:
    """Gives the paths whose content must be read before the manifest can be believed."""
    folders, doubts = set[str](), set[str]()
    if manifest is not None:
        doubts = doubtful(manifest, identity)
        folders.update(item.entry.path for item in manifest.placed if item.entry.kind == "directory")
        # What was about to be placed may lie in a directory that was there before and is not listed yet.
        folders.update(doubts, *(ancestors(path) for path in doubts))
    _scan_into(view, root_fd, scope, folders)
    if manifest is not None:
        _believe(view, manifest.placed)
    return doubts


def _scan_into(view: View, root_fd: int, scope: Scope, folders: Collection[str]) -> None:
    only = None if scope.delete_foreign else frozenset(folders) | scope.above_reserved
    result = scan(root_fd, scope.ignore, only=only, reserved=scope.reserved)
    for path in [path for path in view.blocks if result.found.get(path) != view.found.get(path)]:
        del view.blocks[path]
    view.found, view.entered = result.found, only
    view.ignored, view.ignored_folders = result.ignored, result.ignored_folders


def _believe(view: View, items: Iterable[Placed]) -> None:
    """Takes the content of files whose stamps fit from the manifest."""
    found_at, blocks = view.found.get, view.blocks
    untouched = True
    for placed in items:
        entry, stamp = placed.entry, placed.stamp
        found = found_at(entry.path)
        if found is None:
            untouched = False
        elif stamp is not None and stamp.fits(found):
            blocks[entry.path] = entry.blocks
        elif (
            found.kind != entry.kind
            or found.kind == "file"
            or found.link != entry.link
            or (found.kind == "directory" and found.mode & PERMISSIONS != entry.mode)
        ):
            untouched = False
    view.untouched = untouched


def _take_ours(
    view: View, scope: Scope, manifest: Manifest, identity: Identity, doubts: Collection[str]
) -> None:
    if doubts:
        on_disk = {path: now for path in doubts if (now := view.entry_of(path)) is not None}
        settled = settle_doubts(manifest, identity, on_disk)
        view.torn = torn(manifest, identity, on_disk)
    else:
        settled = {placed.entry.path: placed for placed in manifest.placed}
    # What was found is not left out, or it would not have been found.
    view.ours = {
        path: placed
        for path, placed in settled.items()
        if path in view.found or not scope.leaves_out(path, placed.entry.kind == "directory")
    }


async def look_for(view: View, root_fd: int, index: Mapping[str, Entry], scope: Scope) -> None:
    """Looks at what else an index concerns: directories not entered so far, files not yet read."""

    def look_further() -> None:
        entered = view.entered
        if entered is not None and any(
            found.kind == "directory" and path in index and path not in entered
            for path, found in view.found.items()
        ):
            _scan_into(view, root_fd, scope, entered | index.keys())
            _believe(view, view.ours.values())

    await trio.to_thread.run_sync(look_further)
    await read_contents(view, root_fd, view.ours.keys() | index.keys())


async def read_contents(view: View, root_fd: int, paths: Collection[str]) -> None:
    """Reads the files among `paths` that were found and whose content is not known yet."""

    def unread() -> list[tuple[str, Found]]:
        found_at, blocks = view.found.get, view.blocks
        return [
            (path, found)
            for path in sorted(path for path in paths if path not in blocks)
            if (found := found_at(path)) is not None and found.kind == "file"
        ]

    files = await trio.to_thread.run_sync(unread)
    if files:
        view.files_read += len(files)
        view.blocks.update(await hash_files(root_fd, files))
    await trio.to_thread.run_sync(_find_edits, view)


def _find_edits(view: View) -> None:
    """A file that was not read, as nobody asked, counts as edited until it is."""
    if view.untouched and not view.files_read:
        view.edited = set()
        return
    view.edited = {
        path
        for path, placed in view.ours.items()
        if path in view.found and path not in view.torn and not view.holds(placed.entry)
    }


def observed_entries(view: View, scope: Scope) -> list[Entry]:
    """What a task compares with the tree: ours as it is now; with `delete_foreign` all that is there.

    Where local edits are kept by policy, an edited entry counts as what the tree wanted there: it is
    as it should be.
    """
    entries: list[Entry] = []
    for path, placed in view.ours.items():
        if path not in view.found:
            continue
        if scope.keep_edits and path in view.edited:
            entries.append(placed.entry)
        else:
            entries.append(_as_now(view, path))
    if scope.delete_foreign:
        protected = view.protected(scope)
        entries += [
            _as_now(view, path) for path in view.found if path not in view.ours and path not in protected
        ]
    return entries


def _as_now(view: View, path: str) -> Entry:
    entry = view.entry_of(path)
    # What no index can hold must not compare equal to one that leaves it out.
    return entry if entry is not None else Entry(path=path, kind="file", size=-1)


def observed_digest(view: View, scope: Scope, manifest: Manifest | None) -> bytes:
    """The tree digest of `observed_entries`; empty where nothing of ours could be there."""
    if not view.known and not scope.delete_foreign:
        return b""
    if (
        manifest is not None
        and view.untouched
        and not scope.delete_foreign
        and manifest.tree
        and manifest.tree_has_modes is not scope.ignore_permissions
    ):
        return manifest.tree
    return tree_digest(observed_entries(view, scope), ignore_permissions=scope.ignore_permissions)
