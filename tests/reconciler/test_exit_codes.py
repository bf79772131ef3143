"""What exit codes say of plans and passes."""

import pytest

from reconciler.apply import Outcome, State
from reconciler.errors import Problem
from reconciler.exit_codes import ExitCode, pass_exit_code, plan_exit_code
from reconciler.plan import Action, Finding, Plan, Step
from reconciler.reconcile import Pass

STEP = Step("services/staging/web", Action.DEPLOY, "changed")
UNKNOWN = Finding("x", "AgentUnreachable", "away", unknown=True, blocks=False)
BLOCKS = Finding("x", "SecretNotFound", "missing")
REPORTED = Finding("x", "DriftDetected", "edited", blocks=False)
PROBLEM = Problem("trueup.yaml", 1, 1, "", "wrong")


@pytest.mark.parametrize(
    ("steps", "findings", "problems", "plain", "detailed"),
    [
        ((), (), (), ExitCode.DONE, ExitCode.DONE),
        ((STEP,), (), (), ExitCode.DONE, ExitCode.CHANGES_PENDING),
        ((), (REPORTED,), (), ExitCode.DONE, ExitCode.DONE),
        ((), (UNKNOWN,), (), ExitCode.FAILED, ExitCode.FAILED),
        ((STEP,), (UNKNOWN,), (), ExitCode.FAILED, ExitCode.FAILED),
        ((STEP,), (BLOCKS,), (), ExitCode.FAILED, ExitCode.FAILED),
        ((STEP,), (UNKNOWN,), (PROBLEM,), ExitCode.SPEC_INVALID, ExitCode.SPEC_INVALID),
    ],
)
def test_of_a_plan(
    steps: tuple[Step, ...],
    findings: tuple[Finding, ...],
    problems: tuple[Problem, ...],
    plain: ExitCode,
    detailed: ExitCode,
) -> None:
    plan = Plan("main@sha1:1", steps, findings)
    assert plan_exit_code(plan, problems, detailed=False) == plain
    assert plan_exit_code(plan, problems, detailed=True) == detailed


@pytest.mark.parametrize(
    ("state", "findings", "problems", "code"),
    [
        ("succeeded", (), (), ExitCode.DONE),
        ("succeeded", (REPORTED,), (), ExitCode.DONE),
        ("failed", (), (), ExitCode.PARTLY_APPLIED),
        ("blocked", (), (), ExitCode.PARTLY_APPLIED),
        ("succeeded", (UNKNOWN,), (), ExitCode.PARTLY_APPLIED),
        ("succeeded", (BLOCKS,), (), ExitCode.PARTLY_APPLIED),
        ("failed", (), (PROBLEM,), ExitCode.SPEC_INVALID),
    ],
)
def test_of_a_pass(
    state: State, findings: tuple[Finding, ...], problems: tuple[Problem, ...], code: ExitCode
) -> None:
    plan = Plan("main@sha1:1", (STEP,), findings)
    done = Pass(plan, {STEP.resource: Outcome(state)}, problems)
    assert pass_exit_code(done) == code


def test_the_contract() -> None:
    assert [(code.name, code.value) for code in ExitCode] == [
        ("DONE", 0),
        ("FAILED", 1),
        ("CHANGES_PENDING", 2),
        ("SPEC_INVALID", 3),
        ("PARTLY_APPLIED", 4),
    ]
