"""What requests for deploys come to, case by case, and what is told of them afterwards."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from reconciler.control.records import Record
from reconciler.control.situation import Situation
from reconciler.control.state import fold
from reconciler.git.objects import Tag
from reconciler.observation import Setback
from reconciler.release.facts import Common, Lineage, UnitFacts
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from reconciler.status.documents import Recorded, Release, UnitStatus
from reconciler.web.deploy_bodies import Asked
from reconciler.web.deploy_orders import (
    DeployRefused,
    Order,
    order_of,
    progress_of,
    unit_of,
    units_meant,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OLD, NEW, FIX, ODD = "a" * 40, "b" * 40, "f" * 40, "d" * 40
SPEC = """\
version: 1
repositories: {app: {url: "https://git.example/app.git"}, lib: {url: "https://git.example/lib.git"}}
environments:
  staging: {release: {from: main, cut: external}}
  production: {release: {promote_from: staging}}
services:
  web: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging, production]}
  api: {repository: lib, deploy: {kind: invoke, task: t}, environments: [production]}
"""
TAGS = (
    Tag("v1.0.0", OLD, True, {"Environment": "staging"}),
    Tag("v1.0.1", NEW, True, {"Environment": "staging"}),
    Tag("v1.1.0", OLD, True, {"Environment": "production"}),
    Tag("v1.1.1", FIX, True),
    Tag("v1.0.9", ODD, True, {"Environment": "staging"}),
)


def spec() -> Spec:
    return load_or_raise({SPEC_FILE: SPEC.encode()})


def release(tag: str, commit: str, **more: object) -> Release:
    given = {"outcome": "succeeded", "ended_at": NOW, **more}
    return Release(tag=tag, commit=commit, recorded_at=NOW, **given)  # type: ignore[arg-type]


STAGING = UnitStatus(release=release("v1.0.1", NEW), history=(release("v1.0.0", OLD),))
PRODUCTION = UnitStatus(release=release("v1.1.0", OLD, promoted_from="v1.0.0", kind="promotion"), decision=1)


def asked(env: str, tag: str, *, once: bool = True, rollback: bool = False, service: str = "") -> Asked:
    nonce = "n" * 8 if once else ""
    return Asked(env, tag, service, rollback, "octocat via deploy <deploy@localhost>", "d", nonce)


def order(
    request: Asked,
    *,
    production: UnitStatus | None = PRODUCTION,
    staging: UnitStatus | None = STAGING,
    records: Sequence[Record] = (),
) -> Order:
    made = spec()
    control = fold(records)
    at = Situation(made, "5" * 40, Recorded(), control, request.by, NOW)
    in_production = request.environment == "production"
    recorded = production if in_production else staging
    facts = UnitFacts(
        unit=made.units["app"],
        environment=made.environments[request.environment],
        tags=TAGS,
        recorded=recorded,
        seen=recorded.decision if recorded is not None else 0,
        source=staging if in_production else None,
        lineage=Lineage({(OLD, FIX): True, (OLD, NEW): True, (OLD, ODD): False}),
    )
    known, tag = unit_of(request, [facts])
    return order_of(request, at, known, tag, Common(now=NOW, spec_commit="5" * 40, control=control))


def record(kind: str, number: int = 2, **more: object) -> Record:
    given = {"environment": "production", "unit": "app", **more}
    return Record(number=number, kind=kind, by="A <a@x>", at=NOW, **given)  # type: ignore[arg-type]


def test_a_promotion_of_the_tag_of_the_source() -> None:
    made = order(asked("production", "v1.0.1"))
    assert made.record is not None
    assert (made.kind, made.record.tag, made.record.commit) == ("promote", "v1.0.1", NEW)
    assert made.record.kind == "promote"
    assert (made.record.source, made.record.unit) == ("staging", "app")
    assert made.record.by == "octocat via deploy <deploy@localhost>"


def test_a_tag_at_the_same_commit_means_the_release_of_the_source() -> None:
    made = order(asked("production", "v1.1.0"), production=None)
    assert made.record is not None
    assert (made.record.kind, made.record.tag) == ("promote", "v1.0.0")


def test_what_runs_already_needs_no_record() -> None:
    for tag in ("v1.1.0", "v1.0.0"):
        made = order(asked("production", tag))
        assert (made.kind, made.record, made.decision) == ("follow", None, 0)


def test_a_tag_that_descends_from_what_runs_is_a_hotfix() -> None:
    made = order(asked("production", "v1.1.1"))
    assert made.record is not None
    assert (made.record.kind, made.record.tag, made.record.commit) == ("hotfix", "v1.1.1", FIX)


def test_what_was_asked_for_and_waits_is_not_recorded_again() -> None:
    waits = record("promote", tag="v1.0.1", commit=NEW, source="staging")
    made = order(asked("production", "v1.0.1"), records=[waits])
    assert (made.record, made.decision) == (None, 2)
    done = order(asked("production", "v1.0.1"), records=[record("promote", 1, tag="v1.0.1", commit=NEW)])
    assert done.record is not None


def test_staging_takes_its_tags_by_itself() -> None:
    assert order(asked("staging", "v1.0.9")).kind == "follow"
    assert order(asked("staging", "v1.0.1")).kind == "follow"


LATER = UnitStatus(
    release=release("v1.1.0", OLD, promoted_from="v1.0.0", kind="rollback"),
    history=(release("v1.2.0", NEW, promoted_from="v1.0.1", kind="promotion"),),
    decision=3,
)

REPEATABLE = asked("production", "v1.0.1", once=False)
REFUSED = [
    (asked("staging", "v1.0.0"), {}, "goes forwards only"),
    (asked("staging", "v1.1.0"), {}, "is a release for production, not for staging"),
    (asked("staging", "v1.1.1"), {}, "v1.1.1 names no environment, and other tags of app do"),
    (asked("production", "v1.0.9"), {}, "staging has no record of running it"),
    (asked("production", "v0.0.1"), {}, "has a release tag v0.0.1"),
    (asked("production", "v1.0.0", rollback=True), {}, "has no earlier release v1.0.0"),
    (REPEATABLE, {"records": [record("hold")]}, "production stays as it is: A <a@x> holds app"),
    (REPEATABLE, {"production": LATER}, "is not newer than what ran in production before"),
    (
        asked("production", "v1.0.1"),
        {"staging": UnitStatus(release=release("v1.0.1", NEW, outcome="failed", reason="broken"))},
        "it failed in staging: broken",
    ),
]


@pytest.mark.parametrize(("request_", "state", "told"), REFUSED)
def test_what_is_refused(request_: Asked, state: dict[str, object], told: str) -> None:
    with pytest.raises(DeployRefused) as raised:
        order(request_, **state)  # type: ignore[arg-type]
    assert told in str(raised.value)
    assert raised.value.status in (404, 409)


def test_a_request_of_its_own_passes_a_hold_and_returns() -> None:
    assert order(asked("production", "v1.0.1"), records=[record("hold")]).record is not None
    assert order(asked("production", "v1.0.1"), production=LATER).record is not None
    back = order(asked("production", "v1.1.0", rollback=True), production=UnitStatus(
        release=release("v1.2.0", NEW), history=(release("v1.1.0", OLD),)
    ))  # fmt: skip
    assert back.record is not None
    assert (back.record.kind, back.record.tag, back.record.commit) == ("rollback", "v1.1.0", OLD)


def test_which_unit_is_meant() -> None:
    made = spec()
    at = Situation(made, "5" * 40, Recorded(), fold([]), "A <a@x>", NOW)
    assert units_meant(asked("production", "v1"), at) == ["app", "lib"]
    assert units_meant(asked("production", "v1", service="api"), at) == ["lib"]
    for odd in (asked("prod", "v1"), asked("production", "v1", service="wb")):
        with pytest.raises(DeployRefused) as raised:
            units_meant(odd, at)
        assert raised.value.status == 404
    environment = made.environments["production"]
    both = [UnitFacts(made.units[name], environment, TAGS) for name in ("app", "lib")]
    with pytest.raises(DeployRefused, match=r"may be of app, lib; name one of its services"):
        unit_of(asked("production", "v1.0.0"), both)
    # What could not be looked at is not what has no tag.
    unknown = UnitFacts(made.units["lib"], environment, Setback("RepositoryUnavailable", "cannot be reached"))
    with pytest.raises(DeployRefused) as raised:
        unit_of(asked("production", "v7.0.0"), [unknown])
    assert raised.value.status == 503


ASKED = ("promote", "v1.0.1", NEW, 2)


def runs(tag: str, commit: str, *, seen: int = 0, refused: str = "", **more: object) -> UnitStatus:
    return UnitStatus(release=release(tag, commit, **more), decision=seen, refused=refused)


PROGRESS = [
    (ASKED, None, "pending"),
    (ASKED, PRODUCTION, "pending"),
    (ASKED, runs("v1.2.0", NEW, decision=2), "succeeded"),
    # An approval came after it.
    (ASKED, runs("v1.2.0", NEW, decision=5), "succeeded"),
    (ASKED, runs("v1.2.0", NEW, decision=2, outcome=""), "pending"),
    (ASKED, runs("v1.2.0", NEW, decision=2, outcome="failed"), "failed"),
    (ASKED, runs("v1.1.0", OLD, seen=2, refused="no"), "refused"),
    (ASKED, runs("v1.1.0", OLD, seen=3), "refused"),
    # One that ran with an earlier decision is another deploy of the same commit.
    (("rollback", "v1.0.1", NEW, 9), runs("v1.0.1", NEW, decision=2), "pending"),
    (("follow", "v1.0.1", NEW, 0), STAGING, "succeeded"),
    (("follow", "v1.0.2", ODD, 0), STAGING, "pending"),
    (("follow", "v1.0.0", ODD, 0), runs("v1.0.1", NEW), "refused"),
]


@pytest.mark.parametrize(("request_", "status", "state"), PROGRESS)
def test_what_became_of_it(
    request_: tuple[str, str, str, int], status: UnitStatus | None, state: str
) -> None:
    assert progress_of(*request_, status, {}).state == state


def test_what_it_waits_for_is_told() -> None:
    why = "waits for `trueup approve production`"
    found = progress_of(*ASKED, PRODUCTION, {NEW: why})
    assert (found.state, found.message) == ("pending", why)


@pytest.mark.parametrize("outcome", ["failed", ""])
def test_what_failed_or_waits_in_the_source_is_no_hotfix_under_another_tag(outcome: str) -> None:
    staging = UnitStatus(release=release("v1.0.2", FIX, outcome=outcome))
    with pytest.raises(DeployRefused, match=r"cannot be promoted to production"):
        order(asked("production", "v1.1.1"), staging=staging)
