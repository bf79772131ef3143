"""Plans the changes of a task: what the index and the view differ in, within the task's policy."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from agent.changes import Changes, Policy, Seen, diff
from agent.failures import TaskFailed
from agent.features import times_count
from agent.index import PERMISSIONS, by_path
from agent.look import Scope, View, look_for
from agent.modes import LEFT_ALONE
from agent.ownership import NOBODY, Names
from agent.wire.messages import Entry, Task


@dataclass(frozen=True, slots=True)
class Planned:
    """`foreign` counts what is not the tree's and stays. `stopped`: the guard that a look may ignore."""

    changes: Changes
    foreign: int
    index: Sequence[Entry] = ()
    """What is to be there, with the times that it is to have."""
    stopped: TaskFailed | None = None
    disowned: Mapping[str, bool] = field(default_factory=dict)
    """What has another owner than it should; see `diff`."""

    @property
    def parts(self) -> tuple[Sequence[Entry], Changes, int]:
        return self.index, self.changes, self.foreign


async def plan(
    task: Task,
    index: Sequence[Entry],
    view: View,
    scope: Scope,
    root_fd: int | None,
    *,
    only_look: bool = False,
    names: Mapping[str, Names] = NOBODY,
    now_ns: int | None = None,
    anew: bool = False,
) -> Planned:
    """What has to be done in the target open as `root_fd`; None: it is not there yet.

    Raises TaskFailed where a guard forbids it. With `only_look` that comes back instead, beside what would be
    done if those that count (`max_delete`, an empty tree) allowed it, as far as there is such a thing.
    `names`: whose the entries are to be. `now_ns`: the time of what is written where those of the tree mean
    nothing, if it was given to something already. `anew`: all is done in a copy of what is as it was placed.
    """
    if root_fd is not None:
        wanted = await trio.to_thread.run_sync(by_path, index)
        await look_for(view, root_fd, wanted, scope)
    if anew:
        await trio.to_thread.run_sync(view.leave_behind, scope.keep_edits)
    policy = Policy(
        strategy="overlay" if task.strategy == "overlay" else "mirror",
        delete_foreign=scope.delete_foreign,
        max_delete=task.max_delete,
        allow_empty=task.allow_empty,
        on_local_edit=task.on_local_edit,
        ignore_permissions=task.ignore_permissions,
    )
    disowned: Mapping[str, bool] = {}
    if names and scope.owners is not None:
        disowned = await trio.to_thread.run_sync(scope.owners.differing, view.found, names)
    now_ns = None if times_count(task) else now_ns or time.time_ns()
    run = _Run(index, view, scope, now_ns, disowned)
    return await trio.to_thread.run_sync(run.look if only_look else run.plan, policy)


@dataclass(frozen=True, slots=True)
class _Run:
    index: Sequence[Entry]
    view: View
    scope: Scope
    now_ns: int | None
    """Where times of the tree mean nothing: those of what is written."""
    disowned: Mapping[str, bool]

    def plan(self, policy: Policy) -> Planned:
        view = self.view
        protected = view.protected(self.scope)
        index = self.index
        if self.now_ns is None:
            same = self._untouched(policy)
            seen = view.seen(same)
            differing = [entry for entry in index if entry.path not in same]
        else:
            same = set()
            seen = view.seen()
            index = differing = dated(index, seen, self.now_ns)
        if same or view.besides:
            policy = msgspec.structs.replace(policy, allow_empty=True)  # it is not
        changes = diff(
            differing,
            seen,
            policy,
            ours=view.ours,
            ours_in_all=view.ours_in_all,
            ignored=view.ignored,
            protected=protected,
            disowned=self.disowned,
        )
        left = view.found.keys() - {entry.path for entry in index} - view.uncounted(self.scope)
        foreign = len(left.difference(changes.delete, changes.remove_first))
        return Planned(changes, foreign, index, disowned=self.disowned)

    def _untouched(self, policy: Policy) -> set[str]:
        """Files of the index that stand there as the manifest has them: there is nothing to decide."""
        view = self.view
        return {
            entry.path
            for entry in self.index
            if view.is_as_placed(entry)
            and entry.path not in self.disowned
            and (found := view.found[entry.path]).mtime_ns == entry.mtime_ns
            and (policy.ignore_permissions or found.mode & PERMISSIONS == entry.mode & PERMISSIONS)
        }

    def look(self, policy: Policy) -> Planned:
        try:
            return self.plan(policy)
        except TaskFailed as error:
            stopped = error
        try:
            planned = self.plan(msgspec.structs.replace(policy, max_delete=1.0, allow_empty=True))
        except TaskFailed:
            # Something stands in the way, so that there is nothing that could be done.
            return Planned(Changes(), self.view.foreign(self.scope), stopped=stopped)
        return Planned(planned.changes, planned.foreign, planned.index, stopped, self.disowned)


def dated(index: Sequence[Entry], seen: Mapping[str, Seen], now_ns: int) -> list[Entry]:
    """An index whose own times mean nothing, with those that its files and links get.

    What is the same keeps its time, and what is written is of now, as where git checks a commit out: a new
    content never has the time of the one before. A directory is given none.
    """

    def time_of(entry: Entry) -> int:
        if entry.kind == "directory":
            return LEFT_ALONE
        there = seen.get(entry.path)
        return there.mtime_ns if there is not None and there.holds(entry) else now_ns

    return [msgspec.structs.replace(entry, mtime_ns=time_of(entry)) for entry in index]
