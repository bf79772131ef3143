"""What a sync would do to files, as the page shows it: some rows, in the words of the terminal."""

from dataclasses import dataclass
from typing import Final

from reconciler.file_forecasts import ProjectFiles, TargetFiles
from reconciler.file_lines import left_of, name_of, notes_of, remarks_of, revision_of, sums_of
from reconciler.logs import printable
from reconciler.web.page.render import render

MAX_ROWS: Final = 500
"""Of all targets together; a browser shows no more in good time, and nobody reads them."""


@dataclass(frozen=True, slots=True)
class TargetView:
    where: str
    """Node, directory and revision."""
    left: str
    """Why nothing is said of it; empty where something is."""
    rows: tuple[tuple[str, str, str], ...]
    """Deed, name and notes of each file."""
    more: int
    """Files that have no row."""
    rest: str
    """What the command that lists files says of those."""
    remarks: tuple[str, ...]
    sums: str


def target_views(files: ProjectFiles, *, rows: int = MAX_ROWS) -> list[TargetView]:
    """Each target gets a part of the rows, and those that need fewer leave the rest to the others."""
    views = []
    waiting = len(files.targets)
    for target in sorted(files.targets, key=lambda each: len(each.items)):
        share = min(rows // waiting, len(target.items))
        rows, waiting = rows - share, waiting - 1
        views.append((target.id, _view(target, share)))
    return [view for _, view in sorted(views, key=lambda each: each[0])]


def page_of(files: ProjectFiles) -> str:
    """The whole page."""
    return render(
        "files.html",
        project=printable(files.project),
        problems=[printable(problem) for problem in files.problems],
        targets=target_views(files),
    )


def _view(target: TargetFiles, rows: int) -> TargetView:
    silent = target.state in ("unknown", "left")
    return TargetView(
        where=printable(f"{target.node}:{target.target_path}") + revision_of(target),
        left=left_of(target) if silent else "",
        rows=tuple((printable(it.deed), name_of(it), notes_of(it)) for it in target.items[:rows]),
        more=target.unlisted + len(target.items) - min(rows, len(target.items)),
        rest=f"lists all but {target.unlisted} of them" if target.unlisted else "lists them",
        remarks=tuple(remarks_of(target)),
        sums="" if silent else sums_of(target),
    )
