"""What an agent remembers of a target of strategy `release`: the versions it keeps and which is current.

One file a target in the agent's state directory, next to the manifests of other targets and replaced
atomically. Each version has a manifest of its own, as if it were a target, in a state directory that is
this target's alone. Only versions that are listed here are ever removed.
"""

import hashlib
import os
import posixpath
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from agent.errors import PathRefused, RemoteProtocolError
from agent.failures import TaskFailed
from agent.manifest import Identity, manifest_path, write_record
from agent.wire.messages import KeptVersion, Task

RECORD_VERSION = 1

FOLDER = "releases"
"""Where a target's versions are, each a directory."""

CURRENT = "current"
"""The symlink that leads to one of them."""

BUILDING = ".trueup-building"
"""The version that is being put together; it gets its name once it is whole."""

MAX_KEPT = 100
MAX_REVISION = 255

_NAME = re.compile(r"([1-9][0-9]{0,17})-[0-9a-f]{12}")


class Releases(msgspec.Struct, frozen=True, kw_only=True):
    """`kept` are whole versions, in the order in which they were last switched to; `current` names one.

    `next` stands from before a whole version gets its name until it is listed. `after_due` stands from
    before the switch until the commands named in `after` succeeded.
    """

    version: int = RECORD_VERSION
    project: str
    target: str
    root: Identity
    made: bool = False
    """Whether the target's own directory was made by a task."""
    kept: tuple[KeptVersion, ...] = ()
    current: str = ""
    next: KeptVersion | None = None
    number: int = 0
    """The highest that a version was given."""
    after: tuple[str, ...] = ()
    after_due: bool = False

    def named(self, name: str) -> KeptVersion | None:
        return next((each for each in self.kept if each.name == name), None)

    def with_tree(self, tree: bytes) -> KeptVersion | None:
        """The version that holds `tree`, the one that was switched to last if several do."""
        return next((each for each in reversed(self.kept) if each.tree == tree), None)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Releases)


def record_path(state_dir: Path, target: str) -> Path:
    """Where the record of the target at the absolute path `target` is kept."""
    return manifest_path(state_dir, target).with_suffix(".releases")


def versions_state(state_dir: Path, target: str) -> Path:
    """The state directory of the target's versions, each of which has its manifest there."""
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
    return state_dir / "releases" / digest


def version_manifest(state_dir: Path, target: str, name: str) -> Path:
    """Where the manifest of a version of the target is kept."""
    return manifest_path(versions_state(state_dir, target), version_path(target, name))


def version_path(target: str, name: str) -> str:
    return posixpath.join(target, FOLDER, name)


def load_releases(path: Path) -> Releases | None:
    """The record, or None where no task has run. Blocks; raises TaskFailed for one that is no use."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = _decoder.decode(content)
    except msgspec.MsgspecError:
        record = None
    if record is None or record.version != RECORD_VERSION:
        raise TaskFailed(
            "ManifestUnreadable",
            f"the record of what was placed is damaged or newer than this agent: {path}",
            hint="remove it: the versions that are there then stay, and are nobody's",
        )
    return record


def save_releases(path: Path, record: Releases, *, durable: bool) -> None:
    """Replaces the record. Blocks; with `durable` it is on disk when this returns."""
    write_record(path, _encoder.encode(record), durable=durable)


def check_release(task: Task) -> None:
    """Raises RemoteProtocolError for what no primary should ask of a release."""
    if not 1 <= task.keep <= MAX_KEPT:
        raise RemoteProtocolError(f"the task keeps {task.keep} releases: 1 to {MAX_KEPT} can be kept")
    if len(task.revision) > MAX_REVISION or not (task.revision.isprintable() or not task.revision):
        raise RemoteProtocolError("the name of the task's revision is no name")


def check_layout(private: Collection[str]) -> None:
    """Raises PathRefused where the agent's own files, relative to the target, lie among the versions."""
    for path in private:
        if path.split("/")[0] in (FOLDER, CURRENT, BUILDING):
            raise PathRefused(
                f"{path!r} in the target is where this agent keeps its own files",
                hint="name another directory",
            )


def new_name(record: Releases, there: Iterable[str], tree: bytes) -> tuple[int, str]:
    """A number above all that were ever given, and the name that a version of `tree` gets with it."""
    numbers = [int(match[1]) for name in there if (match := _NAME.fullmatch(name))]
    number = max([record.number, *numbers]) + 1
    return number, f"{number}-{tree.hex()[:12]}"


def unlisted(record: Releases, there: Iterable[str]) -> list[str]:
    """The names of versions that are there and in no record, the oldest first: they are never removed. Pure.

    So it is with all that there are once a record was lost, and with those that were more than a record
    says, because of which they stayed."""
    known = {each.name for each in record.kept}
    found = {name: int(match[1]) for name in there if (match := _NAME.fullmatch(name)) and name not in known}
    return sorted(found, key=lambda name: found[name])


def settle(record: Releases, there: Collection[str], link: str) -> Releases:
    """The record of what a task that may have been killed left: the disk decides. Pure.

    `there` are the names of the directories in `releases`, `link` the one that `current` leads to.
    """
    kept = [each for each in record.kept if each.name in there]
    if record.next is not None and record.next.name in there and record.named(record.next.name) is None:
        # It has its name, so it is whole.
        kept.insert(max(0, len(kept) - 1), record.next)
    settled = msgspec.structs.replace(record, kept=tuple(kept), current="", next=None)
    current = settled.named(link)
    return switched(settled, current) if current is not None else settled


def switched(record: Releases, version: KeptVersion) -> Releases:
    """The record once `current` leads to `version`. Pure."""
    others = tuple(each for each in record.kept if each.name != version.name)
    return msgspec.structs.replace(record, kept=(*others, version), current=version.name)


def surplus(record: Releases, keep: int) -> list[KeptVersion]:
    """The versions beyond `keep`, those least recently switched to first; never the current one. Pure."""
    others = [each for each in record.kept if each.name != record.current]
    return others[: max(0, len(record.kept) - keep)]
