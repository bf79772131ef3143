"""What is due at a secret target, from what is wanted, recorded and found there."""

from typing import Any

from reconciler.desired_model import DesiredTarget
from reconciler.desired_target import place_of
from reconciler.github.scopes import SecretMeta
from reconciler.hashing import Inputs, digest
from reconciler.spec.model import SecretTarget, TargetKey
from reconciler.status.documents import InputDigests, TargetStatus
from reconciler.target_work import Work, drift_at, held_and_foreign, incomplete_groups, work_at

NAMES = ("A", "B", "C", "D")


def target(**changes: Any) -> SecretTarget:
    keys = tuple(TargetKey(key=name, name=name) for name in NAMES)
    return SecretTarget(name="ci", kind="github_actions", repo="org/a", source="local", keys=keys, **changes)


def desired(
    wanted: dict[str, str] | None = None, soft: set[str] | None = None, **changes: Any
) -> DesiredTarget:
    made = target(**changes)
    keyed = wanted if wanted is not None else dict.fromkeys(NAMES, "1")
    public = {"place": digest(place_of(made)), "names": digest(sorted(keyed))}
    return DesiredTarget(
        id="targets/ci", target=made, inputs=Inputs(public, keyed), soft_inputs=frozenset(soft or ())
    )


def recorded(**keyed: str) -> TargetStatus:
    keyed = keyed or dict.fromkeys(NAMES, "1")
    public = dict(desired().inputs.public)
    return TargetStatus(
        id="targets/ci",
        owned=dict.fromkeys(keyed, "then"),
        inputs=InputDigests(public=public, keyed=keyed),
    )


def found(*names: str, at: str = "then") -> dict[str, SecretMeta]:
    return {name: SecretMeta(name, at) for name in names}


def test_all_in_order_is_no_work() -> None:
    assert work_at(desired(), recorded(), found(*NAMES), everything=False) == Work()


def test_what_changed_is_gone_or_somebody_elses_is_written() -> None:
    there = {**found("A", "B"), **found("C", at="later")}
    work = work_at(desired({**dict.fromkeys(NAMES, "1"), "A": "2"}), recorded(), there, everything=False)
    assert work == Work(write=("A", "C", "D"))


def test_nothing_recorded_or_everything_asked_writes_all() -> None:
    assert work_at(desired(), None, {}, everything=False).write == NAMES
    assert work_at(desired(), recorded(), found(*NAMES), everything=True).write == NAMES


def test_another_place_is_written_whole_and_the_old_one_is_not_pruned() -> None:
    moved = desired({"A": "1"}, environment="production", prune="owned")
    assert work_at(moved, recorded(), found(*NAMES), everything=False) == Work(write=("A",))


def test_a_soft_value_is_no_reason_and_still_serves_where_nothing_was_written() -> None:
    changed = dict.fromkeys(NAMES, "2")
    held = Work(held=NAMES)
    assert work_at(desired(changed, soft=set(NAMES)), recorded(), found(*NAMES), everything=False) == held
    # Not even where nobody knows what is there: what was written came from the source itself.
    assert work_at(desired(changed, soft=set(NAMES)), recorded(), {}, everything=True) == held
    first = work_at(desired(changed, soft=set(NAMES)), recorded(A="1"), found("A"), everything=False)
    assert first.write == ("B", "C", "D")


def test_a_group_is_held_as_a_whole() -> None:
    wanted = {**dict.fromkeys(NAMES, "1"), "A": "2", "C": "2"}
    made = desired(wanted, soft={"A"}, groups=(("A", "B"),))
    assert work_at(made, recorded(), found("A"), everything=False) == Work(write=("C", "D"), held=("A", "B"))
    assert held_and_foreign(made, recorded(), found("A")) == ("B",)


def test_another_visibility_is_written_again_and_stays_ours() -> None:
    there = {name: SecretMeta(name, "then", "all") for name in NAMES}
    assert work_at(desired(visibility="private"), recorded(), there, everything=False).write == NAMES
    assert drift_at(desired(visibility="private"), recorded(), there) == (
        "A, B, C, D visible to others than the spec says"
    )


def test_members_of_a_group_follow_each_other() -> None:
    work = work_at(desired(groups=(("D", "B"), ("C",))), None, {}, everything=False)
    assert work.write == ("B", "D", "C", "A")


def test_prune_takes_what_we_wrote_and_nobody_else_has_since() -> None:
    there = {**found("A", "B"), **found("C", at="later"), **found("OTHER")}
    kept = {"A": "1"}
    assert work_at(desired(kept, prune="owned"), recorded(), there, everything=False) == Work(
        delete=("B",), disowned=("C", "D")
    )
    assert work_at(desired(kept), recorded(), there, everything=False) == Work(disowned=("C", "D"))


def test_drift_in_words() -> None:
    assert drift_at(desired(), recorded(), found(*NAMES)) == ""
    there = {**found("A", "B"), **found("C", at="later")}
    assert drift_at(desired(), recorded(), there) == "D gone, C changed by somebody else"


def test_what_is_no_longer_listed_is_drift_where_it_is_to_be_pruned() -> None:
    kept = {"A": "1"}
    assert (
        drift_at(desired(kept, prune="owned"), recorded(), found(*NAMES))
        == "B, C, D no longer listed, to be deleted"
    )
    assert drift_at(desired(kept), recorded(), found(*NAMES)) == ""


def test_a_group_is_incomplete_only_when_it_was_begun() -> None:
    grouped = target(groups=(("A", "B"), ("C", "D")))
    assert incomplete_groups(grouped, {"A": True, "B": True, "C": False, "D": False}) == []
    assert incomplete_groups(grouped, {"A": True, "B": False}) == ["A in place and B not"]
    # A is in order and needs no write: with B due, the two do not belong together at the moment.
    assert incomplete_groups(grouped, {"B": False}) == ["A in place and B not"]
