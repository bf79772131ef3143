"""Directories and symlinks that have another time on the disk than is recorded. Pure.

No look minds such a time, so that what is recorded of it proves nothing, where times count.
"""

from collections.abc import Iterable, Mapping

from agent.glance import Rows, times_in
from agent.ledger import Ledger
from agent.manifest import Manifest, Placed
from agent.scan import Found


def late_in(manifest: Manifest, rows: Rows) -> frozenset[str]:
    """Those of what a manifest lists, in the rows that a glance has seen."""
    inside: dict[str, dict[str, int]] = {}
    for entry in (placed.entry for placed in manifest.placed):
        if entry.kind != "file":
            above, _, name = entry.path.rpartition("/")
            inside.setdefault(above, {})[name] = entry.mtime_ns
    late: set[str] = set()
    for folder, wanted in inside.items():
        there = times_in(rows, folder)
        names = (name for name, mtime_ns in wanted.items() if there.get(name) != mtime_ns)
        late.update(f"{folder}/{name}" if folder else name for name in names)
    return frozenset(late)


def late_after(
    ledger: Ledger, gone: Iterable[str], recorded: Iterable[Placed], found: Mapping[str, Found]
) -> frozenset[str]:
    """Those after a task, which has left `found` of what it `recorded`, and nothing of what is `gone`; the
    ledger has those from before."""
    late = set(ledger.late).difference(gone)
    for entry in (placed.entry for placed in recorded):
        late.discard(entry.path)
        if entry.kind != "file" and found[entry.path].mtime_ns != entry.mtime_ns:
            late.add(entry.path)
    return frozenset(late)
