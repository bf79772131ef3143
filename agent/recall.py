"""The last close look at a target, kept beside its manifest: where a glance shows the same, it still holds.

This is the index cache: of 50,000 entries none is decoded, compared or kept as long as nothing changed, and
where a task brings another tree, none but those that differ (`agent.concern`). It is worth nothing by itself:
it names the manifest that it goes with, and the task has to ask for the same things.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.checked import read_checked, write_checked
from agent.features import owners_of
from agent.glance import Glance, Rows, glance_of, rows_if_still, still, with_changes
from agent.index import parent_of
from agent.lateness import late_after
from agent.ledger import Ledger
from agent.ledger_file import save_ledger
from agent.look import Scope, View
from agent.manifest import Identity, Manifest, look_path, state_of
from agent.record import Recorded
from agent.scan import Found, settled
from agent.target import Target
from agent.wire.messages import Task

_VERSION = 2

MOST_KEPT = 200_000
"""Files of a target up to which a mere look keeps what it has seen, some 20 MiB, for a task that follows."""


class LastLook(msgspec.Struct, frozen=True, array_like=True):
    """A target in which everything was as its manifest says; `record` is the state of that file."""

    version: int
    record: bytes
    scope: bytes
    root: Identity
    project: str
    tree: bytes
    after: tuple[str, ...]
    after_due: bool
    rendered: tuple[str, ...]
    foreign: int
    files: int
    """Whose content is known."""
    glance: Glance
    owners: bytes = b""
    """As in the manifest."""
    names: tuple[tuple[str, str, int, int], ...] = ()
    """The names of owners and groups in it, and what they came to."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LastLook)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A last look that still holds; `rows`: what is in each directory, where somebody may ask for it."""

    last: LastLook
    rows: Rows = field(default_factory=dict)


def recall(
    record: Path, target: Target, task: Task, scope: Scope, recent: Recalled | None = None
) -> Recalled | None:
    """The last look, if it was one for a task that asks for the same and all is as it was then; blocks.

    `recent` is one that was found to hold a moment ago. None, too, where something can't be looked at, and
    where the task brings other owners than there were: it has to look closely anyway.
    """
    if (content := read_checked(look_path(record))) is None:
        return None
    try:
        last = _decoder.decode(content)
    except msgspec.MsgspecError:
        return None
    if (
        last.version != _VERSION
        or last.record != state_of(record)
        or last.root != target.identity
        or last.scope != _digest_of(scope)
        or last.project != task.project
        or not set(last.rendered).issuperset(file.path for file in task.rendered)
        or not _same_names(last, scope)
    ):
        return None
    owners = owners_of(task)
    if not task.observe and last.tree == task.tree and last.owners == owners:
        return Recalled(last) if still(target.fd, last.glance) else None
    if not task.observe:
        if last.owners or owners:
            return None
        if recent is not None and recent.last == last:
            return recent
    if task.observe and last.files > MOST_KEPT:
        return Recalled(last) if still(target.fd, last.glance) else None
    rows = rows_if_still(target.fd, last.glance)
    return Recalled(last, rows) if rows is not None else None


def _same_names(last: LastLook, scope: Scope) -> bool:
    """Whether the host still makes of each name what it made of it then."""
    owners = scope.owners
    return owners is None or all(owners.ids((name[0], name[1])) == name[2:] for name in last.names)


def remember(record: Path, manifest: Manifest, scope: Scope, view: View, foreign: int) -> None:
    """Keeps a look that found everything as `manifest` says, where that is so; blocks.

    What cannot be kept is looked at closely again; nothing else depends on it.
    """
    ours = view.ours
    if (
        not view.untouched
        or view.files_read
        or view.edited
        or view.disowned
        or any(placed.kept for placed in ours.values())
        or manifest.pending
        or manifest.deleting
        or not manifest.tree
        or manifest.tree_has_modes is scope.ignore_permissions
        or manifest.ignore != scope.ignore.lines
        or manifest.delete_foreign is not scope.delete_foreign
        or (scope.delete_foreign and foreign)
    ):
        return
    extras = {path: there.kind == "directory" for path, there in view.found.items() if path not in ours}
    extras.update((path, path in view.ignored_folders) for path in view.ignored)
    entered = view.entered
    folders = [
        path
        for path, there in view.found.items()
        if there.kind == "directory" and (entered is None or path in entered)
    ]
    _write_look(record, manifest, scope, view, folders, extras, foreign)


def remember_placed(
    record: Path,
    manifest: Manifest,
    scope: Scope,
    view: View,
    recorded: Recorded,
    gone: Mapping[str, Found | None],
    rendered: Iterable[str],
) -> None:
    """Keeps what a task has made of what `view` saw, as a look at it now would find it; blocks.

    `gone` is what there is now at the paths from which it took something, `rendered` are paths of rendered
    files. Whatever else changed since the view is found by the next glance: it sees what nobody looked at.
    """
    if not recorded.as_written or recorded.disowned:
        return
    found = {**view.found, **recorded.found}
    for path, there in gone.items():
        if there is not None:
            found[path] = there
        elif path not in recorded.found:
            found.pop(path, None)
    files = 0
    for placed in recorded.placed:
        entry = placed.entry
        if placed.kept:
            return
        if entry.kind == "file":
            files += 1
            if placed.stamp is None:
                return
        elif entry.path not in recorded.found and not settled(found[entry.path], view.read_at):
            return
    folders = {entry.path for placed in recorded.placed if (entry := placed.entry).kind == "directory"}
    entered = None
    ignored = set(view.ignored)
    if view.entered is not None:
        entered = scope.above_reserved.union(folders)
        left = view.entered - entered
        found = {path: there for path, there in found.items() if not left or parent_of(path) not in left}
        ignored = {path for path in ignored if parent_of(path) not in left}
    ignored.update(_in_what_is_seen(rendered, found, entered))
    after = View(
        found=found,
        ignored=ignored,
        ignored_folders=view.ignored_folders & ignored,
        entered=entered,
        ours={placed.entry.path: placed for placed in recorded.placed},
        known=True,
        files_glanced=files,
        untouched=True,
        read_at=recorded.at,
        rendered=manifest.rendered,
    )
    remember(record, manifest, scope, after, after.foreign(scope))


def remember_changes(
    record: Path,
    manifest: Manifest,
    recalled: Recalled,
    foreign: int,
    recorded: Recorded,
    gone: Mapping[str, Found | None],
    view: View,
) -> None:
    """Keeps a recalled look with what a task has changed since, and the ledger that the manifest has; blocks.

    `recorded` and `gone` as for `remember_placed`, of what the task was about, and `view` is what it saw of
    that; `foreign` counts what is not trueup's now.
    """
    ledger = manifest.placed
    if not recorded.as_written or not isinstance(ledger, Ledger):
        return
    if any(there is not None and path not in recorded.found for path, there in gone.items()):
        return
    if any(placed.kept or (placed.stamp is None and placed.entry.blocks) for placed in recorded.placed):
        return
    glance = with_changes(recalled.last.glance, recalled.rows, {**gone, **recorded.found}, recorded.at)
    if glance is not None:
        _write(record, _look_of(record, manifest, recalled.last.scope, glance, foreign, ledger.files))
        if ledger.times:
            ledger = ledger.with_late(late_after(ledger, gone, recorded.placed, view.found | recorded.found))
        save_ledger(record, ledger, glance)


def _in_what_is_seen(
    rendered: Iterable[str], found: Mapping[str, Found], entered: Collection[str] | None
) -> Iterable[str]:
    """Those in directories that a look lists: below what is ignored nothing is."""
    for path in rendered:
        above = parent_of(path)
        there = found.get(above)
        is_folder = not above or (there is not None and there.kind == "directory")
        if is_folder and (entered is None or not above or above in entered):
            yield path


def _write_look(
    record: Path,
    manifest: Manifest,
    scope: Scope,
    view: View,
    folders: Iterable[str],
    extras: Mapping[str, bool],
    foreign: int,
) -> None:
    """Keeps what `agent.glance.glance_of` makes of these; blocks."""
    glance = glance_of(view.found, folders, extras, view.read_at)
    if glance is None:
        return
    look = _look_of(record, manifest, _digest_of(scope), glance, foreign, view.files_known)
    if scope.owners is not None:
        look = msgspec.structs.replace(look, names=scope.owners.resolved(manifest.owned))
    _write(record, look)


def _look_of(
    record: Path, manifest: Manifest, scope: bytes, glance: Glance, foreign: int, files: int
) -> LastLook:
    return LastLook(
        version=_VERSION,
        record=state_of(record),
        scope=scope,
        root=manifest.root,
        project=manifest.project,
        tree=manifest.tree,
        after=manifest.after,
        after_due=manifest.after_due,
        rendered=manifest.rendered,
        foreign=foreign,
        files=files,
        glance=glance,
        owners=manifest.owners,
    )


def _write(record: Path, look: LastLook) -> None:
    try:
        content = _encoder.encode(look)
    except UnicodeEncodeError:
        return  # a name that is no UTF-8
    write_checked(look_path(record), content)


def _digest_of(scope: Scope) -> bytes:
    """Of all that decides what a look sees."""
    asked = (
        scope.ignore.lines,
        sorted(os.fsencode(path) for path in scope.reserved),
        scope.delete_foreign,
        scope.ignore_permissions,
    )
    return hashlib.sha256(_encoder.encode(asked)).digest()
