"""What the page says of the files that a sync would change: bounded, escaped, and in the terminal's words."""

import pytest

from reconciler.file_forecasts import GuardView, ItemView, ProjectFiles, TargetFiles
from reconciler.file_lines import lines_of
from reconciler.web.page.files import MAX_ROWS, page_of, target_views


def item(path: str, deed: str = "create") -> ItemView:
    return ItemView(deed=deed, path=path, kind="file", size=3, requested_bytes=3, reused_bytes=0, saved=False)


def target(number: int, many: int, **more: object) -> TargetFiles:
    made = {
        "id": f"projects/branch/site/web-1/{number}",
        "node": "web-1",
        "target_path": f"/srv/{number}",
        "revision": "main@sha1:0123456789abcdef0123456789abcdef01234567",
        "state": "changes",
        "items": tuple(item(f"f{each}") for each in range(many)),
        "counts": {"create": many},
    }
    return TargetFiles(**made | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("items", "rows"),
    [
        ((3,), [3]),
        ((9_000,), [MAX_ROWS]),
        ((9_000, 1, 9_000), [249, 1, 250]),
        ((1,) * (2 * MAX_ROWS), None),
    ],
    ids=["few", "many", "shared", "many targets"],
)
def test_rows_are_bounded_and_shared(items: tuple[int, ...], rows: list[int] | None) -> None:
    views = target_views(ProjectFiles(project="site", targets=tuple(map(target, range(len(items)), items))))
    assert sum(len(view.rows) for view in views) <= MAX_ROWS
    assert sum(len(view.rows) + view.more for view in views) == sum(items)
    if rows is not None:
        assert [len(view.rows) for view in views] == rows


def test_what_is_said_is_escaped_and_what_the_terminal_says() -> None:
    evil = "<script>alert(1)</script>\x1b[31m\u202e"
    guard = GuardView(reason="DiskFull", message=evil)
    files = ProjectFiles(
        project=evil,
        targets=(
            target(1, 0, items=(item(evil),), warnings=(evil,), guards=(guard,)),
            target(2, 0, state="unknown", reason="AwaitingPairing", message=evil),
        ),
        problems=(evil,),
    )
    views = target_views(files)
    shown = page_of(files)
    assert "<script>alert" not in shown
    assert not set(shown) & {"\x1b", "\u202e"}
    assert shown.count("alert(1)") == shown.count(r"\x1b[31m\u202e") > 5
    said = "\n".join(line for each in files.targets for line in lines_of(each))
    for view in views:
        for text in (view.left, view.sums, *view.remarks, *(part for row in view.rows for part in row)):
            assert text in said
            assert not set(text) & {"\x1b", "\u202e"}
    assert views[1].left.startswith("unknown: AwaitingPairing: ")
    assert (views[1].rows, views[1].sums) == ((), "")


@pytest.mark.parametrize(
    ("unlisted", "said"),
    [(0, "and 1 more: {} lists them<"), (7, "and 8 more: {} lists all but 7 of them<")],
    ids=["all", "beyond what is listed"],
)
def test_what_has_no_row_is_counted_and_so_is_what_no_command_lists(unlisted: int, said: str) -> None:
    files = ProjectFiles(project="site", targets=(target(1, MAX_ROWS + 1, unlisted=unlisted),))
    assert said.format("<code>trueup plan --files site</code>") in page_of(files)
