"""The task that an agent gets for a sync target, and what its report leaves unsaid. Pure."""

import msgspec

from agent.wire.messages import PROGRESS, Task, TaskReport
from reconciler.desired import DesiredSync
from reconciler.status.conditions import bounded
from reconciler.sync.telling import with_owners


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


def look_task(id: str, sync: DesiredSync, tree: bytes, owners: bytes) -> Task:
    """Tells how the target is, where `tree` was placed, with owners of that digest unless it is empty."""
    return with_owners(sync_task(id, sync, tree, observe=True), owners)


def told_of_owners(report: TaskReport, task: Task, node: str) -> TaskReport:
    """The report, with a warning first where owners count and the agent is too old to know of any."""
    if not task.owners or report.owners_compared:
        return report
    warning = (
        f"owners and groups were left as they are: the agent of the node {node} is too old to give any;"
        f" update trueup on that host (`trueup node install {node}`), and what lacks its owner is drift then"
    )
    return msgspec.structs.replace(report, warnings=(warning, *report.warnings))
