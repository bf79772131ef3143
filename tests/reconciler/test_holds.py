"""When an environment is held at its releases, and what ends that."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from reconciler.apply import Outcome
from reconciler.hashing import Inputs
from reconciler.holds import active_holds, hold_message, only_secrets, with_outcomes, with_untold_failures
from reconciler.journal import StepRecord
from reconciler.plan import Action, Step
from reconciler.recording import with_moves
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Move
from reconciler.status.documents import (
    EnvironmentStatus,
    Hold,
    InputDigests,
    Recorded,
    ServiceStatus,
    Summary,
)
from tests.reconciler.facts import HEAD

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
WEB, API = "services/staging/web", "services/staging/api"
STAGING = EnvironmentStatus(id="environments/staging")
FAILED, SUCCEEDED, BLOCKED = Outcome("failed", "DeployFailed"), Outcome("succeeded"), Outcome("blocked")


def after(
    status: EnvironmentStatus,
    resource: str,
    outcome: Outcome,
    changes: tuple[str, ...] = ("secret A",),
    *,
    action: Action = Action.DEPLOY,
    named: Iterable[str] = (WEB, API),
    now: datetime = NOW,
) -> EnvironmentStatus:
    step = Step(resource, action, "", changes=changes)
    return with_outcomes(
        status, [step], {resource: outcome}, named=named, is_frozen=lambda id: id == "frozen", now=now
    )


def test_only_secrets_are_so_by_the_names_that_a_plan_gives() -> None:
    assert only_secrets(("secret A", "secret B")) == ("A", "B")
    assert only_secrets(("env A", "secret B")) == ()
    assert only_secrets(()) == ()


def test_a_failure_holds_only_where_nothing_but_secrets_changed() -> None:
    [hold] = after(STAGING, WEB, FAILED).holds
    assert hold == Hold(reason="SecretChangeFailed", resource=WEB, keys=("A",), at=NOW)
    for unheld in (
        after(STAGING, WEB, FAILED, ("env X", "secret A")),
        after(STAGING, WEB, FAILED, ()),
        after(STAGING, WEB, SUCCEEDED),
        after(STAGING, WEB, BLOCKED),
        after(STAGING, WEB, FAILED, action=Action.SYNC),
        after(STAGING, "services/production/web", FAILED),
    ):
        assert unheld.holds == ()


def test_a_hold_stays_through_more_failures_and_ends_with_a_success() -> None:
    held = after(STAGING, WEB, FAILED)
    again = after(held, WEB, FAILED, (), now=LATER)
    assert again == held
    assert after(held, WEB, BLOCKED, ()) == held
    both = after(held, API, FAILED, ("secret B",), now=LATER)
    assert [hold.resource for hold in both.holds] == [API, WEB]
    assert [hold.resource for hold in after(both, WEB, SUCCEEDED, ()).holds] == [API]


def test_a_hold_ends_with_its_service_unless_the_spec_is_wrong_there() -> None:
    held = after(STAGING, WEB, FAILED)
    assert after(held, API, SUCCEEDED, named=[API]).holds == ()
    frozen = EnvironmentStatus(id=STAGING.id, holds=(Hold(reason="r", resource="frozen", at=NOW),))
    assert after(frozen, API, SUCCEEDED).holds == frozen.holds
    text = (
        HEAD
        + "services: {web: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}}\n"
    )
    spec = load_or_raise({SPEC_FILE: text.encode()})
    assert active_holds(Recorded().put(held), spec, lambda _id: False) == {"staging": held.holds}
    gone = EnvironmentStatus(id=STAGING.id, holds=(Hold(reason="r", resource=API, at=NOW),))
    assert active_holds(Recorded().put(gone), spec, lambda _id: False) == {}
    assert active_holds(Recorded().put(gone), spec, lambda id: id == API) == {"staging": gone.holds}


def test_a_renamed_service_keeps_its_hold() -> None:
    known = Recorded().put(after(STAGING, WEB, FAILED))
    [hold] = with_moves(known, [Move(old="services/web", new="services/site")]).environments[STAGING.id].holds
    assert hold.resource == "services/staging/site"


def test_a_failure_that_a_killed_pass_did_not_tell_holds_too() -> None:
    service = ServiceStatus(
        id=WEB, config_hash="v1:1:2:3", inputs=InputDigests(public={"deploy": "1"}, keyed={"A": "1"})
    )
    known = Recorded().put(STAGING, service)

    def untold(inputs: Inputs, outcome: str = "failed") -> StepRecord:
        ended = LATER.isoformat()
        return StepRecord(
            1, 1, WEB, Action.DEPLOY, "h", "", "", "", ended_at=ended, outcome=outcome, inputs=inputs
        )

    changed = untold(Inputs({"deploy": "1"}, {"A": "2"}))
    held = with_untold_failures(known, [changed])
    assert held.environments[STAGING.id].holds == (
        Hold(reason="SecretChangeFailed", resource=WEB, keys=("A",), at=LATER),
    )
    assert with_untold_failures(held, [changed]) == held
    seen = known.put(Summary(id="summary", control=7))  # a release that was asked for before lifts nothing
    [hold] = with_untold_failures(seen, [changed]).environments[STAGING.id].holds
    assert hold.decision == 7
    for other in (
        untold(Inputs({"deploy": "2"}, {"A": "2"})),
        untold(Inputs({"deploy": "1"}, {"A": "1"})),
        untold(Inputs({"deploy": "1"}, {"A": "2"}), outcome=""),
    ):
        assert with_untold_failures(known, [other]) == known


def test_the_message_names_what_failed_and_what_waits() -> None:
    message = hold_message("staging", after(STAGING, WEB, FAILED).holds, {"app": "v1.1.0"})
    assert f"{WEB} failed (A)" in message
    assert "v1.1.0 of app waits" in message
