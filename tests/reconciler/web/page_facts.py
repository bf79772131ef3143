"""Facts for tests of the page: one of everything that it shows, under names that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from reconciler.control.records import Record
from reconciler.control.state import fold
from reconciler.identity import target_slug
from reconciler.journal_records import AttemptRecord, EventRecord, StepRecord, TaskRecord
from reconciler.progress import Progress
from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.spec.model import (
    EnvFileSettings,
    Environment,
    InvokeDeploy,
    Node,
    Project,
    ReleasePolicy,
    Repository,
    SecretSource,
    SecretUse,
    Service,
    Spec,
    SyncRules,
    SyncTarget,
    Unit,
)
from reconciler.status.conditions import Conditions, ConditionStatus, set_condition
from reconciler.status.documents import (
    AnyDocument,
    EnvironmentStatus,
    HistoryEntry,
    Hold,
    KeptRelease,
    NodeStatus,
    Recorded,
    Release,
    ServiceStatus,
    SourceStatus,
    Summary,
    SyncCounts,
    SyncStatus,
    UnitStatus,
    Waiting,
)
from reconciler.web.page.facts import Facts, Setup

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"

Name = Callable[[str], str]
"""What stands for a plain word, such as `web`."""


def plain(word: str) -> str:
    return word


def facts(name: Name = plain) -> Facts:
    """`name` gives every name, label, tag, reason and message that comes from outside."""
    spec = _spec(name)
    return Facts(
        setup=Setup(branch=name("main"), webhook=True),
        passed=True,
        ended_at=NOW - timedelta(minutes=2),
        spec=spec,
        recorded=_recorded(name),
        control=fold(_records(name)),
        connected=frozenset({name("web-1")}),
        tasks=_tasks(name),
        progress={
            f"t3{name('')}": Progress(
                *("t3", 1, 200 << 20, 48 << 20, 900, "", "copy"),
                files_done=120,
                files_total=300,
                bytes_done=60 << 20,
                bytes_total=200 << 20,
                still_seconds=95,
            )
        },
        events=(
            EventRecord(
                3,
                _at(4),
                "failed",
                f"services/{name('staging')}/{name('api')}",
                name("DeployFailed"),
                name("the task ended with exit code 1"),
            ),
            EventRecord(2, _at(9), "recovered", f"services/{name('staging')}/{name('web')}", "Ready", ""),
            EventRecord(1, _at(60), "paired", f"nodes/{name('web-1')}", "Paired", ""),
        ),
        steps=(
            StepRecord(
                2,
                1,
                f"services/{name('staging')}/{name('web')}",
                "deploy",
                "",
                name("source changed: web/app.py"),
                "",
                _at(9),
            ),
        ),
        sources=spec.secret_sources,
        freshness={
            (name("vault"), name("staging")): Freshness(
                name("vault"),
                "infisical",
                SourceState.STALE,
                NOW - timedelta(minutes=20),
                (name("DB_PASSWORD"), name("API_KEY")),
                name("vault"),
                "SecretFetchFailed",
                name("the source is down"),
            ),
            (name("vault"), name("production")): Freshness(
                name("vault"), "infisical", SourceState.FRESH, NOW, (name("DB_PASSWORD"),), name("local")
            ),
        },
    )


def many_services(count: int) -> Facts:
    """One environment with so many services, of which every tenth failed."""
    few = facts()
    assert few.spec is not None
    web = few.spec.services[0]
    services = tuple(_as(web, name=f"service-{number:03}") for number in range(count))
    status = [
        _service(each.id, plain, "False", "DeployFailed", "exit code 1")
        if number % 10 == 0
        else _service(each.id, plain, "True", "ReconciliationSucceeded")
        for number, each in enumerate(services)
    ]
    return Facts(
        passed=True,
        spec=msgspec.structs.replace(few.spec, services=services),
        recorded=Recorded().put(*status),
    )


def _spec(name: Name) -> Spec:
    staging, production, app = name("staging"), name("production"), name("app")
    web = Service(
        name=name("web"),
        environment=staging,
        repository=app,
        unit=app,
        deploy=InvokeDeploy(task="deploy"),
        secrets=(SecretUse(source=name("vault")),),
    )
    targets = (SyncTarget(node=name("web-1"), target_path=f"/srv/{name('site')}", strategy="mirror"),)
    return Spec(
        version=1,
        repositories={app: Repository(name=app, url="https://example.org/app.git")},
        units={app: Unit(name=app, repository=app)},
        environments={
            # A release passes through staging first, wherever that stands.
            production: Environment(
                name=production, release=ReleasePolicy(promote_from=staging, approval="manual")
            ),
            staging: Environment(name=staging, release=ReleasePolicy(from_branch=name("main"))),
        },
        secret_sources={
            name("vault"): _source(name("vault"), "infisical", (name("local"),)),
            name("local"): _source(name("local"), "env_file"),
        },
        services=(
            web,
            _as(web, name=name("api")),
            _as(web, environment=production),
            _as(web, name=name("cron"), environment=production),
        ),
        nodes={
            name("web-1"): Node(
                id=name("web-1"), name=name("Web 1"), labels={name("group"): name("web")}, token_key="x"
            ),
            name("web-2"): Node(id=name("web-2"), token_key="x"),
        },
        projects={
            name("site"): Project(
                id=name("site"),
                name=name("Site"),
                repository=app,
                unit=app,
                environment=staging,
                sync=SyncRules(targets=targets),
            )
        },
    )


def _as(service: Service, **changes: str) -> Service:
    return msgspec.structs.replace(service, **changes)


def _source(name: str, kind: str, fallback: tuple[str, ...] = ()) -> SecretSource:
    return SecretSource(name=name, kind=kind, fallback=fallback, settings=EnvFileSettings(file=".env"))


def _recorded(name: Name) -> Recorded:
    staging, production, app = name("staging"), name("production"), name("app")
    earlier = _release(name("v1.3.0"), OTHER, 300, outcome="succeeded")
    documents: list[AnyDocument] = [
        EnvironmentStatus(
            id=f"environments/{staging}",
            conditions=_ready("True", "ReconciliationSucceeded"),
            units={
                app: UnitStatus(
                    release=_release(name("v1.4.0"), COMMIT, 10, by=name("Ann <a@example.org>")),
                    history=(earlier,),
                )
            },
            holds=(Hold(reason=name("ReleaseFailed"), resource=name("api"), at=NOW, unit=app),),
        ),
        EnvironmentStatus(
            id=f"environments/{production}",
            conditions=_ready("True", "AwaitingApproval", name("v1.4.0 waits for approval")),
            units={app: UnitStatus(release=earlier, refused=name("it was not proven"))},
            waiting=(
                Waiting(
                    unit=app,
                    reason="AwaitingApproval",
                    message=name("`trueup approve` lets it through"),
                    tag=name("v1.4.0"),
                    commit=COMMIT,
                ),
            ),
        ),
        _service(f"services/{staging}/{name('web')}", name, "True", "ReconciliationSucceeded"),
        _service(
            f"services/{staging}/{name('api')}", name, "False", name("DeployFailed"), name("exit code 1")
        ),
        _service(f"services/{production}/{name('web')}", name, "True", "ReconciliationSucceeded"),
        SyncStatus(
            id=f"projects/{staging}/{name('site')}/{name('web-1')}/{target_slug('/srv/' + name('site'))}",
            node=name("web-1"),
            target_path=f"/srv/{name('site')}",
            conditions=_ready("False", "DriftDetected", name("2 files were edited there")),
            last_applied_revision=f"{name('v1.4.0')}@sha1:{COMMIT}",
            history=(HistoryEntry(revision=f"v1.4.0@sha1:{COMMIT}", outcome="succeeded", at=NOW),),
            counts=SyncCounts(files_written=12, local_edits=2),
            current="2-aaaaaaaaaaaa",
            releases=(
                KeptRelease(name="1-bb", tree="bb" * 32, revision=name("v1.3.0"), at=NOW),
                KeptRelease(name="2-aaaaaaaaaaaa", tree="aa" * 32, revision=f"v1.4.0@sha1:{COMMIT}"),
            ),
        ),
        NodeStatus(
            id=f"nodes/{name('web-1')}",
            certificate="PEM",
            fingerprint="ab" * 32,
            paired_at=NOW - timedelta(days=3),
            trust_on_first_use=True,
            agent_version=name("0.1.0"),
        ),
        SourceStatus(
            id=f"secrets/{name('local')}",
            source_kind="env_file",
            state="fallback",
            keys=(name("DB_PASSWORD"),),
            conditions=_ready("False", "SecretFetchFailed", name("no such file")),
        ),
        Summary(
            id="summary",
            last_applied_revision=COMMIT,
            problems=(name("trueup.yaml:3:1: services: unknown key"),),
        ),
    ]
    return Recorded().put(*documents)


def _ready(status: ConditionStatus, reason: str, message: str = "") -> Conditions:
    return set_condition((), "Ready", status, reason, message, now=NOW - timedelta(hours=1))


def _service(id: str, name: Name, status: ConditionStatus, reason: str, message: str = "") -> ServiceStatus:
    outcome: Literal["succeeded", "failed"] = "succeeded" if status == "True" else "failed"
    return ServiceStatus(
        id=id,
        conditions=_ready(status, reason, message),
        deploy="invoke",
        last_applied_revision=f"{name('v1.4.0')}@sha1:{COMMIT}",
        config_hash=f"v1:k1:{'ab' * 32}:{'cd' * 32}",
        history=(
            HistoryEntry(revision=f"v1.4.0@sha1:{COMMIT}", outcome=outcome, at=NOW - timedelta(minutes=9)),
        ),
    )


def _release(
    tag: str, commit: str, minutes: int, *, outcome: Literal["", "succeeded"] = "succeeded", by: str = ""
) -> Release:
    return Release(
        tag=tag,
        commit=commit,
        recorded_at=NOW - timedelta(minutes=minutes),
        previous=OTHER,
        kind="cut",
        outcome=outcome,
        triggered_by=by,
        ended_at=NOW,
    )


def _records(name: Name) -> list[Record]:
    who = name("Bob <bob@example.org>")
    return [
        Record(
            number=1,
            kind="suspend",
            by=who,
            at=NOW,
            resource=f"services/{name('production')}/{name('cron')}",
            reason=name("being replaced"),
        ),
        Record(
            number=2, kind="hold", by=who, at=NOW, environment=name("production"), reason=name("sale day")
        ),
        Record(
            number=3,
            kind="promote",
            by=who,
            at=NOW,
            environment=name("production"),
            unit=name("app"),
            tag=name("v1.4.0"),
            commit=COMMIT,
            source=name("staging"),
        ),
        Record(
            number=4, kind="hold", by=who, at=NOW, environment=name("production"), reason=name("sale day")
        ),
    ]


def _tasks(name: Name) -> tuple[TaskRecord, ...]:
    resource = f"projects/{name('staging')}/{name('site')}/{name('web-1')}/srv+site"
    return (
        TaskRecord(
            f"t3{name('')}",
            resource,
            name("web-1"),
            "RUNNING",
            _at(1),
            attempts=(AttemptRecord(1, _at(1), "", "RUNNING", "", ""),),
        ),
        TaskRecord(
            "t2",
            resource,
            name("web-1"),
            "FAILED",
            _at(5),
            attempts=(
                AttemptRecord(1, _at(5), _at(4), "FAILED", name("SyncFailed"), name("disk full")),
                AttemptRecord(
                    2, _at(4), _at(3), "FAILED", name("Failed"), name("disk full"), log=name("$ restart-web")
                ),
            ),
        ),
        TaskRecord(
            "t1",
            resource,
            name("web-1"),
            "SUCCESS",
            _at(50),
            attempts=(AttemptRecord(1, _at(50), _at(50), "SUCCESS", "", ""),),
        ),
    )


def _at(minutes: int) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
