"""What the checks of a spec find: problems with their positions, and which resource refers to which."""

from collections.abc import Iterator

from reconciler.errors import Problem
from reconciler.spec.combine import RESOURCES, resource_of
from reconciler.spec.document import Map, Path, Place, dotted, key_place, shown, value_place
from reconciler.spec.graph import spread
from reconciler.spec.schema import suggest

_SINGULAR = {
    "repositories": "repository",
    "environments": "environment",
    "secret_sources": "secret source",
    "secret_targets": "secret target",
    "nodes": "node",
    "projects": "project",
    "services": "service",
}


class Findings:
    """Collects while a document is checked. `data` is the combined document, whose marks give positions.

    `needed_by` is said of a name that is missing for a service or project of an older revision: there
    it can no longer be corrected.
    """

    def __init__(self, data: Map, root: str, problems: list[Problem], *, needed_by: str = "") -> None:
        self.data = data
        self._needed_by = needed_by
        self._root = Place(root, 1, 1)
        self._problems = dict.fromkeys(problems)
        self._broken = {each.resource: each.message for each in reversed(problems) if each.resource}
        self._refers: dict[str, set[str]] = {}
        self._declared: dict[str, tuple[str, ...]] = {}
        for section in RESOURCES:
            entries = data.get(section)
            self._declared[section] = tuple(entries) if isinstance(entries, Map) else ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(sorted(self._problems, key=lambda each: (each.file, each.line, each.column, str(each))))

    def report(self, path: Path, message: str, *, of_key: bool = False) -> None:
        """A problem at `path`, or at the nearest entry above it that the document has.

        `of_key`: the key is wrong, not its value.
        """
        place = (key_place if of_key else value_place)(self.data, path, self._root)
        resource = resource_of(path)
        self._problems[Problem(*place, dotted(path), message, resource)] = None
        if resource is not None:
            self._broken.setdefault(resource, message)

    def is_broken(self, section: str, name: str) -> bool:
        return f"{section}/{name}" in self._broken

    def declared(self, section: str) -> tuple[str, ...]:
        """All names of a section, those with problems too, in the document's order."""
        return self._declared[section]

    @property
    def is_usable(self) -> bool:
        """Whether every problem so far is a resource's: the document's own parts are of the right form."""
        return all(each.resource is not None for each in self._problems)

    def all_names(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield from self._declared.items()

    def entries(self, section: str) -> Iterator[tuple[str, Map]]:
        """The entries of a section that have no problem so far."""
        found = self.data.get(section)
        if isinstance(found, Map):
            for name, entry in list(found.items()):
                if isinstance(entry, Map) and not self.is_broken(section, name):
                    yield name, entry

    def refer(self, path: Path, section: str, name: str, *, waits: bool = True) -> bool:
        """Note that the resource at `path` refers to another one; a problem where there is none such.

        `waits`: it is frozen as a whole while the other one has a problem.
        """
        source = resource_of(path)
        if name in self._declared[section]:
            if source is not None and waits:
                self._refers.setdefault(source, set()).add(f"{section}/{name}")
            return True
        if self._needed_by and section not in ("services", "projects"):
            self.report(path, f"there is no {_SINGULAR[section]} {shown(name)} any more; {self._needed_by}")
            return False
        advice = suggest(name, self._declared[section]) or f"add it under `{section}`"
        self.report(path, f"there is no {_SINGULAR[section]} {shown(name)}; {advice}")
        return False

    def frozen(self) -> dict[str, str]:
        """Resources that cannot be used, each with the reason: broken, or referring to such a one."""
        through = spread(self._refers, self._broken)
        waiting = {name: f"waits for {cause}, which has a problem" for name, cause in through.items()}
        return dict(sorted((self._broken | waiting).items()))
