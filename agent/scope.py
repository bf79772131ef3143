"""What a task may look at and do, drawn from its message and from this host's rules."""

from collections.abc import Iterable
from pathlib import Path

import trio

from agent import rendered
from agent.commands import check_commands
from agent.errors import RemoteProtocolError
from agent.features import owners_of
from agent.ignore import Ignore
from agent.look import Scope
from agent.manifest import Manifest, other_targets
from agent.owners import Owners
from agent.rules import AgentRules
from agent.target import check_target, private_inside
from agent.wire.messages import DIGEST_SIZE, ITEMISE, Entry, Task

MAX_PROJECT = 255


def check_task(task: Task, rules: AgentRules) -> None:
    """Refuses, before anything is looked at, what this host would not do in the end."""
    if not task.project.isprintable() or len(task.project) > MAX_PROJECT:
        # Commands get it in their environment.
        raise RemoteProtocolError("the name of the task's project is no name")
    check_target(task.target_path, rules.roots)
    rendered.check_rendered(task.rendered)
    if task.observe and ITEMISE not in task.features:
        return
    if not task.observe:
        check_commands(task.after, rules.commands)
    if len(task.tree) != DIGEST_SIZE or len(task.owners) not in (0, DIGEST_SIZE):
        raise RemoteProtocolError("a digest of the task does not have 32 bytes")
    if not 0 <= task.max_delete <= 1:
        raise RemoteProtocolError("the task's max_delete is not between 0 and 1")


async def scope_of(task: Task, rules: AgentRules, state_dir: Path) -> Scope:
    """Raises PathRefused for a rendered file where the agent keeps its own, and as `other_targets` does."""
    private = await trio.to_thread.run_sync(private_inside, task.target_path, rules.roots, rules.private)
    rendered.check_apart(task.rendered, private)
    own = private | {file.path for file in task.rendered}
    others: Iterable[str] = ()
    if task.delete_foreign:
        others = await trio.to_thread.run_sync(other_targets, state_dir, task.target_path)
    counts = task.observe or owners_of(task)
    return Scope(
        ignore=await trio.to_thread.run_sync(Ignore, task.ignore),
        forbidden=own,
        reserved=own.union(others),
        delete_foreign=task.removes_foreign,
        keep_edits=task.on_local_edit == "keep",
        ignore_permissions=task.ignore_permissions,
        owners=await trio.to_thread.run_sync(Owners, rules.owners) if counts else None,
    )


def known_entries(manifest: Manifest | None, scope: Scope) -> list[Entry]:
    """What the agent has of an index that was taken for the same ignore lines."""
    if manifest is None or manifest.ignore != scope.ignore.lines:
        return []
    return [placed.entry for placed in manifest.placed]
