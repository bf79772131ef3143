"""What is valid and worth a look, in words for people: printed or logged, and never a reason to act. Pure."""

from collections.abc import Iterable, Iterator

from reconciler.desired import Desired
from reconciler.hashing import digest
from reconciler.returned import rolled_back_to
from reconciler.secrets.merge import Collision, declared_collisions
from reconciler.spec.model import DEFAULT_PRECEDENCE, Spec
from reconciler.status.documents import Recorded

_NO_FILES = digest([])

MOST = 10
"""Notes of one project about what its directory holds."""


def notes_of_spec(spec: Spec) -> list[str]:
    """What can be told from the spec alone."""
    return [*_synced_nowhere(spec), *_declared_collisions(spec)]


def _synced_nowhere(spec: Spec) -> Iterator[str]:
    for project in spec.projects.values():
        if project.sync.enabled and not project.suspend and not project.sync.targets:
            yield (
                f"projects.{project.id} is synced nowhere: its sync.nodes choose no node of the spec; "
                "give a node the labels that they name"
            )


def _declared_collisions(spec: Spec) -> Iterator[str]:
    for service in spec.services:
        yield from _told(
            service.id,
            declared_collisions(
                env=service.env,
                secrets=service.secrets,
                environ=service.environ,
                precedence=service.precedence,
            ),
        )
    for project in spec.projects.values():
        for file in project.files:
            found = declared_collisions(
                env=file.env, secrets=file.secrets, environ=(), precedence=DEFAULT_PRECEDENCE
            )
            yield from _told(f"projects.{project.id}, file {file.path}", found)


def _collisions(desired: Desired) -> Iterator[str]:
    """Those of the values that there are; a project's once, however many targets it has."""
    for service in desired.services().values():
        yield from _told(service.id, service.merged.collisions)
    files = {
        f"projects.{sync.project.id}, file {path}": found
        for sync in desired.syncs().values()
        for path, found in sync.collisions.items()
    }
    for where, found in files.items():
        yield from _told(where, found)


def _told(where: str, collisions: Iterable[Collision]) -> Iterator[str]:
    """One note for a place, the names grouped by who won: two whole sources may share hundreds."""
    names: dict[str, list[str]] = {}
    for collision in collisions:
        names.setdefault(f"{collision.winner} wins over {', '.join(collision.losers)}", []).append(
            collision.name
        )
    if names:
        each = (f"{who} for {', '.join(names[who])}" for who in names)
        yield f"{where}: some variables are given more than once: {'; '.join(each)}"


def notes_of_pass(spec: Spec, desired: Desired, recorded: Recorded) -> list[str]:
    """What can be told once releases and values are known. Names only, never values."""
    notes = [*_synced_nowhere(spec), *_collisions(desired)]
    for service in desired.services().values():
        for name, found in service.inputs.public.items():
            kind, _, pattern = name.partition(" ")
            if kind in ("path", "shared") and found == _NO_FILES:
                where = "paths" if kind == "path" else "shared_paths"
                notes.append(
                    f"{service.id}: `{pattern}` in its {where} matches no file of {service.revision}; "
                    "correct it, or a change may go unnoticed"
                )
    for sync in desired.syncs().values():
        if sync.returned is not None:
            notes.append(
                f"{sync.id} is {rolled_back_to(sync.returned)}, and stays there: nothing new reaches it; "
                f"`trueup node rollback {sync.target.node} {sync.project.id} --lift` ends that"
            )
    used = {sync.target.node for sync in desired.syncs().values()}
    for node in spec.nodes:
        status = recorded.nodes.get(f"nodes/{node}")
        if node not in used and (status is None or not status.certificate):
            notes.append(
                f"{node} has never been paired, and no pass waits for it, as nothing is synced to it; "
                "name it, or its labels, in a project before it joins"
            )
    return notes


def notes_of_directories(warnings: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """What of live directories is not sent, given by project: of each the first few."""
    told: dict[str, dict[str, None]] = {}
    for project, some in warnings:
        told.setdefault(project, {}).update(dict.fromkeys(some))
    notes: list[str] = []
    for project, each in sorted(told.items()):
        notes += [f"projects.{project}: {warning}" for warning in list(each)[:MOST]]
        if len(each) > MOST:
            notes.append(f"projects.{project}: {len(each) - MOST} more of that kind")
    return notes
