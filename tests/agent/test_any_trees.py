"""Any tree over any other that somebody left there: content, modes, times, links, empty directories equal."""

import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.blocks import MIN_BLOCK
from tests.agent.syncing import Host, Tree, modes, read_tree, synchronise, write_tree

NAMES = st.sampled_from(["a", "b", "c d", "é", "\u65e5", "x" * 200, "-", ".hidden", "new\nline", "z'\"$"])
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.integers(MIN_BLOCK - 1, 3 * MIN_BLOCK + 1).map(lambda size: (b"%08d" % size * (size // 8 + 1))[:size]),
    st.tuples(st.integers(0, 2 * MIN_BLOCK), st.binary(min_size=1, max_size=3)).map(
        lambda given: b"o" * given[0] + given[1] + b"o" * (2 * MIN_BLOCK - given[0])
    ),
)
LINKS = st.sampled_from(["a", "../..", "/nowhere", "no such", "é/b"])
FILE_MODES = st.sampled_from([0o600, 0o644, 0o640, 0o755, 0o700, 0o666, 0o444])
FOLDER_MODES = st.sampled_from([0o755, 0o700, 0o775, 0o750])
TIMES = st.integers(0, 2**61)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree: Tree = {}
    paths = draw(st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=10))
    for path in sorted(paths):
        above = path.rpartition("/")[0]
        if not above or (above in tree and tree[above] is None):
            kind = draw(st.sampled_from(["folder", "folder", "file", "file", "link"]))
            tree[path] = None if kind == "folder" else draw(CONTENTS if kind == "file" else LINKS)
    return tree


@st.composite
def dressed(draw: st.DrawFn) -> tuple[Tree, dict[str, tuple[int, int]]]:
    """A tree, and the mode and time of each of its entries."""
    tree = draw(trees())
    return tree, {
        path: (draw(FOLDER_MODES if content is None else FILE_MODES), draw(TIMES))
        for path, content in tree.items()
    }


def lay_out(root: Path, tree: Tree, dress: dict[str, tuple[int, int]]) -> Path:
    write_tree(root, tree)
    for path in sorted(tree, reverse=True):  # what lies in a directory first, as it changes its time
        mode, time = dress[path]
        link = isinstance(tree[path], str)
        if not link:
            (root / path).chmod(mode)
        os.utime(root / path, ns=(time, time), follow_symlinks=False)
    return root


def times(root: Path, tree: Tree) -> dict[str, int]:
    return {path: (root / path).lstat().st_mtime_ns for path in tree}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(wanted=dressed(), there=dressed(), placed=st.booleans(), then=dressed())
async def test_a_sync_makes_any_tree_equal_to_any_other(
    tmp_path: Path,
    wanted: tuple[Tree, dict[str, tuple[int, int]]],
    there: tuple[Tree, dict[str, tuple[int, int]]],
    placed: bool,
    then: tuple[Tree, dict[str, tuple[int, int]]],
) -> None:
    """What is there is somebody else's, or was placed by an earlier task, and is changed once more."""
    base = tmp_path / os.urandom(8).hex()
    host = Host(base / "host")
    if placed:
        first = lay_out(base / "first", *there)
        assert (await synchronise(first, host, allow_empty=True)).state == "SUCCESS"
    else:
        lay_out(host.target, *there)
    for number, (tree, dress) in enumerate((wanted, then)):
        source = lay_out(base / f"source{number}", tree, dress)
        outcome = await synchronise(source, host, allow_empty=True, delete_foreign=True)
        assert outcome.state == "SUCCESS", outcome.report.message
        assert read_tree(host.target) == tree
        assert modes(host.target) == modes(source)
        if outcome.from_agent.messages != ["TaskReport"]:  # times alone are no difference
            assert times(host.target, tree) == times(source, tree)
        again = await synchronise(source, host, allow_empty=True, delete_foreign=True)
        assert again.from_agent.messages == ["TaskReport"]
