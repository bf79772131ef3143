"""The status documents after a pass: who is ready, what is recorded, and that nothing new writes nothing."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.apply import Outcome
from reconciler.desired import Facts, Revision, make_desired
from reconciler.errors import Problem
from reconciler.observation import Absent, Observation, Present, Setback, Unknown
from reconciler.pass_status import PassFacts, last_good_spec, with_pass
from reconciler.plan import Action, make_plan
from reconciler.recording import step_result, with_results
from reconciler.release.current import NoReleaseYet
from reconciler.release.decide import Decision
from reconciler.release.facts import Next
from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.status.conditions import Condition, Reason, find_condition
from reconciler.status.documents import NodeStatus, Recorded, ServiceStatus
from reconciler.status.files import render_changes
from tests.reconciler.facts import COMMIT, facts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
WEB, SITE = "services/staging/web", "projects/branch/site/web-1/srv+site"
TEXT = """\
services:
  web: {repository: app, deploy: {kind: invoke, task: deploy}, environments: [staging]}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync: {nodes: [{node_id: web-1, target_path: /srv/site}]}
"""
GOOD = {WEB: Outcome("succeeded"), SITE: Outcome("succeeded")}
PAIRED = NodeStatus(id="nodes/web-1", certificate="PEM")


def happened(
    text: str = TEXT,
    outcomes: Mapping[str, Outcome] = GOOD,
    *,
    found: Mapping[str, Observation] | None = None,
    setbacks: Mapping[str, object] | None = None,
    **changes: object,
) -> PassFacts:
    known = replace(facts(text), **(setbacks or {}))  # type: ignore[arg-type]
    desired = make_desired(known)
    absent: dict[str, Observation] = {resource.id: Absent() for resource in desired.resources}
    made = PassFacts(
        spec=known.spec,
        spec_commit="5" * 40,
        head_commit="5" * 40,
        problems=(),
        is_frozen=lambda _resource: False,
        desired=desired,
        plan=make_plan(desired, absent | dict(found or {}), recorded=()),
        outcomes=outcomes,
        decisions=taken(known),
        sources={"local": Freshness("local", "env_file", SourceState.FRESH, keys=("DB_URL",))},
        asked={"web-1"},
        connected={"web-1"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def taken(known: Facts) -> dict[tuple[str, str], Decision]:
    """As if tags of others were followed for the first time."""
    return {
        pair: Decision(
            NoReleaseYet("none yet"),
            Next(kind="external", tag=release.ref, commit=release.commit, spec_revision="5" * 40, cut=False),
        )
        for pair, release in known.releases.items()
        if isinstance(release, Revision)
    }


def after(facts: PassFacts, recorded: Recorded | None = None, now: datetime = NOW) -> Recorded:
    return with_pass(recorded or Recorded().put(PAIRED), facts, now)


def after_first() -> Recorded:
    """After a pass that brought everything about."""
    first = happened()
    made = {resource.id: resource for resource in first.desired.resources}
    results = [step_result(step, made[step.resource], {}, at=NOW) for step in first.plan.steps]
    return after(first, with_results(Recorded().put(PAIRED), results))


def ready(recorded: Recorded, id: str) -> Condition:
    document = recorded.get(id)
    assert document is not None, id
    condition = find_condition(document.conditions, "Ready")
    assert condition is not None
    return condition


def test_after_a_good_pass_all_are_ready_and_the_next_one_writes_nothing() -> None:
    first = after_first()
    assert {ready(first, id).status for id in first.ids()} == {"True"}
    assert render_changes(first, after(happened(outcomes={}, found=in_place()), first, LATER)) == {}


def in_place() -> dict[str, Observation]:
    """As if everything were in place: no steps, no findings."""
    made = make_desired(facts(TEXT))
    return {resource.id: Present(str(resource.hash), resource.inputs) for resource in made.resources}


def test_a_failed_deploy_voids_the_record_and_a_failed_sync_or_adoption_does_not() -> None:
    recorded = Recorded().put(PAIRED, ServiceStatus(id=WEB, config_hash="v1:1:2:3"))
    failed = Outcome("failed", "DeployFailed", "exit code 1")
    both = after(happened(outcomes={WEB: failed, SITE: failed}), recorded)
    assert both.services[WEB].config_hash == ""
    # Whose syncs failed is in the summary, for as long as that is so.
    assert both.summary is not None
    told = find_condition(both.summary.conditions, "SyncDegraded")
    project = "/".join(SITE.split("/")[:3])
    assert told is not None
    assert told.message == f"{project}: 1 of 1 targets failed: web-1 (DeployFailed)"
    mended = after(happened(outcomes={}, found=in_place()), both, LATER)
    assert mended.summary is not None
    assert find_condition(mended.summary.conditions, "SyncDegraded") is None
    plan = happened().plan
    adopting = replace(
        plan, steps=tuple(replace(step, action=Action.ADOPT) for step in plan.steps if step.resource == WEB)
    )
    kept = after(happened(outcomes={WEB: failed}, plan=adopting), recorded)
    assert kept.services[WEB].config_hash == "v1:1:2:3"


def test_a_blocked_step_leaves_the_record_as_it_was() -> None:
    recorded = Recorded().put(PAIRED, ServiceStatus(id=WEB, config_hash="v1:1:2:3"))
    blocked = Outcome("blocked", Reason.DEPENDENCY_NOT_READY, "waits for db, which failed")
    status = after(happened(outcomes={WEB: blocked}), recorded).services[WEB]
    assert (status.config_hash, status.history) == ("v1:1:2:3", ())
    assert find_condition(status.conditions, "Ready").status == "False"  # type: ignore[union-attr]


def test_local_edits_that_stay_are_recorded_as_they_were_seen() -> None:
    in_order, failed = happened(outcomes={}, found=in_place()), Outcome("failed", "SyncFailed", "no")

    def kept(facts: PassFacts, recorded: Recorded, *seen: int) -> Recorded:
        return after(replace(facts, edits_kept=dict(zip([SITE], seen, strict=False))), recorded, LATER)

    seen = kept(in_order, after_first(), 2)
    assert seen.syncs[SITE].edits_kept == 2
    unseen = kept(in_order, seen)
    assert render_changes(seen, unseen) == {}
    assert kept(in_order, unseen, 0).syncs[SITE].edits_kept == 0
    # What was seen before a step counts where that came to nothing; otherwise the step has told by itself.
    assert kept(happened(outcomes={SITE: failed}), seen, 1).syncs[SITE].edits_kept == 1
    assert kept(happened(outcomes={SITE: Outcome("succeeded")}), seen, 1).syncs[SITE].edits_kept == 2


def test_a_failure_that_only_counts_on_writes_nothing() -> None:
    """A wait that a server asks for, or a time in the last lines of a task, is no news."""

    def failed(message: str, reason: str = "DeployFailed") -> PassFacts:
        return happened(outcomes={WEB: Outcome("failed", reason, message), SITE: Outcome("succeeded")})

    first = after(failed("asks to wait 58 s"))
    assert render_changes(first, after(failed("asks to wait 9 s"), first, LATER)) == {}
    assert WEB + ".yaml" in render_changes(first, after(failed("asks for a login"), first, LATER))
    assert WEB + ".yaml" in render_changes(first, after(failed("asks to wait 9 s", "Timeout"), first, LATER))


def test_unknown_is_told_as_unknown() -> None:
    found = {SITE: Unknown(Reason.AGENT_UNREACHABLE, "web-1 is away")}
    told = after(happened(outcomes={WEB: Outcome("succeeded")}, found=found, connected=()))
    assert (ready(told, SITE).status, ready(told, SITE).reason) == ("Unknown", "AgentUnreachable")
    assert (ready(told, "nodes/web-1").status, ready(told, "summary").status) == ("Unknown", "False")
    assert told.summary is not None
    assert told.summary.counts["projects"].unknown == 1


def test_nodes_that_nobody_needed_stay_as_they_were() -> None:
    first = after_first()
    quiet = happened(outcomes={}, found=in_place(), asked=(), connected=())
    assert render_changes(first, after(quiet, first, LATER)) == {}
    unpaired = after(happened(), Recorded().put(NodeStatus(id="nodes/web-1")))
    assert ready(unpaired, "nodes/web-1").reason == Reason.AWAITING_PAIRING


def test_the_releases_of_the_pass_are_the_recorded_ones() -> None:
    [unit] = after(happened()).environments["environments/staging"].units.items()
    assert (unit[0], unit[1].release.tag, unit[1].release.commit) == ("app", "v1.0.0", COMMIT)
    down = Setback(Reason.REPOSITORY_UNAVAILABLE, "down", unknown=True)
    kept = after(
        happened(decisions={("app", "staging"): Decision(down)}, outcomes={}), after(happened()), LATER
    )
    assert list(kept.environments["environments/staging"].units) == ["app"]
    assert ready(kept, "environments/staging").status == "Unknown"


def test_an_environment_in_which_nothing_runs_is_ready() -> None:
    told = after(happened("", {}), Recorded())
    assert ready(told, "environments/staging").status == "True"


@pytest.mark.parametrize(
    ("freshness", "state", "status", "reason", "keys"),
    [
        ({"state": SourceState.CACHED, "keys": ("A",)}, "fresh", "True", "ReconciliationSucceeded", ("A",)),
        ({"state": SourceState.STALE, "keys": ("A",)}, "stale", "False", "StaleSecrets", ("A",)),
        ({"state": SourceState.FALLBACK, "served_by": "b"}, "fallback", "False", "FallbackSecrets", ()),
        (
            {"state": SourceState.FAILED, "error": "down"},
            "failed",
            "Unknown",
            "SecretFetchFailed",
            ("DB_URL",),
        ),
        ({"state": SourceState.FALLBACK, "enabled": False}, "disabled", "False", "Suspended", ()),
    ],
)
def test_sources(
    freshness: dict[str, object], state: str, status: str, reason: str, keys: tuple[str, ...]
) -> None:
    told = after(
        happened(sources={"local": Freshness("local", "env_file", **freshness)}),  # type: ignore[arg-type]
        after(happened()),
    )
    source = told.sources["secrets/local"]
    assert (source.state, source.keys) == (state, keys)
    assert (ready(told, "secrets/local").status, ready(told, "secrets/local").reason) == (status, reason)


def test_a_source_that_nobody_asked_stays_as_it_was() -> None:
    first = after(happened())
    unused = happened(sources={"local": Freshness("local", "env_file", SourceState.UNUSED)})
    assert after(unused, first).sources == first.sources


def test_what_is_frozen_says_so_and_stays() -> None:
    problem = Problem("trueup.yaml", 3, 1, "services.gone", "it is wrong", "services/gone")
    gone = ServiceStatus(id="services/staging/gone", config_hash="v1:1:2:3")
    told = after(
        happened(problems=(problem,), is_frozen=lambda id: id == gone.id, head_commit="6" * 40),
        Recorded().put(PAIRED, gone),
    )
    assert told.services[gone.id].config_hash == "v1:1:2:3"
    assert ready(told, gone.id).reason == Reason.SPEC_INVALID
    assert told.summary is not None
    assert told.summary.problems == ("trueup.yaml:3:1: services.gone: it is wrong",)
    assert told.summary.last_attempted_revision == "6" * 40
    assert last_good_spec(told) == "5" * 40


def test_before_the_first_pass_there_is_no_last_good_spec() -> None:
    assert last_good_spec(Recorded()) is None


def test_when_a_source_last_answered_is_no_reason_to_write() -> None:
    def answered(at: datetime, mark: str = "00") -> PassFacts:
        fresh = Freshness("local", "env_file", SourceState.FRESH, keys=("DB_URL",), last_success=at)
        return happened(sources={"local": fresh}, fingerprints={"local": {"DB_URL": mark}})

    first = with_pass(Recorded(), answered(NOW), NOW)
    assert first.sources["secrets/local"].last_success == NOW
    assert with_pass(first, answered(LATER), LATER).sources == first.sources
    changed = with_pass(first, answered(LATER, "0a"), LATER)
    assert changed.sources["secrets/local"].last_success == LATER
    assert changed.sources["secrets/local"].fingerprints == {"DB_URL": "0a"}


def test_a_source_that_did_not_answer_itself_keeps_its_fingerprints() -> None:
    fresh = Freshness("local", "env_file", SourceState.FRESH, keys=("DB_URL",), last_success=NOW)
    first = with_pass(
        Recorded(), happened(sources={"local": fresh}, fingerprints={"local": {"DB_URL": "0a"}}), NOW
    )
    stale = Freshness("local", "env_file", SourceState.STALE, keys=("DB_URL",), error_kind="Down")
    after = with_pass(first, happened(sources={"local": stale}), LATER).sources["secrets/local"]
    assert after.fingerprints == {"DB_URL": "0a"}
    assert (after.state, after.error_kind, after.last_success) == ("stale", "Down", NOW)
