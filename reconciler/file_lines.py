"""What a sync would do to files, in words: for a terminal, and for the page."""

from agent.wire.forecast import DELETE
from reconciler.file_forecasts import ItemView, TargetFiles
from reconciler.logs import printable
from reconciler.progress import size
from reconciler.status.revisions import split_revision


def lines_of(target: TargetFiles) -> list[str]:
    """A block for one target; nothing in it acts on a terminal."""
    head = printable(f"{target.id}: {target.node}:{target.target_path}{revision_of(target)}")
    if target.state in ("unknown", "left"):
        return [head, f"  {left_of(target)}"]
    lines = [head]
    width = max((len(item.deed) for item in target.items), default=0)
    for item in target.items:
        notes = notes_of(item)
        lines.append(f"  {printable(item.deed):{width}}  {name_of(item)}" + (f"  ({notes})" if notes else ""))
    if target.unlisted:
        lines.append(f"  and {target.unlisted} more")
    return [*lines, *(f"  {remark}" for remark in remarks_of(target)), f"  {sums_of(target)}"]


def revision_of(target: TargetFiles) -> str:
    ref, commit = split_revision(target.revision)
    return f" to {printable(ref)}@{printable(commit[:8])}" if commit else ""


def left_of(target: TargetFiles) -> str:
    """Why nothing is said of the files of a target."""
    word = "unknown" if target.state == "unknown" else "left alone"
    return printable(f"{word}: {target.reason}: {target.message}")


def name_of(item: ItemView) -> str:
    mark = "/" if item.kind == "directory" else "@" if item.kind == "symlink" else ""
    return printable(f"{item.path}{mark}")


def notes_of(item: ItemView) -> str:
    notes = []
    if item.requested_bytes or item.reused_bytes:
        notes.append(_bytes_of(item.requested_bytes, item.reused_bytes))
    if item.saved:
        notes.append("the local edit is saved")
    return "; ".join(notes)


def remarks_of(target: TargetFiles) -> list[str]:
    """What is not sent, and what would stop the sync."""
    return [
        *(printable(f"warning: {warning}") for warning in target.warnings),
        *(printable(f"would be refused: {each.reason}: {each.message}") for each in target.guards),
    ]


def sums_of(target: TargetFiles) -> str:
    told = [", ".join(_count_of(target, deed) for deed in target.counts) or "nothing to do"]
    if target.files_written:
        told.append(_bytes_of(target.requested_bytes, target.reused_bytes))
    if target.after:
        told.append(printable(f"then {', '.join(target.after)}"))
    beside = {"foreign": target.foreign, "ignored": target.ignored, "edited there": target.local_edits}
    told += [f"{count} {what}" for what, count in beside.items() if count]
    return "; ".join(told)


def _count_of(target: TargetFiles, deed: str) -> str:
    foreign = f" ({target.foreign_deleted} foreign)" if deed == DELETE and target.foreign_deleted else ""
    return f"{target.counts[deed]} {deed}{foreign}"


def _bytes_of(requested: int, reused: int) -> str:
    there = f", {size(reused)} is there" if reused else ""
    # Parts of a file that moved, or that differ little, are found in the sync alone.
    return f"at most {size(requested)} to send{there}" if requested else f"nothing to send{there}"
