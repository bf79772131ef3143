"""Decisions that stop something or let it go on: what is recorded, and what is refused in which words."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.control import orders
from reconciler.control.records import Record
from reconciler.control.situation import DecisionRefused, Situation
from reconciler.control.state import fold
from reconciler.spec.load import load
from reconciler.status.documents import EnvironmentStatus, Hold, Recorded
from tests.reconciler.control.records import ANNA, NOW, record

SPEC = b"""
version: 1
repositories:
  infra:
    url: https://git.example/infra.git
    units: {platform: {paths: ["platform/**"]}, web: {paths: ["web/**"]}}
environments:
  staging: {}
  production: {windows: [{allow: "Mon-Thu 09:00-17:00"}]}
services:
  db:
    repository: infra
    unit: platform
    environments: [staging, production]
    deploy: {kind: invoke, task: db}
  web:
    repository: infra
    unit: web
    environments: [staging, production]
    deploy: {kind: invoke, task: web}
  old: {repository: infra, unit: web, environments: [staging], suspend: true, deploy: {kind: manual}}
"""


def situation(*records: Record, holds: tuple[Hold, ...] = ()) -> Situation:
    loaded = load({"trueup.yaml": SPEC})
    assert loaded.spec is not None, loaded.problems
    production = EnvironmentStatus(id="environments/production", holds=holds)
    numbered = [record(each.kind, number, **_fields(each)) for number, each in enumerate(records, start=1)]
    return Situation(
        spec=loaded.spec,
        spec_commit="0" * 40,
        recorded=Recorded().put(production),
        control=fold(numbered),
        by=ANNA,
        now=NOW,
    )


def _fields(given: Record) -> dict[str, object]:
    return {name: getattr(given, name) for name in given.__struct_fields__ if name not in ("number", "kind")}


def refused(decide: Callable[[], Record]) -> str:
    with pytest.raises(DecisionRefused) as caught:
        decide()
    return str(caught.value)


HOLD = record("hold", environment="production", reason="a sale")
HOLD_WEB = record("hold", environment="production", unit="infra/web")


def test_what_is_recorded_says_who_when_and_why() -> None:
    at = replace(situation(), now=NOW + timedelta(microseconds=5))
    assert orders.hold(at, "production", "infra/web", "a sale\n") == record(
        "hold", environment="production", unit="infra/web", reason="a sale"
    )
    assert orders.freeze(at, "") == record("freeze")
    assert orders.suspend(at, "service/web", "") == record("suspend", resource="services/web")
    assert orders.override(at, "production", 7200, "a bug") == record(
        "override", environment="production", until=NOW + timedelta(hours=2), reason="a bug"
    )


def test_a_name_that_nothing_has_is_told_with_the_one_that_was_meant() -> None:
    at = situation()
    assert refused(lambda: orders.hold(at, "prodution", None, "")) == (
        "there is no environment 'prodution'; did you mean production?"
    )
    assert refused(lambda: orders.unhold(at, "production", "infra/wbe", "")) == (
        "there is no unit of production 'infra/wbe'; did you mean infra/web?"
    )
    assert refused(lambda: orders.hold(at, "production", "x", "")).endswith(
        "there is infra/platform, infra/web"
    )
    assert refused(lambda: orders.suspend(at, "services/wbe", "")) == (
        "there is no service, project or environment 'services/wbe'; did you mean services/web?"
    )
    assert "there is no service" in refused(lambda: orders.resume(at, "services/production/old", ""))
    assert "there is no environment" in refused(lambda: orders.override(at, "dev", 1, "why"))


def test_what_is_held_already_is_not_held_again() -> None:
    assert refused(lambda: orders.hold(situation(HOLD), "production", "infra/web", "")) == (
        "production is held already, by Anna <anna@example.org> on 2026-03-01 12:00 UTC: a sale"
    )
    assert "infra/web is held already" in refused(
        lambda: orders.hold(situation(HOLD_WEB), "production", "infra/web", "")
    )
    assert orders.hold(situation(HOLD_WEB), "production", None, "").unit == ""
    left = record("unhold", environment="production", unit="infra/web")
    assert orders.hold(situation(HOLD, left), "production", "infra/web", "").unit == "infra/web"


def test_only_what_is_held_is_let_go() -> None:
    assert refused(lambda: orders.unhold(situation(), "production", None, "")) == "production is not held"
    assert refused(lambda: orders.unhold(situation(HOLD_WEB), "production", "infra/platform", "")) == (
        "infra/platform is not held in production"
    )
    for held in (HOLD, HOLD_WEB):
        assert orders.unhold(situation(held), "production", "infra/web", "").unit == "infra/web"
        assert orders.unhold(situation(held), "production", None, "").unit == ""


def test_a_hold_that_a_failure_has_set_is_let_go_once() -> None:
    failed = Hold(
        reason="RolledBack",
        resource="services/production/web with v1.2.0",
        at=NOW,
        unit="infra/web",
        decision=0,
    )
    for unit in (None, "infra/web"):
        assert orders.unhold(situation(holds=(failed,)), "production", unit, "").kind == "unhold"
    done = record("unhold", environment="production")
    assert "not held" in refused(
        lambda: orders.unhold(situation(done, holds=(failed,)), "production", None, "")
    )


def test_a_hold_that_secrets_have_set_ends_by_itself() -> None:
    secret = Hold(reason="SecretChangeFailed", resource="services/production/web", keys=("DB_URL",), at=NOW)
    assert refused(lambda: orders.unhold(situation(holds=(secret,)), "production", None, "")) == (
        "production is not held; what new secrets hold there ends when services/production/web is deployed"
    )


def test_a_freeze_is_begun_and_ended_once() -> None:
    frozen = record("freeze", reason="an incident")
    assert refused(lambda: orders.freeze(situation(frozen), "")).startswith(
        "everything is frozen already, by Anna <anna@example.org>"
    )
    assert orders.unfreeze(situation(frozen), "").kind == "unfreeze"
    assert refused(lambda: orders.unfreeze(situation(), "")) == "nothing is frozen"


def test_an_override_needs_windows_and_a_reason() -> None:
    assert refused(lambda: orders.override(situation(), "staging", 60, "why")) == (
        "staging has no windows that could be opened: it is always open"
    )
    assert refused(lambda: orders.override(situation(), "production", 60, " ")) == (
        "an override says why; give --reason TEXT"
    )


def test_what_is_suspended_already_is_not_suspended_again() -> None:
    web = record("suspend", resource="services/web")
    assert "services/web is suspended already, by Anna" in refused(
        lambda: orders.suspend(situation(web), "services/production/web", "")
    )
    one = record("suspend", resource="services/production/web")
    assert orders.suspend(situation(one), "services/web", "").resource == "services/web"
    assert orders.suspend(situation(), "environments/production", "").resource == "environments/production"


def test_only_what_is_suspended_is_resumed() -> None:
    assert refused(lambda: orders.resume(situation(), "services/web", "")) == "services/web is not suspended"
    assert refused(lambda: orders.resume(situation(), "services/old", "")) == (
        "services/old is not suspended by a command; take `suspend: true` out of the spec"
    )
    for suspended, name in (
        ("services/web", "services/web"),
        ("services/web", "services/production/web"),
        ("services/production/web", "services/web"),
        ("services/gone", "services/gone"),
    ):
        at = situation(record("suspend", resource=suspended))
        assert orders.resume(at, name, "").resource == name
