"""The files of a spec put together: `include`, and who may define what where."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.filenames import escaped
from reconciler.errors import Problem
from reconciler.spec.document import Map, Path, Place, Seq, Value, dotted, shown, type_name, value_place
from reconciler.spec.globs import Glob
from reconciler.spec.schema import spec_schema
from reconciler.spec.yaml_reader import MAX_BYTES, Budget, Duplicate, read_yaml

MAX_FILES = 2000
MAX_PATTERN = 1024
ROOT_ONLY = ("version", "include", "limits")
RESOURCES = (
    "repositories",
    "environments",
    "secret_sources",
    "secret_targets",
    "nodes",
    "projects",
    "services",
)
"""Sections whose entries are resources, in an order in which each refers mostly to earlier ones."""

_LISTS = ("moved", "notifications")
_MAPS = ("shared_paths", *RESOURCES)


@dataclass(slots=True)
class Combined:
    """All files as one document. `data` is None where a file could not be read."""

    data: Map | None
    problems: list[Problem] = field(default_factory=list)


def resource_of(path: Path) -> str | None:
    """The resource that a path of the document lies in, as `services/web`."""
    if len(path) >= 2 and path[0] in RESOURCES:
        return f"{path[0]}/{path[1]}"
    return None


def matching(patterns: Iterable[str], paths: Iterable[str], root: str) -> tuple[str, ...]:
    """The paths that a glob names, sorted, without the root file: `*` stays in a folder, `**` crosses."""
    globs = [Glob(pattern) for pattern in patterns]
    found = {path for path in paths if path != root and any(glob.matches(path) for glob in globs)}
    return tuple(sorted(found))


def include_patterns(data: Map) -> list[str]:
    """The usable patterns of `include`; what is wrong with the others is found by `combine`."""
    include = data.get("include")
    if not isinstance(include, Seq):
        return []
    return [each for each in include if isinstance(each, str) and not pattern_fault(each)]


def pattern_fault(pattern: str) -> str | None:
    parts = pattern.split("/")
    if not pattern or pattern.startswith("/") or ".." in parts or "." in parts or "" in parts:
        return "an include is a glob from the repository's root, without `..`, `.` or a leading `/`"
    if len(pattern) > MAX_PATTERN:
        return f"longer than {MAX_PATTERN} characters; shorten it"
    return None


def combine(files: Mapping[str, bytes], root: str, *, label: str = "") -> Combined:
    """Read the root file and what it includes into one document; names defined twice are problems.

    `label` stands before the names of files in every position, where they are not of the spec's tip.
    """
    top = Place(label + root, 1, 1)
    if root not in files:
        return _unusable(top, f"the repository has no {root}; run `trueup init` to write a first one")
    size = len(files[root])
    if size > MAX_BYTES:
        return _unusable(top, _too_large())
    budget = Budget()
    read = read_yaml(label + root, files[root], budget)
    if isinstance(read, Problem):
        return Combined(None, [read])
    if read.data is None:
        return _unusable(top, "the file is empty; begin with `version: 1`, or run `trueup init`")
    if not isinstance(read.data, Map):
        return _unusable(top, f"is {type_name(read.data)}, and must be a map; begin with `version: 1`")
    problems = [_duplicate(each) for each in read.duplicates]
    included = _included(read.data, files, root, problems, label)
    if len(included) > MAX_FILES:
        return _unusable(top, f"includes more than {MAX_FILES} files; put several resources in one")
    whole = Map()
    _add(whole, read.data, problems)
    readable = True
    for path in included:
        size += len(files[path])
        name = label + escaped(path)
        if size > MAX_BYTES:
            return _unusable(Place(name, 1, 1), _too_large())
        part = read_yaml(name, files[path], budget)
        if isinstance(part, Problem):
            problems.append(part)
            readable = False
            continue
        problems += [_duplicate(each) for each in part.duplicates]
        if isinstance(part.data, Map):
            _add(whole, _without_root_only(part.data, problems), problems)
        elif part.data is not None:
            message = f"is {type_name(part.data)}, and must be a map of sections"
            problems.append(Problem(name, 1, 1, "", message))
            readable = False
    return Combined(whole if readable else None, problems)


def _too_large() -> str:
    return f"the spec's files are larger than {MAX_BYTES // 2**20} MiB together; make them smaller"


def _unusable(place: Place, message: str) -> Combined:
    return Combined(None, [Problem(*place, "", message)])


def _duplicate(found: Duplicate) -> Problem:
    path = (*found.path, found.key)
    message = f"stands twice, first in line {found.first_line}; remove one"
    return Problem(*found.place, dotted(path), message, resource_of(path))


def _included(
    data: Map, files: Mapping[str, bytes], root: str, problems: list[Problem], label: str
) -> tuple[str, ...]:
    include = data.get("include")
    patterns: list[str] = []
    for index, pattern in enumerate(include if isinstance(include, Seq) else ()):
        if not isinstance(pattern, str) or not pattern:
            continue  # the schema says so
        fault = pattern_fault(pattern)
        if fault is None and not matching([pattern], files, root):
            fault = "no file matches; correct the path, or remove the entry"
        if fault is None:
            patterns.append(pattern)
        else:
            path: Path = ("include", index)
            place = value_place(data, path, Place(label + root, 1, 1))
            problems.append(Problem(*place, dotted(path), f"{shown(pattern)}: {fault}"))
    return matching(patterns, files, root)


def _without_root_only(data: Map, problems: list[Problem]) -> Map:
    kept = Map()
    for key, value, mark in data.entries():
        if key in ROOT_ONLY:
            message = "may stand in the root file only; move it there"
            problems.append(Problem(mark.file, mark.line, mark.column, key, message))
        else:
            kept.put(key, value, mark)
    return kept


def _add(whole: Map, part: Map, problems: list[Problem]) -> None:
    """Lay one file's sections beside those that are there already."""
    for section, value, mark in part.entries():
        if value is None and section in spec_schema()["properties"]:
            continue  # a section whose entries are all commented out
        there = whole.get(section)
        if section not in whole:
            whole.put(section, _copy(value) if section in (*_MAPS, *_LISTS) else value, mark)
        elif isinstance(there, Map) and isinstance(value, Map):
            _add_names(section, there, value, problems)
        elif isinstance(there, Seq) and isinstance(value, Seq) and section in _LISTS:
            for item, where in zip(value, value.marks, strict=True):
                there.put(item, where)
        else:
            wanted = "a list" if section in _LISTS else "a map"
            first = whole.marks[section]
            message = f"must be {wanted} in every file (see {first.file}:{first.line})"
            problems.append(Problem(mark.file, mark.line, mark.column, section, message))


def _add_names(section: str, there: Map, value: Map, problems: list[Problem]) -> None:
    for name, entry, mark in value.entries():
        if name in there:
            first = there.marks[name]
            path = (section, name)
            message = f"is defined in {first.file}:{first.line} too; rename or remove one"
            problems.append(
                Problem(mark.file, mark.line, mark.column, dotted(path), message, resource_of(path))
            )
        else:
            there.put(name, entry, mark)


def _copy(value: Value) -> Value:
    """A copy of a section that further files can be added to: the original may be shared by an alias."""
    if isinstance(value, Map):
        section = Map()
        for key, entry, mark in value.entries():
            section.put(key, entry, mark)
        return section
    if isinstance(value, Seq):
        entries = Seq()
        for entry, mark in zip(value, value.marks, strict=True):
            entries.put(entry, mark)
        return entries
    return value
