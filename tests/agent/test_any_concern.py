"""For random trees in turn, a task that looks at what differs does the same as after a close look."""

import os
from pathlib import Path
from typing import Any, TypedDict

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.glance import Glance
from agent.ledger import Ledger
from agent.ledger_file import load_with_ledger
from agent.manifest import ledger_path, load
from reconciler.sync.serving import TreeSource
from tests.agent.syncing import (
    Host,
    Outcome,
    Tree,
    modes,
    observe,
    read_tree,
    synchronise,
    without_times,
)
from tests.agent.test_any_trees import CONTENTS, LINKS, NAMES, dressed, lay_out, times
from tests.agent.test_concern import record_of


@st.composite
def altered(draw: st.DrawFn, tree: Tree) -> Tree:
    """The tree with a few of its entries changed, gone, of another kind, or new."""
    changed = dict(tree)
    for path in draw(st.lists(st.sampled_from(sorted(tree)), max_size=3, unique=True)) if tree else ():
        for below in [each for each in changed if each == path or each.startswith(f"{path}/")]:
            del changed[below]
        kind = draw(st.sampled_from(["gone", "file", "link", "folder"]))
        if kind != "gone" and (not (above := path.rpartition("/")[0]) or changed.get(above, "") is None):
            changed[path] = None if kind == "folder" else draw(CONTENTS if kind == "file" else LINKS)
    folders = ["", *sorted(path for path, content in changed.items() if content is None)]
    for name in draw(st.lists(NAMES, max_size=2)):
        above = draw(st.sampled_from(folders))
        changed.setdefault(f"{above}/{name}" if above else name, draw(st.one_of(st.none(), CONTENTS, LINKS)))
    return changed


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    wanted=dressed(),
    strategy=st.sampled_from(["mirror", "overlay"]),
    ignore_permissions=st.booleans(),
    has_times=st.booleans(),
    foreign=st.booleans(),
)
async def test_it_does_the_same_as_after_a_close_look(
    tmp_path: Path,
    data: st.DataObject,
    wanted: tuple[Tree, dict[str, tuple[int, int]]],
    strategy: str,
    ignore_permissions: bool,
    has_times: bool,
    foreign: bool,
) -> None:
    base = tmp_path / os.urandom(8).hex()
    tree, dress = wanted
    changes: dict[str, Any] = {
        "strategy": strategy,
        "ignore_permissions": ignore_permissions,
        "allow_empty": True,
    }
    before = await _source(lay_out(base / "before", tree, dress), ignore_permissions, has_times)
    hosts = [Host(base / "glancing"), Host(base / "looking")]
    for host in hosts:
        await synchronise(before, host, **changes)
        if foreign and not (host.target / "theirs").exists():
            (host.target / "theirs").write_bytes(b"not ours")
            os.utime(host.target / "theirs", ns=(1, 1))
    for again in ("after", "once more"):  # then with what the first one has kept of the record
        tree = data.draw(altered(tree))
        dress = {
            path: dress.get(path, (0o755 if content is None else 0o644, 10**18))
            for path, content in tree.items()
        }
        after = await _source(lay_out(base / again, tree, dress), ignore_permissions, has_times)
        outcomes: list[Outcome] = []
        for host in hosts:
            await observe(host, ignore_permissions=ignore_permissions)
            if host is hosts[1]:
                record_of(host).with_suffix(".look").unlink(missing_ok=True)
            outcomes.append(await synchronise(after, host, **changes))
        _compare(hosts, outcomes, has_times)
        _check_ledger(hosts[0], not ignore_permissions, has_times)
    at_a_glance = await observe(hosts[0], ignore_permissions=ignore_permissions)
    record_of(hosts[0]).with_suffix(".look").unlink(missing_ok=True)
    closely = await observe(hosts[0], ignore_permissions=ignore_permissions)
    assert at_a_glance == closely


class _Flags(TypedDict):
    modes: bool
    times: bool


def _compare(hosts: list[Host], outcomes: list[Outcome], has_times: bool) -> None:
    ignored = {"files_known": 0, "files_read": 0, "message": ""}
    glancing, looking = (msgspec.structs.replace(outcome.report, **ignored) for outcome in outcomes)
    assert glancing == looking
    assert read_tree(hosts[0].target) == read_tree(hosts[1].target)
    assert modes(hosts[0].target) == modes(hosts[1].target)
    if has_times:
        there = read_tree(hosts[0].target)
        assert times(hosts[0].target, there) == times(hosts[1].target, there)
    records = [load(record_of(host)) for host in hosts]
    assert _listed(records[0], has_times) == _listed(records[1], has_times)


def _check_ledger(host: Host, modes: bool, has_times: bool) -> None:
    """What is kept of the record by runs is what the record says."""
    record, flags = record_of(host), _Flags(modes=modes, times=has_times)
    manifest = load(record)
    if ledger_path(record).exists() and manifest is not None:
        glance = Glance((), (), b"")
        kept = load_with_ledger(record, glance, **flags, late=lambda _: frozenset())
        assert kept is not None
        assert isinstance(kept.placed, Ledger)
        assert list(kept.placed.runs) == list(Ledger.of(manifest.placed, **flags).runs)


async def _source(root: Path, ignore_permissions: bool, has_times: bool) -> TreeSource:
    source = await TreeSource.build(root, ignore_permissions=ignore_permissions)
    return source if has_times else without_times(source)


def _listed(manifest: Any, has_times: bool) -> Any:
    placed = {}
    for item in manifest.placed:
        entry = item.entry if has_times else msgspec.structs.replace(item.entry, mtime_ns=0)
        placed[entry.path] = entry, item.kept
    return placed, manifest.tree, manifest.pending, manifest.deleting
