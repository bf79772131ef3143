"""What agents report of their work, as metrics of their nodes."""

from typing import Final

from agent.wire.messages import TaskReport
from reconciler.metrics.declared import (
    NODE_BLOCKS,
    NODE_BYTES,
    NODE_FILES,
    NODE_SECONDS,
    NODE_TASKS,
    SYNC_BYTES,
)
from reconciler.metrics.registry import Metrics

MOST: Final = 2**50
"""A larger number in one report, or a negative one, is nonsense and counts for nothing."""


def count_report(metrics: Metrics, node: str, report: TaskReport, *, looks: bool) -> None:
    """`looks`: the task was to change nothing, and is no attempt at anything."""
    if not looks:
        metrics.count(NODE_TASKS, node=node, state=report.state)
        metrics.count(NODE_SECONDS, plausible(report.seconds), node=node)
    for how, amount in (("received", report.bytes_received), ("reused", report.bytes_reused)):
        metrics.count(SYNC_BYTES, plausible(amount), how=how)
        metrics.count(NODE_BYTES, plausible(amount), node=node, how=how)
    for how, amount in (("requested", report.blocks_requested), ("reused", report.blocks_reused)):
        metrics.count(NODE_BLOCKS, plausible(amount), node=node, how=how)
    for how, amount in (
        ("written", report.files_written),
        ("deleted", report.files_deleted),
        ("known", report.files_known),
        ("read", report.files_read),
    ):
        metrics.count(NODE_FILES, plausible(amount), node=node, how=how)


def plausible(number: float) -> float:
    """An agent may say anything, also what is no number."""
    return number if 0 <= number <= MOST else 0
