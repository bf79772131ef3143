"""Whatever a primary may ask an agent to do, each kind done by its own module, and always answered."""

from pathlib import Path

import trio

from agent.command_task import run_allowed
from agent.errors import TransferFailed, TrueupError
from agent.failures import TaskFailed, code_of, line_of
from agent.manifest import manifest_path
from agent.pruning import remove_releases
from agent.recent import RecentLooks
from agent.release import run_release
from agent.removal import remove
from agent.rules import AgentRules
from agent.target import check_target
from agent.task import run_task
from agent.versions import load_releases, record_path, version_path
from agent.wire.channel import Channel
from agent.wire.messages import Command, Task, TaskReport, Work


async def run_work(
    work: Work, channel: Channel, *, rules: AgentRules, state_dir: Path, looks: RecentLooks | None = None
) -> TaskReport:
    """Does what `work` asks, within `rules`, and reports; the caller sends the report. `looks` are those that
    works before it have taken.

    What goes wrong on this host is a FAILED report. Raises TransferFailed once the session is gone.
    """
    try:
        releases = await trio.to_thread.run_sync(load_releases, record_path(state_dir, work.target_path))
        if isinstance(work, Task) and work.strategy == "release":
            return await run_release(work, channel, rules=rules, state_dir=state_dir)
        if isinstance(work, Task):
            if releases is not None:
                check_target(work.target_path, rules.roots)
                raise _holds_releases(work.target_path)
            return await run_task(work, channel, rules=rules, state_dir=state_dir, looks=looks)
        if isinstance(work, Command):
            inside = version_path("", releases.current) if releases is not None else ""
            try:
                return await run_allowed(work, rules=rules, inside=inside)
            finally:
                if looks is not None:  # it may have changed what was seen
                    looks.take(manifest_path(state_dir, work.target_path))
        if releases is not None:
            return await remove_releases(work, rules=rules, state_dir=state_dir)
        return await remove(work, rules=rules, state_dir=state_dir)
    except TransferFailed:
        raise
    except (TrueupError, OSError) as error:
        return TaskReport(task=work.id, state="FAILED", reason=code_of(error), message=line_of(error)[:2000])


def _holds_releases(target: str) -> TaskFailed:
    return TaskFailed(
        "StrategyChanged",
        f"{target!r} holds releases",
        hint="name another target_path for a tree without them: what is here goes once the spec"
        " no longer has it",
    )
