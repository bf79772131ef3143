"""What there is to tell, from what was told and how things are."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.notifications.news import NO_NEWS, Alarm, Known, News, news, taken_as_told
from reconciler.status.conditions import ConditionStatus, set_condition
from reconciler.status.documents import EnvironmentStatus, Recorded, ServiceStatus, Summary, Waiting

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEB = "services/staging/web"


def of(*states: str, id: str = WEB) -> Recorded:
    """A service that is `True`, `False` or `Unknown`, with a reason after a slash; `ill` and `unasked` are as
    the spec asks, and unhealthy, or of unknown health."""
    recorded = Recorded()
    for state in states:
        status, _, reason = state.partition("/")
        ready = "True" if status in ("ill", "unasked") else status
        conditions = set_condition((), "Ready", ready, reason or "R", "why", now=NOW)  # type: ignore[arg-type]
        if status in ("ill", "unasked"):
            healthy: ConditionStatus = "False" if status == "ill" else "Unknown"
            conditions = set_condition(conditions, "Healthy", healthy, "H", "ill", now=NOW)
        recorded = recorded.put(
            ServiceStatus(
                id=id, conditions=conditions, last_attempted_revision="v2", last_applied_revision="v1"
            )
        )
    return recorded


def told(*states: str) -> list[list[str]]:
    """What is told of a service that is so in pass after pass, nothing being known at first."""
    known = Known()
    found: list[list[str]] = []
    for state in states:
        each, known = news(known, of(*([state] if state else [])))
        found.append([one.kind for one in each])
    return found


@pytest.mark.parametrize(
    ("states", "kinds"),
    [
        ("True True", [[], []]),
        ("False", [["failed"]]),
        ("False False/Other False", [["failed"], [], []]),
        ("True False True", [[], ["failed"], ["recovered"]]),
        ("False Unknown False", [["failed"], [], []]),
        ("False Unknown True", [["failed"], [], ["recovered"]]),
        ("Unknown Unknown True", [["degraded"], [], ["recovered"]]),
        ("Unknown False", [["degraded"], ["failed"]]),
        ("True ill True", [[], ["degraded"], ["recovered"]]),
        ("False ill True", [["failed"], ["degraded"], ["recovered"]]),
        ("False ill False", [["failed"], ["degraded"], ["failed"]]),
        ("False unasked True", [["failed"], [], ["recovered"]]),
        ("True unasked", [[], []]),
        ("False False/Suspended True", [["failed"], [], ["recovered"]]),
        ("True False/Manual True", [[], [], []]),
        ("False/AwaitingPairing True", [[], []]),
        ("True False/DependencyNotReady True", [[], [], []]),
        ("False False/DependencyNotReady True", [["failed"], [], ["recovered"]]),
    ],
)
def test_what_is_told_in_pass_after_pass(states: str, kinds: list[list[str]]) -> None:
    assert told(*states.split()) == kinds


STATES = ("True", "False", "False/Other", "Unknown", "ill", "unasked", "False/Manual")


@given(st.lists(st.sampled_from(STATES)))
def test_nothing_is_told_twice_and_a_recovery_follows_a_trouble(states: list[str]) -> None:
    """Each look is repeated, as after a kill; the second never tells anything."""
    assert all(not again for again in told(*(state for each in states for state in (each, each)))[1::2])
    kinds = [kind for each in told(*states) for kind in each]
    assert all(a != b for a, b in pairwise(kinds))
    for index, kind in enumerate(kinds):
        if kind == "recovered":
            assert index and kinds[index - 1] in ("failed", "degraded")


@given(st.lists(st.sampled_from(["True", "False", "Unknown", "ill", "False/Manual"]), min_size=1))
def test_a_process_that_was_killed_makes_the_next_one_tell(states: list[str]) -> None:
    """Whatever looks are missed: what is known afterwards is right, and a trouble that lasts was told."""
    known = Known()
    for state in states:
        _, known = news(known, of(state))
    found, after = news(Known(alarms=dict(known.alarms)), of(states[-1]))
    assert (found, after) == ([], known)
    assert (WEB in known.alarms) >= (states[-1] in ("False", "Unknown", "ill"))


def test_what_is_told() -> None:
    found, known = news(Known(), of("False/DeployFailed"))
    assert found == [News("failed", WEB, "DeployFailed", "why", "v2")]
    assert news(known, of("True"))[0] == [News("recovered", WEB, "R", "why", "v1", "failed")]
    [ill], _ = news(Known(), of("ill"))
    assert (ill.reason, ill.message) == ("H", "ill")


def test_how_things_are_at_first_is_no_news() -> None:
    known = taken_as_told(of("False"))
    assert known == Known(alarms={WEB: Alarm("failed", "failed")})
    assert news(known, of("False"))[0] == []
    assert [each.kind for each in news(known, of("True"))[0]] == ["recovered"]
    assert taken_as_told(of("True")) == Known()


def test_what_left_the_spec_is_not_told() -> None:
    _, known = news(Known(), of("False"))
    assert news(known, Recorded()) == ([], Known())


def test_a_renamed_resource_is_the_same_one() -> None:
    _, known = news(Known(), of("False", id="services/staging/old"))
    found, after = news(known, of("False"), lambda id: id.replace("old", "web"))
    assert (found, list(after.alarms)) == ([], [WEB])


def test_the_summary_is_told_for_itself_alone() -> None:
    def summary(reason: str) -> Recorded:
        return Recorded().put(
            Summary(id="summary", conditions=set_condition((), "Ready", "False", reason, "why", now=NOW))
        )

    assert news(Known(), summary("DependencyNotReady")) == ([], Known())
    found, known = news(Known(), summary("SpecInvalid"))
    assert [(each.kind, each.resource) for each in found] == [("failed", "summary")]
    assert [each.kind for each in news(known, summary("DependencyNotReady"))[0]] == ["recovered"]


def waits(*releases: tuple[str, str, str]) -> Recorded:
    """Of staging, by unit: the reason for which a tag waits; a tag like a commit is none yet."""
    waiting = tuple(
        Waiting(unit=unit, reason=reason, message=f"{tag} waits", tag=tag, commit="c0ffee")
        for unit, reason, tag in releases
    )
    ready = set_condition((), "Ready", "True", "AwaitingApproval", "waits", now=NOW)
    return Recorded().put(EnvironmentStatus(id="environments/prod", waiting=waiting, conditions=ready))


def test_a_release_that_waits_is_told_once() -> None:
    approval, window = "AwaitingApproval", "WindowClosed"
    known = Known()
    for releases, expected in (
        ([("app", window, "v1")], []),
        ([("app", approval, "v1")], ["v1 waits"]),
        ([("app", approval, "v1"), ("other", approval, "v9")], ["v9 waits"]),
        ([("app", window, "v1")], []),
        ([("app", approval, "v1")], []),
        ([("app", approval, "v2")], ["v2 waits"]),
        ([("app", approval, "")], [" waits"]),
        ([], []),
        ([("app", approval, "")], []),
    ):
        found, known = news(known, waits(*releases))
        assert [each.message for each in found] == expected
        assert {(each.kind, each.resource) for each in found} <= {("awaiting_approval", "environments/prod")}


def test_what_waits_or_is_wanted_so_has_reasons_that_there_are() -> None:
    assert {"AwaitingApproval", "Suspended", "Manual", "Progressing"} <= {str(each) for each in NO_NEWS}
