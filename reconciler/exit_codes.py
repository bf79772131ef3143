"""What a command's exit code says. A stable contract with people's scripts. Pure."""

from collections.abc import Collection
from enum import IntEnum
from typing import TYPE_CHECKING

from reconciler.status.conditions import Reason

if TYPE_CHECKING:
    from reconciler.errors import Problem
    from reconciler.plan import Plan
    from reconciler.reconcile import Pass


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    CHANGES_PENDING = 2
    SPEC_INVALID = 3
    PARTLY_APPLIED = 4


def plan_exit_code(plan: "Plan", problems: "Collection[Problem]", *, detailed: bool) -> ExitCode:
    """3 for a spec with errors; 1 where something is unknown or not in order; 2 for changes if asked for."""
    if problems:
        return ExitCode.SPEC_INVALID
    if any(finding.unknown or finding.blocks for finding in plan.findings):
        return ExitCode.FAILED
    return ExitCode.CHANGES_PENDING if detailed and plan.steps else ExitCode.DONE


def pass_exit_code(done: "Pass") -> ExitCode:
    """4 where some resource is not as the spec asks although the pass ran."""
    if done.problems:
        return ExitCode.SPEC_INVALID
    failed = any(outcome.state != "succeeded" for outcome in done.outcomes.values())
    not_in_order = any(
        finding.unknown or (finding.blocks and finding.reason != Reason.PROGRESSING)
        for finding in done.plan.findings
    )
    return ExitCode.PARTLY_APPLIED if failed or not_in_order or done.returned else ExitCode.DONE
