"""What operators' records come to when they are taken together."""

from reconciler.control.records import Record
from reconciler.control.state import ControlState, fold
from tests.reconciler.control.records import COMMIT, record


def state(*records: Record) -> ControlState:
    numbered = [record(each.kind, number, **_fields(each)) for number, each in enumerate(records, start=1)]
    return fold(reversed(numbered))  # the numbers are the order


def _fields(given: Record) -> dict[str, object]:
    return {name: getattr(given, name) for name in given.__struct_fields__ if name not in ("number", "kind")}


def hold(unit: str = "") -> Record:
    return record("hold", environment="production", unit=unit)


def unhold(unit: str = "") -> Record:
    return record("unhold", environment="production", unit=unit)


def ask(kind: str, unit: str = "infra") -> Record:
    return record(kind, environment="production", unit=unit, commit=COMMIT, tag="v1.0.0")


def held(found: ControlState, unit: str = "infra") -> int:
    """The number of the record that holds the unit; 0: none does."""
    by = found.hold_of("production", unit)
    return by.number if by is not None else 0


def test_nothing_recorded_is_nothing_in_force() -> None:
    assert fold([]) == ControlState()


def test_a_hold_is_on_a_unit_or_on_the_whole_environment() -> None:
    found = state(hold("infra"))
    assert (held(found), held(found, "other")) == (1, 0)
    assert found.hold_of("staging", "infra") is None
    found = state(hold())
    assert (held(found), held(found, "other")) == (1, 1)


def test_ending_the_hold_of_an_environment_ends_those_of_its_units() -> None:
    found = state(hold("infra"), hold(), unhold())
    assert (held(found), found.lifted_at("production", "infra")) == (0, 3)
    assert held(state(hold("infra"), unhold(), hold("infra"))) == 3


def test_one_unit_can_leave_the_hold_of_its_environment() -> None:
    for ends in (unhold("infra"), ask("promote"), ask("hotfix"), ask("release")):
        found = state(hold(), ends)
        assert (held(found), held(found, "other")) == (0, 1), ends.kind
        assert (found.lifted_at("production", "infra"), found.lifted_at("production", "other")) == (2, 0)
    assert held(state(hold(), unhold("infra"), hold())) == 3


def test_a_rollback_lifts_no_hold() -> None:
    found = state(hold("infra"), ask("rollback"))
    assert (held(found), found.lifted_at("production", "infra")) == (1, 0)
    assert found.requests["production", "infra"].kind == "rollback"


def test_the_newest_request_of_a_unit_counts() -> None:
    found = state(ask("promote"), ask("rollback"), ask("promote", "other"))
    assert {scope: each.number for scope, each in found.requests.items()} == {
        ("production", "infra"): 2,
        ("production", "other"): 3,
    }


def test_an_approval_is_for_one_commit() -> None:
    found = state(ask("approve"), record("approve", environment="production", unit="infra", commit="0" * 40))
    assert {key: each.number for key, each in found.approvals.items()} == {
        ("production", "infra", COMMIT): 1,
        ("production", "infra", "0" * 40): 2,
    }


def test_a_freeze_lasts_until_it_is_ended() -> None:
    assert state(record("freeze")).frozen is not None
    assert state(record("freeze"), record("unfreeze")).frozen is None
    assert state(record("freeze"), record("unfreeze"), record("freeze")).frozen is not None


def suspended(found: ControlState, resource: str) -> int:
    by = found.suspension_of(resource)
    return by.number if by is not None else 0


def suspend(resource: str) -> Record:
    return record("suspend", resource=resource)


def resume(resource: str) -> Record:
    return record("resume", resource=resource)


def test_a_name_is_suspended_in_every_environment_an_id_in_one() -> None:
    found = state(suspend("services/web"))
    assert suspended(found, "services/production/web") == suspended(found, "services/staging/web") == 1
    assert suspended(found, "services/production/api") == suspended(found, "projects/production/web") == 0
    found = state(suspend("services/production/web"))
    assert (suspended(found, "services/production/web"), suspended(found, "services/staging/web")) == (1, 0)


def test_a_project_is_suspended_with_all_its_targets() -> None:
    target = "projects/production/site/web-1/srv+site"
    for name in ("projects/site", "projects/production/site", "projects/production/site/web-1", target):
        assert suspended(state(suspend(name)), target) == 1, name
    assert suspended(state(suspend("projects/production/site")), "projects/production/site-2") == 0
    assert suspended(state(suspend("projects/web-1")), target) == 0


def test_an_environment_or_a_node_is_suspended_by_its_name() -> None:
    assert suspended(state(suspend("environments/production")), "environments/production") == 1
    assert suspended(state(suspend("nodes/production")), "environments/production") == 0


def test_what_is_in_a_suspended_environment_or_on_a_suspended_node_is_suspended_with_it() -> None:
    service, target = "services/production/web", "projects/production/site/web-1/srv+site"
    for name in ("environments/production", "services/web", service):
        assert state(suspend(name)).suspends(service), name
    for name in ("environments/production", "nodes/web-1", "projects/site"):
        assert state(suspend(name)).suspends(target), name
    for name in ("environments/staging", "nodes/web-2", "nodes/production", "services/site"):
        assert not state(suspend(name)).suspends(service), name
        assert not state(suspend(name)).suspends(target), name
    assert not state(suspend("environments/production"), resume("environments/production")).suspends(service)
    assert not state(suspend("environments/production")).suspends("nodes/web-1")


def test_what_was_suspended_by_its_name_is_resumed_in_one_environment_or_in_all() -> None:
    found = state(suspend("services/web"), resume("services/production/web"))
    assert (suspended(found, "services/production/web"), suspended(found, "services/staging/web")) == (0, 1)
    found = state(suspend("services/web"), suspend("services/production/web"), resume("services/web"))
    assert (suspended(found, "services/production/web"), suspended(found, "services/staging/web")) == (0, 0)
    found = state(suspend("services/web"), resume("services/production/web"), suspend("services/web"))
    assert suspended(found, "services/production/web") == 3


def test_the_newest_override_counts_and_the_newest_number_is_known() -> None:
    opened = [record("override", environment="production", reason=why) for why in ("first", "second")]
    found = state(*opened, record("revoke", resource="nodes/web-1"))
    assert (found.overrides["production"].reason, found.last) == ("second", 3)


def test_a_revocation_is_of_one_token_until_it_is_taken_back() -> None:
    def revoke(token_key: str = "") -> Record:
        return record("revoke", resource="nodes/web-1", token_key=token_key)

    found = state(revoke("ed25519:A"))
    assert found.revocation_of("web-1", "ed25519:A") is not None
    assert found.revocation_of("web-1", "ed25519:B") is None
    assert found.revocation_of("web-2", "ed25519:A") is None
    assert state(revoke()).revocation_of("web-1", "ed25519:B") is not None
    resumed = state(revoke(), revoke("ed25519:A"), record("resume", resource="nodes/web-1"))
    assert resumed.revocation_of("web-1", "ed25519:A") is None
