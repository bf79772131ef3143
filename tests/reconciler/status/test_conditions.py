"""Conditions: what moves their time, which ones may stand, and that messages stay short."""

import importlib
import pkgutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
import reconciler
from agent.errors import TrueupError
from reconciler.status.conditions import (
    MAX_MESSAGE,
    Conditions,
    ConditionStatus,
    ConditionType,
    Reason,
    bounded,
    condition_status,
    find_condition,
    remove_condition,
    set_condition,
)

MOMENT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = MOMENT + timedelta(hours=1)


def failed() -> Conditions:
    return set_condition((), ConditionType.READY, "False", Reason.DEPLOY_FAILED, "exit code 1", now=MOMENT)


def test_only_another_status_moves_the_time() -> None:
    (kept,) = set_condition(failed(), "Ready", "False", Reason.TIMEOUT, "took too long", now=LATER)
    assert (kept.last_transition_time, kept.reason, kept.message) == (MOMENT, "Timeout", "took too long")
    (moved,) = set_condition(failed(), "Ready", "True", Reason.RECONCILIATION_SUCCEEDED, now=LATER)
    assert (moved.last_transition_time, moved.message) == (LATER, "")


def test_the_same_again_is_equal() -> None:
    again = set_condition(failed(), "Ready", "False", Reason.DEPLOY_FAILED, "exit code 1", now=LATER)
    assert again == failed()


@pytest.mark.parametrize("type", ["Reconciling", "Stalled"])
def test_abnormal_ones_stand_only_while_true(type: str) -> None:
    conditions = set_condition(failed(), type, "True", Reason.PROGRESSING, now=MOMENT)
    assert condition_status(conditions, type) == "True"
    statuses: tuple[ConditionStatus, ...] = ("False", "Unknown")
    for status in statuses:
        assert set_condition(conditions, type, status, "x", now=LATER) == failed()
    assert condition_status(failed(), type) == "False"


def test_order_and_lookup() -> None:
    conditions = failed()
    for type in ("Stalled", "SourceVerified", "Healthy", "Reconciling"):
        conditions = set_condition(conditions, type, "True", "x", now=MOMENT)
    assert [condition.type for condition in conditions] == [
        "Ready",
        "Reconciling",
        "Stalled",
        "Healthy",
        "SourceVerified",
    ]
    assert find_condition(conditions, "Healthy") is not None
    without = remove_condition(conditions, "Healthy")
    assert find_condition(without, "Healthy") is None
    assert condition_status(without, "Healthy") == "Unknown"


def test_times_are_whole_seconds_in_utc() -> None:
    summer = timezone(timedelta(hours=2))
    moment = datetime(2026, 7, 1, 14, 30, 15, 999_999, tzinfo=summer)
    (condition,) = set_condition((), "Ready", "True", "x", now=moment)
    assert condition.last_transition_time == datetime(2026, 7, 1, 12, 30, 15, tzinfo=UTC)
    assert condition.last_transition_time.utcoffset() == timedelta(0)


@given(st.text(), st.integers(2, 50))
def test_messages_are_one_short_line(text: str, limit: int) -> None:
    line = bounded(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert line == bounded(line, limit)


def test_a_giant_message_is_cut() -> None:
    (condition,) = set_condition((), "Ready", "False", "r" * 1000, "x" * 10_000_000, now=MOMENT)
    assert len(condition.message) == MAX_MESSAGE
    assert condition.message.endswith("…")
    assert len(condition.reason) == 64


OF_NO_PASS = (
    "reconciler.backup",
    "reconciler.install",
    "reconciler.live",
    "reconciler.web",
    "reconciler.spec_",
)


def test_every_error_that_may_reach_a_status_file_has_a_known_reason() -> None:
    for package in (agent, reconciler):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", ".demo")):
                importlib.import_module(module.name)
    errors, kinds = [TrueupError], []
    while errors:
        kinds.append(errors.pop())
        errors += kinds[-1].__subclasses__()
    # What is told to who asks the running primary, changes the spec, installs or restores is of no pass.
    ours = [
        kind
        for kind in kinds
        if kind.__module__.partition(".")[0] in ("agent", "reconciler")
        and not kind.__module__.startswith(OF_NO_PASS)
    ]
    assert len(ours) > 20
    reasons = {kind.reason: kind for kind in ours if isinstance(kind.reason, str)}
    assert {reason: kind for reason, kind in reasons.items() if reason not in set(Reason)} == {}


def test_the_docs_explain_every_reason_and_type() -> None:
    text = (Path(__file__).parents[3] / "docs" / "status.md").read_text()
    assert [each for each in (*Reason, *ConditionType) if f"| `{each}` |" not in text] == []
