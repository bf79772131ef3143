"""Whatever a primary may ask an agent to do, each kind done by its own module, and always answered."""

from pathlib import Path

from agent.command_task import run_allowed
from agent.errors import TransferFailed, TrueupError
from agent.failures import code_of, line_of
from agent.removal import remove
from agent.rules import AgentRules
from agent.task import run_task
from agent.wire.channel import Channel
from agent.wire.messages import Command, Task, TaskReport, Work


async def run_work(work: Work, channel: Channel, *, rules: AgentRules, state_dir: Path) -> TaskReport:
    """Does what `work` asks, within `rules`, and reports; the caller sends the report.

    What goes wrong on this host is a FAILED report. Raises TransferFailed once the session is gone.
    """
    if isinstance(work, Task):
        return await run_task(work, channel, rules=rules, state_dir=state_dir)
    try:
        if isinstance(work, Command):
            return await run_allowed(work, rules=rules)
        return await remove(work, rules=rules, state_dir=state_dir)
    except TransferFailed:
        raise
    except (TrueupError, OSError) as error:
        return TaskReport(task=work.id, state="FAILED", reason=code_of(error), message=line_of(error)[:2000])
