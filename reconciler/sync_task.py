"""The task that an agent gets for a sync target. Pure."""

from agent.wire.messages import PROGRESS, Task
from reconciler.desired import DesiredSync
from reconciler.status.conditions import bounded


def sync_task(id: str, sync: DesiredSync, tree: bytes, *, observe: bool) -> Task:
    """Brings the target to `tree`, or looks how it is; to a release that is kept, where somebody said so."""
    project, target = sync.project, sync.target
    rules = project.sync
    return Task(
        id=id,
        project=project.id,
        target_path=target.target_path,
        observe=observe,
        strategy=target.strategy,
        tree=tree,
        rendered=sync.rendered,
        # What a target leaves out is not trueup's there: not to be compared, nor deleted as foreign.
        ignore=(*sync.ignore, *target.exclude),
        ignore_permissions=rules.ignore_permissions,
        delete_foreign=rules.delete_foreign,
        max_delete=rules.max_delete,
        on_local_edit=rules.on_local_edit,
        durability=rules.durability,
        after=project.after,
        features=() if observe else (PROGRESS,),
        keep=target.keep,
        revision=bounded(str(sync.revision or ""), 255),
        kept_only=sync.returned is not None,
    )
