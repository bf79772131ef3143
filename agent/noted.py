"""What is noted of a task in the manifest of its target. Pure."""

from collections.abc import Collection, Iterable, Mapping

from agent.features import owners_of
from agent.filenames import escaped_apart
from agent.manifest import Identity, Manifest, Placed
from agent.ownership import Names, gather
from agent.wire.messages import Entry, Task


def noted(
    task: Task,
    root: Identity,
    placed: Collection[Placed],
    *,
    pending: Iterable[Entry],
    deleting: Iterable[str],
    after_due: bool,
    tree: bytes,
    names: Mapping[str, Names],
) -> Manifest:
    """`names`: whose the entries are, where owners count; without a `tree`, nothing is known of that."""
    owners = owners_of(task) if tree else b""
    return Manifest(
        project=task.project,
        target=task.target_path,
        root=root,
        placed=placed,
        pending=tuple(pending),
        # No record can hold a name that is not UTF-8. No index can either, so it is never one of ours, and
        # about these alone does `settle_doubts` decide: what is found there later is foreign, whether it was
        # about to be deleted or not. But all that goes has to count, as a task is at work for whoever reads
        # the record as long as something is in here.
        deleting=tuple(map(escaped_apart, deleting)),
        after=task.after,
        after_due=after_due and bool(task.after),
        tree=tree,
        tree_has_modes=not task.ignore_permissions,
        ignore=task.ignore,
        delete_foreign=task.removes_foreign,
        owners=owners,
        owned=gather((item.entry.path for item in placed), names) if owners else (),
    )


def still_says(manifest: Manifest | None, task: Task, root: Identity) -> bool:
    """Whether a manifest is what `noted` would make of a task that finds everything in its place."""
    return (
        manifest is not None
        and not manifest.pending
        and not manifest.deleting
        and manifest.root == root
        and (manifest.project, manifest.ignore) == (task.project, task.ignore)
        and manifest.delete_foreign == task.removes_foreign
        and manifest.owners == owners_of(task)
        and set(manifest.rendered).issuperset(file.path for file in task.rendered)
    )
