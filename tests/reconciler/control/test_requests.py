"""Decisions that ask for another release: which tag and commit are recorded, and what is refused how."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from reconciler.control import requests
from reconciler.control.records import Record
from reconciler.control.requests import Asked
from reconciler.control.situation import DecisionRefused, Situation
from reconciler.control.state import fold
from reconciler.spec.load import load
from reconciler.status.documents import EnvironmentStatus, Recorded, Release, Summary, UnitStatus, Waiting
from tests.reconciler.control.records import ANNA, NOW, record

SPEC = """
version: 1
repositories:
  api: {url: https://git.example/api.git}
  web: {url: https://git.example/web.git}
environments:
  dev: {}
  staging: {}
  production: {release: {promote_from: staging, approval: manual}}
services:
  api: {repository: api, environments: [staging, production], deploy: {kind: manual}}
  web: {repository: web, environments: [staging, production], deploy: {kind: manual}}
"""
OLD, NEW, TIP = "1" * 40, "2" * 40, "3" * 40


def release(tag: str, commit: str, outcome: Any = "succeeded", **fields: Any) -> Release:
    return Release(tag=tag, commit=commit, recorded_at=NOW, outcome=outcome, **fields)


def status(now: Release, *before: Release, decision: int = 0) -> UnitStatus:
    return UnitStatus(release=now, history=before, decision=decision)


STAGING = {
    "api": status(release("v1.2.4", NEW), release("v1.2.3", OLD)),
    "web": status(release("v0.3.1", OLD)),
}
PRODUCTION = {
    "api": status(release("v1.2.0", OLD), release("v1.1.0", TIP)),
    "web": status(release("v0.3.0", OLD)),
}


def situation(
    *records: Record,
    staging: dict[str, UnitStatus] = STAGING,
    production: dict[str, UnitStatus] = PRODUCTION,
    waiting: tuple[Waiting, ...] = (),
    spec: str = SPEC,
) -> Situation:
    loaded = load({"trueup.yaml": spec.encode()})
    assert loaded.spec is not None, loaded.problems
    return Situation(
        spec=loaded.spec,
        spec_commit="0" * 40,
        recorded=Recorded().put(
            EnvironmentStatus(id="environments/staging", units=staging),
            EnvironmentStatus(id="environments/production", units=production, waiting=waiting),
        ),
        control=fold(records),
        by=ANNA,
        now=NOW + timedelta(microseconds=3),
    )


def refused(ask: Callable[[], Asked]) -> str:
    with pytest.raises(DecisionRefused) as caught:
        ask()
    return str(caught.value)


def promote(at: Situation, unit: str | None = None, **options: Any) -> Asked:
    return requests.promote(at, "staging", "production", unit, **options)


# --- promote -----------------------------------------------------------------------------------


def test_every_unit_that_has_something_new_is_promoted_by_tag_and_commit() -> None:
    asked = promote(situation(), reason="seen")
    assert asked.records == (
        record(
            "promote",
            environment="production",
            unit="api",
            source="staging",
            tag="v1.2.4",
            commit=NEW,
            reason="seen",
        ),
    )
    assert asked.left_out == ("production runs 111111111111 of web already, as v0.3.0",)


def test_an_earlier_release_is_promoted_by_its_tag() -> None:
    at = situation(production={"web": PRODUCTION["web"]})
    [found] = promote(at, tag="v1.2.3", drop_hotfix=True).records
    assert (found.unit, found.commit, found.drop_hotfix) == ("api", OLD, True)


def test_what_did_not_run_successfully_in_the_source_is_not_promoted() -> None:
    failed = release("v1.2.5", TIP, "failed", reason="services/staging/api: DeployFailed")
    at = situation(staging={"api": status(failed, *STAGING["api"].history)})
    assert refused(lambda: promote(at, "api")) == (
        "there is nothing to promote from staging to production: v1.2.5 of api cannot be promoted to "
        "production: it failed in staging: services/staging/api: DeployFailed "
        "(an earlier one can be named: --tag v1.2.3)"
    )
    at = situation(staging={"api": status(release("v1.2.5", TIP, ""))})
    assert "not everything of api runs with it in staging yet" in refused(lambda: promote(at, "api"))
    assert "staging runs no release of web yet" in refused(lambda: promote(at, "web"))


def test_a_tag_that_the_source_has_not_run_is_told_with_the_one_that_was_meant() -> None:
    assert refused(lambda: promote(situation(), tag="v1.2.5")) == (
        "there is no release of staging 'v1.2.5'; did you mean v1.2.4?"
    )


def test_promotions_go_the_way_that_the_spec_has() -> None:
    at = situation()
    assert refused(lambda: requests.promote(at, "dev", "production", None)) == (
        "production is promoted to from staging, and not from dev; use `trueup promote staging production`"
    )
    assert refused(lambda: requests.promote(at, "production", "staging", None)).startswith(
        "nothing is promoted to staging: it takes releases of its own; use `trueup release staging`"
    )
    assert "there is no environment 'stagin'; did you mean staging?" in refused(
        lambda: requests.promote(at, "stagin", "production", None)
    )


def test_there_is_nothing_to_promote_twice() -> None:
    asked = promote(situation(), "api").records[0]
    again = record("promote", 1, environment="production", unit="api", commit=asked.commit, tag="v1.2.4")
    assert "v1.2.4 of api was asked for already, by Anna" in refused(lambda: promote(situation(again), "api"))
    assert "production runs 111111111111 of web already" in refused(lambda: promote(situation(), "web"))


def test_the_same_commit_with_another_spec_is_something_new_where_specs_are_released() -> None:
    spec = SPEC.replace("approval: manual}", "approval: manual}, spec_from: release")
    staging = {"web": status(release("v0.3.1", OLD, spec_revision=NEW))}
    production = {"web": status(release("v0.3.0", OLD, spec_revision=OLD))}
    assert promote(situation(staging=staging, production=production, spec=spec), "web").records
    assert "already" in refused(lambda: promote(situation(staging=staging, production=production), "web"))


def test_the_spec_that_the_source_runs_with_is_something_new_to_promote() -> None:
    """A merge reaches staging at once, which follows the head, and production by a promotion alone."""
    spec = SPEC.replace("approval: manual}", "approval: manual}, spec_from: release")
    production = {"web": status(release("v0.3.0", OLD, spec_revision=OLD))}
    at = situation(production=production, spec=spec)

    def looked_at_with(commit: str) -> Situation:
        return replace(at, recorded=at.recorded.put(Summary(id="summary", last_applied_revision=commit)))

    [asked] = promote(looked_at_with(NEW), "web").records
    assert (asked.tag, asked.commit) == ("v0.3.1", OLD)
    assert "already" in refused(lambda: promote(looked_at_with(OLD), "web"))


# --- release -----------------------------------------------------------------------------------


def test_a_release_names_the_tip_of_the_branch_and_the_number_that_is_raised() -> None:
    heads: dict[str, str | DecisionRefused] = {"api": TIP, "web": OLD}
    asked = requests.release(situation(), "staging", None, heads)
    assert asked.records == (record("release", environment="staging", unit="api", commit=TIP),)
    assert asked.left_out == ("staging runs 111111111111 of web already, as v0.3.1",)
    [found] = requests.release(situation(), "staging", "web", heads, bump="major").records
    assert (found.commit, found.bump) == (OLD, "major")
    assert refused(lambda: requests.release(situation(), "staging", "web", heads)).startswith(
        "there is nothing to release in staging: staging runs"
    )


def test_a_release_where_releases_are_promoted_is_at_what_the_source_runs() -> None:
    [found] = requests.release(situation(), "production", None, {}, bump="major").records
    assert (found.kind, found.source, found.tag, found.commit, found.bump) == (
        *("release", "staging", "v1.2.4", NEW, "major"),
    )


def test_a_branch_that_is_not_there_is_told() -> None:
    missing = DecisionRefused("api has no branch 'main' to release api from")
    assert "api has no branch 'main'" in refused(
        lambda: requests.release(situation(), "staging", "api", {"api": missing})
    )


# --- rollback ----------------------------------------------------------------------------------


def rollback(at: Situation, unit: str | None = None, to: str | None = None) -> Asked:
    return requests.rollback(at, "production", unit, to)


def test_a_rollback_names_the_last_release_that_ran() -> None:
    production = {
        "api": status(
            release("v1.3.0", NEW),
            release("v1.2.0", TIP, "failed"),
            release("v1.3.0", NEW),
            release("v1.1.0", OLD),
        )
    }
    assert rollback(situation(production=production), "api").records == (
        record("rollback", environment="production", unit="api", tag="v1.1.0", commit=OLD),
    )
    [found] = rollback(situation(production=production), "api", "v1.2.0").records
    assert found.tag == "v1.2.0"


def test_a_rollback_after_a_rollback_goes_further_back_and_not_to_what_was_left() -> None:
    returned = msgspec.structs.replace(release("v1.2.0", NEW), kind="rollback")
    production = {
        "api": status(returned, release("v1.3.0", TIP), release("v1.2.0", NEW), release("v1.1.0", OLD))
    }
    assert rollback(situation(production=production), "api").records == (
        record("rollback", environment="production", unit="api", tag="v1.1.0", commit=OLD),
    )


def test_a_tag_tells_which_unit_returns() -> None:
    assert rollback(situation(), to="v1.1.0").records[0].unit == "api"
    assert refused(lambda: rollback(situation())) == (
        "production has 2 units; name one with --unit: api, web"
    )


def test_there_has_to_be_something_to_return_to() -> None:
    assert refused(lambda: rollback(situation(), "web")) == (
        "there is nothing to roll back to: no release of web ran well in production before v0.3.0"
    )
    left = {"api": status(release("v1.1.0", OLD), release("v1.2.0", TIP, "failed"), release("v1.1.0", OLD))}
    assert refused(lambda: rollback(situation(production=left), "api")) == (
        "there is nothing to roll back to: no release of api ran well in production before v1.1.0; "
        "name one that was left with --to: v1.2.0"
    )
    assert refused(lambda: rollback(situation(), "api", "v1.2.0")) == "production runs v1.2.0 of api already"
    assert refused(lambda: rollback(situation(), "api", "v1.1.1")) == (
        "there is no earlier release of api in production 'v1.1.1'; did you mean v1.1.0?"
    )
    assert refused(lambda: rollback(situation(production={}), "api")) == (
        "production runs no release of api yet"
    )


# --- approve -----------------------------------------------------------------------------------


WAITS = Waiting(unit="api", reason="AwaitingApproval", tag="v1.2.4", commit=NEW)


def approve(at: Situation, unit: str | None = None, tag: str | None = None) -> Asked:
    return requests.approve(at, "production", unit, tag)


def test_what_waits_is_approved_by_its_commit() -> None:
    expected = (record("approve", environment="production", unit="api", tag="v1.2.4", commit=NEW),)
    assert approve(situation(waiting=(WAITS,))).records == expected
    assert approve(situation(), tag="v1.2.4").records == expected, "it may be given before it is asked for"
    request = record("promote", 1, environment="production", unit="api", tag="v1.2.3", commit=TIP)
    [found] = approve(situation(request), "api").records
    assert (found.tag, found.commit) == ("v1.2.3", TIP)
    fix = record("hotfix", 1, environment="production", unit="api", commit=TIP)
    assert approve(situation(fix), "api").records[0].commit == TIP


def test_nothing_is_approved_that_does_not_wait_or_is_approved_already() -> None:
    assert refused(lambda: requests.approve(situation(), "staging", None, None)) == (
        "staging asks for no approval"
    )
    assert refused(lambda: approve(situation(), "web")) == "nothing waits for approval in production"
    assert refused(lambda: approve(situation(), tag="v9.9.9")) == (
        "v9.9.9 does not wait for approval in production"
    )
    given = record("approve", 1, environment="production", unit="api", tag="v1.2.4", commit=NEW)
    soaks = Waiting(unit="api", reason="Soaking", tag="v1.2.4", commit=NEW)
    assert refused(lambda: approve(situation(waiting=(soaks,)))) == "nothing waits for approval in production"
    assert refused(lambda: approve(situation(given, waiting=(WAITS,)))) == (
        "nothing waits for approval in production: v1.2.4 of api is approved already"
    )
    done = {"api": status(release("v1.2.0", OLD), decision=1)}
    assert approve(situation(given, production=done, waiting=(WAITS,))).records, (
        "an approval counts for one release"
    )
