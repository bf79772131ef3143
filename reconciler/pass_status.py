"""The status documents after a pass: conditions, revisions, releases, the summary. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from reconciler.apply import Outcome
from reconciler.control.situation import told
from reconciler.control.state import ControlState
from reconciler.desired_model import AnyDesired, Desired, DesiredService, DesiredTarget
from reconciler.environment_status import EnvironmentFacts, environments_after
from reconciler.errors import Problem
from reconciler.health_status import with_health
from reconciler.leaving_status import leaving_documents
from reconciler.plan import Action, Finding, Plan
from reconciler.recording import generation, inventory_in, partly_pushed
from reconciler.release.decide import Decision
from reconciler.secret_status import with_sources
from reconciler.secrets.freshness import Freshness
from reconciler.source_status import with_source_verified
from reconciler.spec.model import Spec
from reconciler.status.conditions import (
    Conditions,
    ConditionStatus,
    ConditionType,
    Reason,
    condition_status,
    remove_condition,
    set_condition,
    whole_second,
)
from reconciler.status.documents import (
    SUMMARY_ID,
    AnyDocument,
    EnvironmentStatus,
    HistoryEntry,
    NodeStatus,
    ReadinessCounts,
    Recorded,
    ServiceStatus,
    SourceStatus,
    Summary,
    SyncStatus,
    TargetStatus,
    bounded_problems,
)
from reconciler.status.past import add_history
from reconciler.sync_degraded import degraded


@dataclass(frozen=True, slots=True)
class PassFacts:
    """What is to be written down of a pass, besides the results of its steps."""

    spec: Spec
    spec_commit: str
    head_commit: str
    problems: Sequence[Problem]
    is_frozen: Callable[[str], bool]
    """Whether a resource id is left out of the spec because something is wrong with it there."""
    desired: Desired
    plan: Plan
    outcomes: Mapping[str, Outcome]
    decisions: Mapping[tuple[str, str], Decision]
    """By (unit, environment)."""
    sources: Mapping[str, Freshness]
    left: frozenset[str] = frozenset()
    """Resources that are not in order and to which nothing was to be done: they stay as they are recorded."""
    under_way: Mapping[str, str] = field(default_factory=dict)
    """Those of them whose step goes on, and what it does."""
    control: ControlState = field(default_factory=ControlState)
    control_commit: str = ""
    fingerprints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By source and key, of what each source itself answered in this pass."""
    asked: Collection[str] = ()
    """Nodes that were needed in this pass."""
    connected: Collection[str] = ()
    edits_kept: Mapping[str, int] = field(default_factory=dict)
    """By sync target that was looked at before anything was done: how many local edits stay there."""
    looked: Mapping[str, str | None] = field(default_factory=dict)
    """By service that was looked at: why it is not healthy; None: it is."""

    def of_environments(self) -> EnvironmentFacts:
        return EnvironmentFacts(
            spec=self.spec,
            desired=self.desired,
            plan=self.plan,
            outcomes=self.outcomes,
            is_frozen=self.is_frozen,
            decisions=self.decisions,
            control=self.control,
            left=self.left,
        )


def with_pass(recorded: Recorded, facts: PassFacts, now: datetime) -> Recorded:
    """Every resource's conditions and revisions after the pass."""
    findings = {finding.resource: finding for finding in facts.plan.findings}
    deploying = {step.resource for step in facts.plan.steps if step.action is Action.DEPLOY}
    documents: list[AnyDocument] = [
        with_source_verified(
            _resource_status(
                recorded,
                resource,
                facts.outcomes.get(resource.id),
                findings.get(resource.id),
                deploying=resource.id in deploying,
                edits_kept=facts.edits_kept.get(resource.id),
                now=now,
            ),
            resource,
            facts.spec,
            now,
        )
        for resource in facts.desired.resources
        if resource.id not in facts.left
    ]
    documents = _with_health(documents, facts, deploying, now)
    documents += _left(recorded, facts, now)
    documents += _nodes(recorded, facts, now)
    documents += with_sources(recorded, facts.spec, facts.sources, facts.fingerprints, now)
    documents += _frozen(recorded, facts, now)
    documents += leaving_documents(recorded, facts.plan, facts.outcomes, facts.desired.ids, now)
    after = recorded.put(*(_settled(recorded.get(document.id), document) for document in documents))
    environments = environments_after(recorded, after, facts.of_environments(), now)
    after = after.put(*(_settled(recorded.get(document.id), document) for document in environments))
    summary = _summary(after, facts, findings.get(SUMMARY_ID), now)
    return after.put(_settled(recorded.summary, summary))


def _with_health(
    documents: list[AnyDocument], facts: PassFacts, deploying: Collection[str], now: datetime
) -> list[AnyDocument]:
    services = facts.desired.services()
    return [
        with_health(
            document,
            services[document.id].service.health,
            facts.outcomes.get(document.id) if document.id in deploying else None,
            facts.looked,
            now,
        )
        if isinstance(document, ServiceStatus)
        else document
        for document in documents
    ]


def _settled(old: AnyDocument | None, new: AnyDocument) -> AnyDocument:
    """`old`, if `new` differs only in numbers that messages hold, or in when a source last answered.

    A server that asks to wait 58 seconds and then 57, or a task whose last lines hold a time, would
    otherwise cost a commit in every pass.
    """
    if old is None or len(old.conditions) != len(new.conditions):
        return new
    settled = msgspec.structs.replace(new, conditions=old.conditions)
    if isinstance(settled, SourceStatus) and isinstance(old, SourceStatus):
        settled = msgspec.structs.replace(settled, last_success=old.last_success)
    if settled != old:
        return new
    if isinstance(new, EnvironmentStatus) and new.holds:
        return new if new.conditions != old.conditions else old  # the message names the tags that wait
    for before, after in zip(old.conditions, new.conditions, strict=True):
        if msgspec.structs.replace(after, message=before.message) != before:
            return new
        if NUMBER.sub("0", before.message) != NUMBER.sub("0", after.message):
            return new
    return old


def _resource_status(
    recorded: Recorded,
    resource: AnyDesired,
    outcome: Outcome | None,
    finding: Finding | None,
    *,
    deploying: bool,
    edits_kept: int | None,
    now: datetime,
) -> ServiceStatus | SyncStatus | TargetStatus:
    status = _document_of(recorded, resource)
    if isinstance(resource, DesiredTarget) and isinstance(status, TargetStatus):
        status = msgspec.structs.replace(status, target_kind=resource.target.kind)
        if outcome is not None and outcome.state == "failed" and "names" in outcome.details:
            status = partly_pushed(status, resource, outcome.details)
    if isinstance(status, SyncStatus) and edits_kept is not None and not _succeeded(outcome):
        status = msgspec.structs.replace(status, edits_kept=edits_kept)
    revision = str(resource.revision or "")
    changes: dict[str, object] = {"observed_generation": generation(resource)}
    if outcome is not None and outcome.state == "failed":
        changes["last_attempted_revision"] = revision
        if isinstance(resource, DesiredService) and (left := inventory_in(outcome.details)):
            changes["deploy"] = str(resource.service.deploy.__struct_config__.tag)
            changes["inventory"] = left
        entry = HistoryEntry(
            revision=revision,
            outcome="failed",
            config_hash=str(resource.hash or ""),
            reason=outcome.reason,
            at=now,
        )
        changes["history"] = add_history(status.history, entry)
        if deploying:
            # How far it got is unknown: what was recorded before is not what runs there any more.
            changes["config_hash"] = ""
    elif outcome is None and finding is None:
        # In order. A tag that moved on over equal content moves only the revision.
        changes["last_attempted_revision"] = changes["last_applied_revision"] = revision
    ready, reason, message = _readiness(outcome, finding)
    conditions = set_condition(
        status.conditions,
        ConditionType.READY,
        ready,
        reason,
        message,
        now=now,
        observed_generation=str(changes["observed_generation"]),
    )
    if any(condition.type == ConditionType.RECONCILING for condition in conditions):
        conditions = remove_condition(conditions, ConditionType.RECONCILING)
    stalled: ConditionStatus = "True" if reason in STALLED else "False"
    changes["conditions"] = set_condition(
        conditions, ConditionType.STALLED, stalled, reason, message, now=now
    )
    return msgspec.structs.replace(status, **changes)


def _succeeded(outcome: Outcome | None) -> bool:
    """Whether a step has recorded by itself how things are now."""
    return outcome is not None and outcome.state == "succeeded"


def _document_of(recorded: Recorded, resource: AnyDesired) -> ServiceStatus | SyncStatus | TargetStatus:
    """What is recorded of it, or a first record."""
    if isinstance(resource, DesiredService):
        return recorded.services.get(resource.id) or ServiceStatus(id=resource.id)
    if isinstance(resource, DesiredTarget):
        return recorded.targets.get(resource.id) or TargetStatus(id=resource.id)
    return recorded.syncs.get(resource.id) or SyncStatus(
        id=resource.id,
        node=resource.target.node,
        target_path=resource.target.target_path,
        strategy=resource.target.strategy,
    )


def _left(recorded: Recorded, facts: PassFacts, now: datetime) -> list[AnyDocument]:
    """What is left as it was says only whether its step goes on: its end will say how it is."""
    documents: list[AnyDocument] = []
    for resource in facts.desired.resources if facts.left else ():
        doing = facts.under_way.get(resource.id)
        if doing is None and (resource.id not in facts.left or recorded.get(resource.id) is None):
            continue
        status = _document_of(recorded, resource)
        conditions = set_condition(
            status.conditions,
            ConditionType.RECONCILING,
            "False" if doing is None else "True",
            Reason.PROGRESSING,
            doing or "",
            now=now,
        )
        documents.append(msgspec.structs.replace(status, conditions=conditions))
    return documents


NUMBER = re.compile(r"[0-9]+")

STALLED = frozenset({Reason.NOT_IMPLEMENTED, Reason.SPEC_INVALID, Reason.GIT_REFUSED})
"""Reasons that no retry can mend: somebody has to change the spec."""


def _readiness(outcome: Outcome | None, finding: Finding | None) -> tuple[ConditionStatus, str, str]:
    if outcome is not None:
        return ("True" if outcome.state == "succeeded" else "False", outcome.reason, outcome.message)
    if finding is not None:
        return ("Unknown" if finding.unknown else "False", finding.reason, finding.message)
    return ("True", Reason.RECONCILIATION_SUCCEEDED, "")


def _frozen(recorded: Recorded, facts: PassFacts, now: datetime) -> list[AnyDocument]:
    """Services and targets whose spec is wrong: what is recorded of them stays, but is not in order."""
    message = "the spec has an error here and it stays as it was; the summary lists the errors"
    documents: list[AnyDocument] = []
    wanted = facts.desired.ids
    applied: list[ServiceStatus | SyncStatus | TargetStatus] = [
        *recorded.services.values(),
        *recorded.syncs.values(),
        *recorded.targets.values(),
    ]
    for document in applied:
        if document.id not in wanted and facts.is_frozen(document.id):
            conditions = set_condition(
                document.conditions, ConditionType.READY, "False", Reason.SPEC_INVALID, message, now=now
            )
            conditions = set_condition(
                conditions, ConditionType.STALLED, "True", Reason.SPEC_INVALID, message, now=now
            )
            documents.append(msgspec.structs.replace(document, conditions=conditions))
    return documents


def _nodes(recorded: Recorded, facts: PassFacts, now: datetime) -> list[AnyDocument]:
    documents: list[AnyDocument] = []
    for name, node in facts.spec.nodes.items():
        status = recorded.nodes.get(f"nodes/{name}") or NodeStatus(id=f"nodes/{name}")
        if status.token_key != node.token_key:
            status = msgspec.structs.replace(status, token_key=node.token_key, token_since=whole_second(now))
        ready: tuple[ConditionStatus, str, str] | None = None
        if (by := facts.control.revocation_of(name, node.token_key)) is not None:
            ready = ("False", Reason.REVOKED, f"its token was taken back {told(by)}")
        elif not status.certificate:
            ready = ("False", Reason.AWAITING_PAIRING, "its `trueup-agent join` has not been run")
        elif name in facts.connected:
            ready = ("True", Reason.PAIRED, "")
        elif name in facts.asked:
            ready = ("Unknown", Reason.AGENT_UNREACHABLE, "not connected when it was needed")
        if ready is not None:
            conditions = set_condition(status.conditions, ConditionType.READY, *ready, now=now)
            status = msgspec.structs.replace(status, conditions=conditions)
        documents.append(status)
    return documents


def _summary(recorded: Recorded, facts: PassFacts, refused: Finding | None, now: datetime) -> Summary:
    old = recorded.summary or Summary(id=SUMMARY_ID)
    ready: tuple[ConditionStatus, str, str]
    counts = _counts(recorded)
    if facts.problems:
        ready = ("False", Reason.SPEC_INVALID, "the spec has errors; what they concern stays as it was")
    elif refused is not None:
        ready = ("False", refused.reason, refused.message)
    elif any(count.not_ready or count.unknown for count in counts.values()):
        ready = ("False", Reason.DEPENDENCY_NOT_READY, "some resources are not ready")
    else:
        ready = ("True", Reason.RECONCILIATION_SUCCEEDED, "")
    return Summary(
        id=SUMMARY_ID,
        observed_generation=facts.spec.hash,
        last_attempted_revision=facts.head_commit,
        last_applied_revision=facts.spec_commit,
        control=max(facts.control.last, old.control),
        control_commit=facts.control_commit or old.control_commit,
        problems=bounded_problems(facts.problems),
        counts=counts,
        conditions=_with_degraded(
            set_condition(old.conditions, ConditionType.READY, *ready, now=now), recorded, now
        ),
    )


def _with_degraded(conditions: Conditions, recorded: Recorded, now: datetime) -> Conditions:
    found = degraded(recorded.syncs.values())
    message = "; ".join(f"{project}: {each.message}" for project, each in sorted(found.items()))
    status: ConditionStatus = "True" if found else "False"
    return set_condition(
        conditions, ConditionType.SYNC_DEGRADED, status, Reason.SYNC_DEGRADED, message, now=now
    )


def _counts(recorded: Recorded) -> dict[str, ReadinessCounts]:
    tally: dict[str, Counter[str]] = {}
    for document in recorded.documents():
        if document.id != SUMMARY_ID and not _is_first(document):
            kind = document.id.partition("/")[0]
            tally.setdefault(kind, Counter())[condition_status(document.conditions, ConditionType.READY)] += 1
    return {
        kind: ReadinessCounts(ready=count["True"], not_ready=count["False"], unknown=count["Unknown"])
        for kind, count in sorted(tally.items())
    }


def _is_first(document: AnyDocument) -> bool:
    """Whether it is being brought about for the first time: nothing is wrong, and nothing is there yet."""
    types = {condition.type for condition in document.conditions}
    return ConditionType.RECONCILING in types and ConditionType.READY not in types


def last_good_spec(recorded: Recorded) -> str | None:
    """The commit of the spec that was last acted on."""
    return (recorded.summary.last_applied_revision or None) if recorded.summary is not None else None
