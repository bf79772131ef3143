"""What trueup placed in a target: the only things it may delete there, and what they held.

One file a target in the agent's state directory, replaced atomically. It is written before new names
appear (`pending`) or old ones go (`deleting`), and again afterwards; `settle_doubts` decides by content
what a killed task left. So a placed file is never unknown, and a foreign one is never listed as ours.
"""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.failures import TaskFailed
from agent.index import same_content
from agent.ownership import NameRun
from agent.scan import Found
from agent.wire.messages import Entry

VERSION = 1

Identity = tuple[int, int, int]
"""Device, inode and time of birth of a target's directory."""


class Stamp(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What `lstat` said of a file whose content was known; equal now means not touched since."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def fits(self, found: Found) -> bool:
        return (
            self.ctime_ns == found.ctime_ns
            and self.mtime_ns == found.mtime_ns
            and self.ino == found.ino
            and self.size == found.size
            and self.dev == found.dev
        )


class Placed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry that is ours. `kept` means that something else stood there and was left by policy `keep`."""

    entry: Entry
    stamp: Stamp | None = None
    """None where a later change might not show; the content is then read again."""
    kept: bool = False


class Listing(Collection[Placed]):
    """What a manifest lists, where it is not decoded as a whole; see `agent.ledger`. All of this may raise
    TaskFailed, for what is damaged."""

    @abstractmethod
    def encoded(self) -> msgspec.Raw:
        """As the manifest has it."""

    @abstractmethod
    def at(self, path: str) -> Placed | None:
        """What is listed at a path."""

    @abstractmethod
    def holding(self, blocks: Collection[bytes]) -> Iterable[Placed]:
        """All files that have one of these blocks, given by their digests, and perhaps others."""


class _Noted(msgspec.Struct, frozen=True, kw_only=True):
    """`root` tells the target's directory from another one that took its place.

    `after_due` stands from before the first change until the commands named in `after` succeeded.
    """

    version: int = VERSION
    project: str
    target: str
    root: Identity
    pending: tuple[Entry, ...] = ()
    deleting: tuple[str, ...] = ()
    """Names that are no UTF-8 are escaped, with a mark (`escaped_apart`): they are nobody's of ours."""
    after: tuple[str, ...] = ()
    after_due: bool = False
    tree: bytes = b""
    """The tree digest of what is placed, without local edits; empty while something is pending."""
    tree_has_modes: bool = True
    made: bool = False
    """Whether the target's own directory was made by a task: only then does a removal take it away."""
    rendered: tuple[str, ...] = ()
    """Paths of rendered files that were placed, or were about to be; what they hold is noted nowhere."""
    ignore: tuple[str, ...] = ()
    """gitignore lines of the task: what they match is nobody's drift."""
    delete_foreign: bool = False
    """Whether whatever else lies there has to go."""
    above_rendered: tuple[str, ...] = ()
    """Directories that were made for them."""
    owners: bytes = b""
    """The digest of the owners that go with `tree`; empty where they do not count, and with an empty one."""
    owned: tuple[NameRun, ...] = ()
    """Whose the entries of `placed` are to be, in their order, whether this host uses the names or not."""


class Manifest(_Noted, frozen=True, kw_only=True):
    __doc__ = _Noted.__doc__

    placed: Collection[Placed] = ()

    def __post_init__(self) -> None:
        if isinstance(self.placed, list):  # it was decoded
            msgspec.structs.force_setattr(self, "placed", tuple(self.placed))


class Unlisted(_Noted, frozen=True, kw_only=True):
    """A manifest whose list is as it is encoded."""

    placed: msgspec.Raw

    def listing(self, placed: Collection[Placed]) -> Manifest:
        """The manifest with its list."""
        noted = {name: getattr(self, name) for name in _Noted.__struct_fields__}
        return Manifest(**noted, placed=placed)

    def decoded(self, path: Path) -> Manifest:
        """As `load` gives it, which raises the same."""
        try:
            return self.listing(_list.decode(self.placed))
        except msgspec.MsgspecError:
            raise unreadable(path) from None


class _Header(msgspec.Struct):
    """What can be read of any version, and quickly of a long one."""

    version: int
    target: str


def _as_encoded(listing: object) -> msgspec.Raw:
    if isinstance(listing, Listing):
        return listing.encoded()
    raise NotImplementedError(type(listing))


_encoder = msgspec.msgpack.Encoder(enc_hook=_as_encoded)
_decoder = msgspec.msgpack.Decoder(Manifest)
_unlisted = msgspec.msgpack.Decoder(Unlisted)
_list = msgspec.msgpack.Decoder(tuple[Placed, ...])
_M = TypeVar("_M", Manifest, Unlisted)


def with_rendered(
    manifest: Manifest,
    before: Manifest | None,
    *,
    rendered: Iterable[str],
    above: Iterable[str],
    made: bool,
) -> Manifest:
    """`manifest` with what a task places besides its tree, added to what earlier ones did in that root."""
    if before is not None and before.root == manifest.root:
        rendered = {*rendered, *before.rendered}
        above = {*above, *before.above_rendered}
        made = made or before.made
    tree = _of_these(manifest.placed, {*rendered, *above})
    return msgspec.structs.replace(
        manifest,
        made=made,
        rendered=tuple(sorted(set(rendered) - tree)),
        above_rendered=tuple(sorted(set(above) - tree)),
    )


def _of_these(placed: Collection[Placed], paths: Collection[str]) -> set[str]:
    """Those of the paths that are listed."""
    if isinstance(placed, Listing):
        return {path for path in paths if placed.at(path) is not None}
    return {path for path in (each.entry.path for each in placed) if path in paths} if paths else set()


def manifest_path(state_dir: Path, target: str) -> Path:
    """Where the manifest of the target at the absolute path `target` is kept."""
    return state_dir / "targets" / f"{hashlib.sha256(os.fsencode(target)).hexdigest()[:32]}.manifest"


def load(path: Path) -> Manifest | None:
    """The manifest, or None where no task has run. Blocks; raises TaskFailed for one that is no use."""
    return _load(path, _decoder)


def load_unlisted(path: Path) -> Unlisted | None:
    """As `load`, without looking into the list."""
    return _load(path, _unlisted)


def _load(path: Path, decoder: "msgspec.msgpack.Decoder[_M]") -> _M | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        if msgspec.msgpack.decode(content, type=_Header).version == VERSION:
            return decoder.decode(content)
    except msgspec.MsgspecError:
        pass
    raise unreadable(path)


def entries_of(placed: Iterable[Placed]) -> list[Entry]:
    """What is placed, without what it is known by; blocks, as a listing decodes all it has for that."""
    return [each.entry for each in placed]


def unreadable(path: Path) -> TaskFailed:
    """What to say of a record that is no use."""
    return TaskFailed(
        "ManifestUnreadable",
        f"the record of what was placed is damaged or newer than this agent: {path}",
        hint="remove it: equal files are adopted, others are then treated as local edits",
    )


def save(path: Path, manifest: Manifest, *, durable: bool) -> None:
    """Replaces the manifest. Blocks; with `durable` it is on disk when this returns.

    What is kept beside the one before goes first: where the clock of the file system is coarse, the next but
    one may have the inode and the times of that, and so pass for it.
    """
    beside = look_path(path), ledger_path(path)
    write_record(path, _encoder.encode(manifest), durable=durable, outdates=beside)


def write_record(path: Path, content: bytes, *, durable: bool, outdates: Iterable[Path] = ()) -> None:
    """Replaces a file in the state directory by one of this content, whole; blocks.

    What it `outdates` is removed when it is written and not in place yet.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(f"{path.suffix}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(fd)
    for old in outdates:
        old.unlink(missing_ok=True)
    fresh.rename(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def look_path(record: Path) -> Path:
    """Where the last look at the target of the manifest at `record` is kept; see `agent.recall`."""
    return record.with_suffix(".look")


def ledger_path(record: Path) -> Path:
    """Where what is known of its runs is kept; see `agent.ledger_file`."""
    return record.with_suffix(".runs")


def forget(record: Path) -> None:
    """Removes what is kept beside a manifest; blocks."""
    for path in (look_path(record), ledger_path(record)):
        path.unlink(missing_ok=True)


def state_of(record: Path) -> bytes:
    """Another one than the manifest before had, as each replaces that; empty for none."""
    try:
        status = record.stat()
    except FileNotFoundError:
        return b""
    return f"{status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_size}".encode()


def other_targets(state_dir: Path, target: str) -> list[str]:
    """Paths of other targets that lie inside `target`, relative to it; a task must not touch them.

    Blocks; raises TaskFailed if a record can't be read, as nobody knows then whose it is.
    """
    inside: list[str] = []
    records = (state_dir / "targets").glob("*")
    for path in sorted(path for path in records if path.suffix in (".manifest", ".releases")):
        try:
            other = msgspec.msgpack.decode(path.read_bytes(), type=_Header).target
        except FileNotFoundError:
            continue
        except msgspec.MsgspecError:
            # It may be of a target inside this one, whose files would then pass for foreign.
            raise unreadable(path) from None
        if other.startswith(f"{target}/"):
            inside.append(other[len(target) + 1 :])
    return inside


def doubtful(manifest: Manifest, root: Identity) -> set[str]:
    """The paths whose content must be read before the manifest can be believed."""
    doubts = {entry.path for entry in manifest.pending} | set(manifest.deleting)
    if manifest.root != root:
        doubts.update(placed.entry.path for placed in manifest.placed)
    return doubts


def settle_doubts(manifest: Manifest, root: Identity, on_disk: Mapping[str, Entry]) -> dict[str, Placed]:
    """What is ours, by path, after a task that may have been killed, or in a root that was replaced.

    `on_disk` holds, for each doubtful path, what is there now; nothing for one that is gone. Content
    decides: what holds what we were about to write, or its `torn` beginning, is ours; what we were about
    to delete is ours only if it still holds what we wrote, as somebody may have put a new file there since.
    """
    ours = {placed.entry.path: placed for placed in manifest.placed}
    suspects: Iterable[str] = manifest.deleting if manifest.root == root else list(ours)
    for path in suspects:
        now = on_disk.get(path)
        if path in ours and (now is None or not same_content(now, ours[path].entry)):
            del ours[path]
    cut = torn(manifest, root, on_disk)
    for entry in manifest.pending:
        now = on_disk.get(entry.path)
        if entry.path in cut or (now is not None and same_content(now, entry)):
            ours[entry.path] = Placed(entry)
    return ours


def torn(manifest: Manifest, root: Identity, on_disk: Mapping[str, Entry]) -> set[str]:
    """The paths of new files that a crash of the host cut short: named, and not all on the disk yet.

    Such a file is known by being shorter than what was to be written and having its very time, which a
    file is given before its name and loses when somebody writes to it. It is no local edit.
    """
    if manifest.root != root:
        return set()
    listed = {placed.entry.path for placed in manifest.placed}
    return {
        entry.path
        for entry in manifest.pending
        if entry.path not in listed
        and (now := on_disk.get(entry.path)) is not None
        and now.kind == entry.kind == "file"
        and now.size < entry.size
        and now.mtime_ns == entry.mtime_ns
    }
