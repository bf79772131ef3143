"""The spec as it is where a release brings its own revision of it. Pure.

With `spec_from: release` the services and projects of an environment are those of the revision that
the release was made with, on the repositories, nodes, credentials and rules of the spec's tip. Both are
put together as one document and judged anew, so that labels choose among the nodes of today and a
reference to what is gone is found where it stands.
"""

from collections.abc import Mapping

from reconciler.errors import Problem
from reconciler.spec.combine import combine
from reconciler.spec.document import Map, Seq, Value
from reconciler.spec.findings import Findings
from reconciler.spec.load import SPEC_FILE, Loaded, judged

RELEASED = ("shared_paths", "projects", "services")
"""The sections that a release brings with it."""

_HEAD = ("version", "repositories", "environments", "secret_sources", "secret_targets", "nodes")
"""`limits`, `moved` and `notifications` are the tip's too, and have no part in a release: a move that is
yet to be released would name a service that is still there."""

_OF_NO_SECTION = ("", "include")
"""A problem there may hide services."""

SHORT = 12
"""Characters of a commit id that stand before the file of a problem, as in `git show`."""


def load_released(
    head: Mapping[str, bytes], released: Mapping[str, bytes], commit: str, *, root: str = SPEC_FILE
) -> Loaded:
    """The spec of a release: both revisions' files, by path; `commit` is the release's.

    Its problems stand in files named `<commit>:<path>`, unless the tip has them by itself.
    """
    label = f"{commit[:SHORT]}:"
    below, above = combine(head, root), combine(released, root, label=label)
    problems = [each for each in below.problems if _section(each) not in RELEASED]
    problems += [each for each in above.problems if _section(each) in (*RELEASED, *_OF_NO_SECTION)]
    if below.data is None or above.data is None:
        return Loaded(None, tuple(sorted(problems, key=str)))
    needed_by = f"the spec at {commit[:SHORT]}, which a release runs with, needs it"
    document = _composed(below.data, above.data)
    return judged(Findings(document, root, problems, needed_by=needed_by))


def _section(problem: Problem) -> str:
    return (problem.resource or problem.where).replace("/", ".").replace("[", ".").partition(".")[0]


def _composed(head: Map, released: Map) -> Map:
    whole = Map()
    for section in _HEAD:
        if section in head:
            whole.put(section, head[section], head.marks[section])
    environments = head.get("environments")
    repositories = head.get("repositories")
    for section in RELEASED:
        if section in released:
            entries = released[section]
            if isinstance(entries, Map) and section == "shared_paths":
                entries = _only(entries, repositories)
            elif isinstance(entries, Map):
                entries = _run_somewhere(entries, environments)
            whole.put(section, entries, released.marks[section])
    return whole


def _run_somewhere(entries: Map, environments: Value) -> Map:
    """Without what ran only in environments that are gone; what is no map is judged as it is."""
    kept = Map()
    for name, entry, mark in entries.entries():
        if isinstance(entry, Map):
            one, several = entry.get("environment"), entry.get("environments")
            if isinstance(one, str) and not _has(environments, one):
                continue
            if isinstance(several, Map | Seq) and several:
                left: Map | Seq
                if isinstance(several, Map):
                    left = _only(several, environments)
                else:
                    left = _only_items(several, environments)
                if not left:
                    continue
                if len(left) < len(several):
                    entry = _with(entry, "environments", left)
        kept.put(name, entry, mark)
    return kept


def _only(names: Map, known: Value) -> Map:
    kept = Map()
    for name, value, mark in names.entries():
        if _has(known, name):
            kept.put(name, value, mark)
    return kept


def _only_items(names: Seq, known: Value) -> Seq:
    kept = Seq()
    for item, mark in zip(names, names.marks, strict=True):
        if not isinstance(item, str) or _has(known, item):
            kept.put(item, mark)
    return kept


def _has(section: Value, name: str) -> bool:
    return isinstance(section, Map) and name in section


def _with(entry: Map, key: str, value: Value) -> Map:
    changed = Map()
    for name, each, mark in entry.entries():
        changed.put(name, value if name == key else each, mark)
    return changed
