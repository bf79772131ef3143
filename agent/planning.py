"""Plans the changes of a task: what the index and the view differ in, within the task's policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import trio

from agent.changes import Changes, Policy, diff
from agent.failures import TaskFailed
from agent.index import by_path
from agent.look import Scope, View, look_for
from agent.wire.messages import Entry, Task


@dataclass(frozen=True, slots=True)
class Planned:
    """`foreign` counts what is not the tree's and stays. `stopped`: the guard that a look may ignore."""

    changes: Changes
    foreign: int
    stopped: TaskFailed | None = None


async def plan(
    task: Task,
    index: Sequence[Entry],
    view: View,
    scope: Scope,
    root_fd: int | None,
    *,
    only_look: bool = False,
) -> Planned:
    """What has to be done in the target open as `root_fd`; None: it is not there yet.

    Raises TaskFailed where a guard forbids it. With `only_look` that comes back instead, beside what would be
    done if those that count (`max_delete`, an empty tree) allowed it, as far as there is such a thing.
    """
    if root_fd is not None:
        wanted = await trio.to_thread.run_sync(by_path, index)
        await look_for(view, root_fd, wanted, scope)
    policy = Policy(
        strategy="overlay" if task.strategy == "overlay" else "mirror",
        delete_foreign=scope.delete_foreign,
        max_delete=task.max_delete,
        allow_empty=task.allow_empty,
        on_local_edit=task.on_local_edit,
        ignore_permissions=task.ignore_permissions,
    )
    run = _Run(index, view, scope)
    return await trio.to_thread.run_sync(run.look if only_look else run.plan, policy)


@dataclass(frozen=True, slots=True)
class _Run:
    index: Sequence[Entry]
    view: View
    scope: Scope

    def plan(self, policy: Policy) -> Planned:
        view = self.view
        protected = view.protected(self.scope)
        changes = diff(
            self.index, view.seen(), policy, ours=view.ours, ignored=view.ignored, protected=protected
        )
        left = view.found.keys() - {entry.path for entry in self.index} - protected
        return Planned(changes, len(left.difference(changes.delete, changes.remove_first)))

    def look(self, policy: Policy) -> Planned:
        try:
            return self.plan(policy)
        except TaskFailed as error:
            stopped = error
        try:
            planned = self.plan(msgspec.structs.replace(policy, max_delete=1.0, allow_empty=True))
        except TaskFailed:
            # Something stands in the way, so that there is nothing that could be done.
            return Planned(Changes(), self.view.foreign(self.scope), stopped)
        return Planned(planned.changes, planned.foreign, stopped)
