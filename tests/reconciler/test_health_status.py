"""What is known of a service's health after a pass, and whom a pass looks at."""

from datetime import UTC, datetime

import pytest

from reconciler.apply import Outcome
from reconciler.health_status import checks_due, digest_of, notes_of_health, with_health
from reconciler.spec.model import Health
from reconciler.status.conditions import ConditionStatus, find_condition, set_condition
from reconciler.status.documents import Recorded, ServiceStatus
from reconciler.status.transitions import transitions
from tests.reconciler.facts import desired

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEB = "services/staging/web"
HEALTH = Health(tcp="db:1")


def status(
    health: Health | None = HEALTH, found: ConditionStatus = "True", *, ready: ConditionStatus = "True"
) -> ServiceStatus:
    conditions = set_condition((), "Ready", ready, "R", now=NOW)
    if health is not None:
        conditions = set_condition(
            conditions,
            "Healthy",
            found,
            "R",
            now=NOW,
            observed_generation=digest_of(health),
        )
    return ServiceStatus(id=WEB, last_applied_revision="v1", conditions=conditions)


UNCHECKED = "not checked: its deploy did not get that far"
OUTCOMES = [
    (Outcome("succeeded"), {}, ("True", "ReconciliationSucceeded", "")),
    (Outcome("failed", "HealthCheckFailed", "HTTP 503"), {}, ("False", "HealthCheckFailed", "HTTP 503")),
    (Outcome("failed", "DeployFailed", "x"), {}, ("Unknown", "DeployFailed", UNCHECKED)),
    (Outcome("blocked", "DependencyNotReady"), {}, ("True", "R", "")),
    (None, {WEB: None}, ("True", "ReconciliationSucceeded", "")),
    (None, {WEB: "connection refused"}, ("False", "HealthCheckFailed", "connection refused")),
    (None, {}, ("True", "R", "")),
]


@pytest.mark.parametrize(("outcome", "looked", "expected"), OUTCOMES)
def test_the_condition(
    outcome: Outcome | None, looked: dict[str, str | None], expected: tuple[str, str, str]
) -> None:
    after = with_health(status(), HEALTH, outcome, looked, NOW)
    condition = find_condition(after.conditions, "Healthy")
    assert condition is not None
    assert (condition.status, condition.reason, condition.message) == expected
    # Whatever was found, it costs no other word: Ready is for what the spec asks.
    assert find_condition(after.conditions, "Ready") == find_condition(status().conditions, "Ready")


def test_without_a_check_there_is_no_condition() -> None:
    after = with_health(status(), None, None, {}, NOW)
    assert find_condition(after.conditions, "Healthy") is None
    plain = status(None)
    assert with_health(plain, None, Outcome("succeeded"), {WEB: None}, NOW) is plain


SERVICE = """\
services:
  web: {{repository: app, deploy: {{kind: {deploy}}}{health}, environments: [staging]}}
"""


def due(
    health: str, recorded: ServiceStatus | None, *deploying: str, deploy: str = "invoke, task: t"
) -> tuple[int, int]:
    """How many are looked at, and how many notes there are."""
    made = desired(SERVICE.format(health=f", health: {health}" if health else "", deploy=deploy))
    known = Recorded().put(recorded) if recorded is not None else Recorded()
    return len(checks_due(made, known, deploying)[0]), len(notes_of_health(made, known, deploying))


def test_whom_a_pass_looks_at() -> None:
    tcp, command = '{tcp: "db:1"}', "{command: [check]}"
    assert due(tcp, status()) == (1, 0)
    assert due(tcp, status(None)) == (1, 0)
    assert due(tcp, status(Health(tcp="other:1"))) == (1, 1)
    # Its step does it.
    assert due(tcp, status(Health(tcp="other:1")), WEB) == (0, 0)
    # Nothing is there yet, unless people deploy it.
    assert due(tcp, None) == due(tcp, ServiceStatus(id=WEB)) == (0, 0)
    assert due(tcp, None, deploy="manual") == (1, 0)
    # Code of the repository runs only where it is other code than before.
    assert due(command, status(Health(command=("check",)))) == (0, 0)
    assert due(command, status(Health(command=("other",)))) == (1, 1)
    assert due("", status()) == (0, 0)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (status(), status(found="False"), ["degraded"]),
        (status(None), status(found="False"), ["degraded"]),
        (status(found="False"), status(found="False"), []),
        (status(found="False"), status(), ["recovered"]),
        (status(found="Unknown"), status(), []),
        (status(), status(found="False", ready="False"), ["failed"]),
    ],
)
def test_it_is_told_once(before: ServiceStatus, after: ServiceStatus, kind: list[str]) -> None:
    found = transitions(Recorded().put(before), Recorded().put(after))
    assert [each.kind for each in found] == kind
