"""What successful steps established, in the status documents; renames; results of a killed pass."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from reconciler.journal import StepRecord
from reconciler.plan import Action, Step
from reconciler.recording import (
    StepResult,
    moved,
    place_of,
    step_result,
    with_begun,
    with_moves,
    with_replayed,
    with_results,
)
from reconciler.spec.model import Move
from reconciler.status.conditions import ConditionType, find_condition
from reconciler.status.documents import EnvironmentStatus, Recorded, ServiceStatus, SyncStatus
from tests.reconciler.facts import desired

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WEB, SITE = "services/staging/web", "projects/branch/site/web-1/srv+site"
TEXT = """\
services:
  web:
    repository: app
    secrets: [local]
    deploy: {kind: invoke, task: deploy}
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    path: site
    sync: {nodes: [{node_id: web-1, target_path: /srv/site, strategy: overlay}]}
"""
MADE = {resource.id: resource for resource in desired(TEXT).resources}


def result(resource: str, action: Action, **details: object) -> StepResult:
    step = Step(resource, action, "test", str(MADE[resource].hash) if resource in MADE else "")
    return step_result(step, MADE.get(resource), details, at=NOW)  # type: ignore[arg-type]


def test_a_deploy_is_what_runs_now() -> None:
    status = with_results(Recorded(), [result(WEB, Action.DEPLOY, exit_code=0)]).services[WEB]
    assert status.config_hash == str(MADE[WEB].hash)
    assert status.inputs.public == MADE[WEB].inputs.public
    assert status.inputs.keyed == MADE[WEB].inputs.keyed
    assert status.last_applied_revision == status.last_attempted_revision == str(MADE[WEB].revision)
    assert status.deploy == "invoke"
    assert [(entry.outcome, entry.at) for entry in status.history] == [("succeeded", NOW)]


def test_a_sync_says_what_it_placed() -> None:
    done = result(SITE, Action.SYNC, tree="ab" * 32, files_written=3, warnings=["look here"])
    status = with_results(Recorded(), [done]).syncs[SITE]
    assert (status.node, status.target_path, status.strategy) == ("web-1", "/srv/site", "overlay")
    assert (status.tree_digest, status.counts.files_written) == ("ab" * 32, 3)
    assert (status.after_done, status.warnings) == (True, ("look here",))


def test_the_same_result_twice_is_the_same_document() -> None:
    done = [result(WEB, Action.DEPLOY), result(SITE, Action.SYNC, tree="ab" * 32)]
    once = with_results(Recorded(), done)
    assert with_results(once, done) == once


def test_a_build_has_no_document_and_forgetting_removes_one() -> None:
    recorded = Recorded().put(ServiceStatus(id="services/staging/gone"))
    done = [result("projects/branch/site", Action.BUILD), result("services/staging/gone", Action.FORGET)]
    assert with_results(recorded, done) == Recorded()


def test_adopting_records_and_flags_until_the_next_deploy() -> None:
    old = ServiceStatus(id=WEB, config_hash="v1:22222222:a:b", last_applied_revision="v0.9.0@sha1:1")
    adopted = with_results(Recorded().put(old), [result(WEB, Action.ADOPT)])
    status = adopted.services[WEB]
    assert status.config_hash == str(MADE[WEB].hash)
    # The content is that of the new tag, or there would have been a deploy.
    assert status.last_applied_revision == str(MADE[WEB].revision)
    flag = find_condition(status.conditions, ConditionType.SECRETS_VERIFIED)
    assert flag is not None
    assert flag.status == "False"
    deployed = with_results(adopted, [result(WEB, Action.DEPLOY)]).services[WEB]
    assert find_condition(deployed.conditions, ConditionType.SECRETS_VERIFIED) is None


def test_what_was_taken_over_is_recorded_with_where_it_is() -> None:
    details = {"inventory": ["compose_id=abc"]}
    taken = msgspec.structs.replace(result(WEB, Action.ADOPT), details=details)
    status = with_results(Recorded(), [taken]).services[WEB]
    assert (status.config_hash, status.inventory) == (str(MADE[WEB].hash), {"compose_id": "abc"})
    flag = find_condition(status.conditions, ConditionType.SECRETS_VERIFIED)
    assert flag is not None
    assert flag.message.startswith("what runs there was taken over")


MOVES = (Move(old="services/old", new="services/web"), Move(old="projects/page", new="projects/site"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("services/staging/old", WEB),
        ("services/production/old", "services/production/web"),
        ("projects/branch/page/web-1/srv+site", SITE),
        ("projects/branch/page", "projects/branch/site"),
        ("services/old/api", "services/old/api"),
        ("environments/old", "environments/old"),
        ("summary", "summary"),
    ],
)
def test_a_rename_reaches_every_id_of_its_resource(old: str, new: str) -> None:
    assert moved(old, MOVES) == new


def test_a_renamed_resource_keeps_its_record() -> None:
    recorded = Recorded().put(
        ServiceStatus(id="services/staging/old", config_hash="v1:1:2:3"),
        EnvironmentStatus(id="environments/old"),
    )
    after = with_moves(recorded, MOVES)
    assert after.services == {WEB: ServiceStatus(id=WEB, config_hash="v1:1:2:3")}
    assert list(after.environments) == ["environments/old"]
    assert with_moves(after, MOVES) == after


def test_a_record_under_the_new_name_is_not_overwritten() -> None:
    recorded = Recorded().put(
        ServiceStatus(id="services/staging/old"), ServiceStatus(id=WEB, deploy="invoke")
    )
    assert with_moves(recorded, MOVES) == recorded


def test_a_result_under_the_old_name_is_told_under_the_new_one() -> None:
    """Killed before it could publish, and renamed before the next pass."""
    done = StepResult(resource="services/staging/old", action="deploy", at=NOW, hash="v1:1:new:3")
    published = Recorded().put(ServiceStatus(id="services/staging/old", config_hash="v1:1:2:3"))
    for recorded in (published, with_moves(published, MOVES), Recorded()):
        told = with_replayed(recorded, [done], MOVES)
        assert list(told.services) == [WEB]
        assert told.services[WEB].config_hash == "v1:1:new:3"


def test_what_was_forgotten_under_the_old_name_is_not_the_new_resource() -> None:
    forgotten = StepResult(resource="services/staging/old", action="forget", at=NOW)
    recorded = Recorded().put(ServiceStatus(id=WEB))
    assert with_replayed(recorded, [forgotten], MOVES) == recorded


def test_no_result_holds_a_secret() -> None:
    assert "the url" not in repr(result(WEB, Action.DEPLOY))


def test_a_target_that_was_never_recorded_knows_its_place() -> None:
    assert isinstance(with_results(Recorded(), [result(SITE, Action.SYNC)]).syncs[SITE], SyncStatus)


def begun(resource: str, action: Action = Action.SYNC) -> StepRecord:
    made = MADE[resource]
    return StepRecord(
        id=1,
        pass_id=1,
        resource=resource,
        action=action.value,
        config_hash=str(made.hash),
        reason="not applied yet",
        revision=str(made.revision),
        began_at=NOW.isoformat(),
        result=place_of(made),
    )


def test_a_first_sync_that_was_broken_off_is_known_where_the_spec_does_not_name_it() -> None:
    status = with_begun(Recorded(), [begun(SITE)], []).syncs[SITE]
    assert (status.node, status.target_path, status.strategy) == ("web-1", "/srv/site", "overlay")
    assert status.last_attempted_revision == str(MADE[SITE].revision)
    assert (status.config_hash, status.tree_digest, status.history) == ("", "", ())
    # Also where it was noted that it runs.
    noted = Recorded().put(SyncStatus(id=SITE, node="web-1", target_path="/srv/site"))
    assert with_begun(noted, [begun(SITE)], []).syncs[SITE].last_attempted_revision


def test_what_is_broken_off_changes_no_other_record() -> None:
    assert with_begun(Recorded(), [begun(SITE)], [SITE]) == Recorded()
    assert with_begun(Recorded(), [begun(WEB, Action.DEPLOY)], []) == Recorded()
    of_an_older_journal = replace(begun(SITE), result={})
    assert with_begun(Recorded(), [of_an_older_journal], []) == Recorded()
    known = with_results(Recorded(), [result(SITE, Action.SYNC, tree="ab" * 32)])
    assert with_begun(known, [begun(SITE)], []) == known
