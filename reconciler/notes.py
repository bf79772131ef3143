"""What is valid and yet probably not meant, in words for people: logged, and never a reason to act. Pure."""

from reconciler.desired import Desired
from reconciler.hashing import digest
from reconciler.spec.model import Spec
from reconciler.status.documents import Recorded

_NO_FILES = digest([])


def notes_of_spec(spec: Spec) -> list[str]:
    """What can be told from the spec alone."""
    return [
        f"projects.{project.id} is synced nowhere: its sync.nodes choose no node of the spec; "
        "give a node the labels that they name"
        for project in spec.projects.values()
        if project.sync.enabled and not project.suspend and not project.sync.targets
    ]


def notes_of_pass(spec: Spec, desired: Desired, recorded: Recorded) -> list[str]:
    """What can be told once the releases are known."""
    notes = notes_of_spec(spec)
    for service in desired.services().values():
        for name, found in service.inputs.public.items():
            kind, _, pattern = name.partition(" ")
            if kind in ("path", "shared") and found == _NO_FILES:
                where = "paths" if kind == "path" else "shared_paths"
                notes.append(
                    f"{service.id}: `{pattern}` in its {where} matches no file of {service.revision}; "
                    "correct it, or a change may go unnoticed"
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
