"""Conditions: what is true of a resource now, in the form that users of Flux and Kubernetes know.

`Ready` is always there; `Reconciling` and `Stalled` stand only while they are true. A condition's
`lastTransitionTime` moves only when its status does, so that a pass which finds the same thing again
writes the same file. For the same reason a message never holds a duration, a time or a counter.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

ConditionStatus = Literal["True", "False", "Unknown"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; status files hold UTC, in whole seconds."""

MAX_MESSAGE: Final = 1024
"""Characters of a message; the journal and the log have the rest."""
MAX_REASON: Final = 64


class ConditionType(StrEnum):
    """What a condition speaks of."""

    READY = "Ready"
    """The resource is as the spec asks."""
    RECONCILING = "Reconciling"
    """Work on it is under way or will be retried."""
    STALLED = "Stalled"
    """A person must act; nothing is retried until the spec or the outside changes."""
    HEALTHY = "Healthy"
    """Its health check passes. Apart from Ready: what was deployed as asked may still be ill."""
    SOURCE_VERIFIED = "SourceVerified"
    """The commit or tag carries a signature that the spec's policy accepts."""
    SECRETS_VERIFIED = "SecretsVerified"
    """False: the recorded secrets are of another master key and were adopted without a comparison."""
    SYNC_DEGRADED = "SyncDegraded"
    """Of the summary: syncs of some projects failed after all their attempts; the message names them."""
    PAIRED = "Paired"
    """A node has proven itself and its certificate is recorded."""


ABNORMAL: Final = frozenset({ConditionType.RECONCILING, ConditionType.STALLED, ConditionType.SYNC_DEGRADED})
"""Types that are present only while true."""

_RANK: Final[dict[str, int]] = {"Ready": 0, "Reconciling": 1, "Stalled": 2}


class Reason(StrEnum):
    """Why a condition is as it is: stable words, for alerts and scripts too; docs/status.md explains each.

    The reasons of `agent.errors` and `reconciler.errors` are among them.
    """

    # progress and success
    PROGRESSING = "Progressing"
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry"
    BACKING_OFF = "BackingOff"
    RECONCILIATION_SUCCEEDED = "ReconciliationSucceeded"
    INTERRUPTED = "Interrupted"
    SUPERSEDED = "Superseded"
    PAIRED = "Paired"
    TRUST_ON_FIRST_USE = "TrustOnFirstUse"
    # waiting for something or somebody
    DEPENDENCY_NOT_READY = "DependencyNotReady"
    SUSPENDED = "Suspended"
    MANUAL = "Manual"
    WINDOW_CLOSED = "WindowClosed"
    HOLD_ACTIVE = "HoldActive"
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_PAIRING = "AwaitingPairing"
    AWAITING_RELEASE = "AwaitingRelease"
    SOAKING = "Soaking"
    FROZEN = "Frozen"
    DECISION_REFUSED = "DecisionRefused"
    RELEASE_REFUSED = "ReleaseRefused"
    RELEASE_FAILED = "ReleaseFailed"
    ROLLED_BACK = "RolledBack"
    # the spec and git
    SPEC_INVALID = "SpecInvalid"
    NOT_IMPLEMENTED = "NotImplemented"
    SETTINGS_INVALID = "SettingsInvalid"
    REVISION_NOT_FOUND = "RevisionNotFound"
    TAG_MOVED = "TagMoved"
    REPOSITORY_UNAVAILABLE = "RepositoryUnavailable"
    GIT_REFUSED = "GitRefused"
    GIT_FAILED = "GitFailed"
    MIRROR_BROKEN = "MirrorBroken"
    SIGNATURE_INVALID = "SignatureInvalid"
    # secrets
    SECRET_FETCH_FAILED = "SecretFetchFailed"  # noqa: S105 - a reason, not a secret
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    VARIABLE_INVALID = "VariableInvalid"
    TEMPLATE_INVALID = "TemplateInvalid"
    SECRETS_UNVERIFIED = "SecretsUnverified"
    STALE_SECRETS = "StaleSecrets"
    FALLBACK_SECRETS = "FallbackSecrets"
    GROUP_INCOMPLETE = "GroupIncomplete"
    EXPORT_REFUSED = "ExportRefused"
    EXPORT_TIMEOUT = "ExportTimeout"
    GITHUB_UNAVAILABLE = "GitHubUnavailable"
    GITHUB_REFUSED = "GitHubRefused"
    # deploys
    BUILD_FAILED = "BuildFailed"
    DEPLOY_FAILED = "DeployFailed"
    DOKPLOY_UNAVAILABLE = "DokployUnavailable"
    DOKPLOY_REFUSED = "DokployRefused"
    HEALTH_CHECK_FAILED = "HealthCheckFailed"
    STEP_FAILED = "StepFailed"
    TIMEOUT = "Timeout"
    PRUNE_FAILED = "PruneFailed"
    PRUNE_REFUSED = "PruneRefused"
    DOCKER_UNAVAILABLE = "DockerUnavailable"
    OBSERVATION_FAILED = "ObservationFailed"
    DRIFT_DETECTED = "DriftDetected"
    # nodes and sync
    REVOKED = "Revoked"
    AGENT_UNREACHABLE = "AgentUnreachable"
    SYNC_DEGRADED = "SyncDegraded"
    SYNC_FAILED = "SyncFailed"
    PATH_REFUSED = "PathRefused"
    AGENT_TOO_OLD = "AgentTooOld"
    SOURCE_CHANGED = "SourceChanged"
    WATCH_FAILED = "WatchFailed"
    CONNECTION_REFUSED = "ConnectionRefused"
    CONNECTION_LOST = "ConnectionLost"
    PROTOCOL_ERROR = "ProtocolError"
    DISK_FULL = "DiskFull"
    # ourselves
    INTERNAL_ERROR = "InternalError"
    JOURNAL_UNAVAILABLE = "JournalUnavailable"
    STATUS_UNREADABLE = "StatusUnreadable"
    STATUS_REWOUND = "StatusRewound"
    STATUS_CONTENDED = "StatusContended"
    LEASE_HELD = "LeaseHeld"
    LEASE_LOST = "LeaseLost"
    LEASE_REWOUND = "LeaseRewound"
    LEASE_UNREADABLE = "LeaseUnreadable"
    CONTROL_UNREADABLE = "ControlUnreadable"
    CONTROL_REWOUND = "ControlRewound"
    CONTROL_CONTENDED = "ControlContended"


MEANT: Final = frozenset(
    {
        Reason.AWAITING_APPROVAL,
        Reason.AWAITING_RELEASE,
        Reason.FROZEN,
        Reason.HOLD_ACTIVE,
        Reason.SOAKING,
        Reason.SUSPENDED,
        Reason.WINDOW_CLOSED,
    }
)
"""Reasons for which something waits because somebody, or the spec, wants that: no failure of a pass."""

WAITS: Final = MEANT | {Reason.AWAITING_PAIRING, Reason.DEPENDENCY_NOT_READY, Reason.MANUAL}
"""Reasons for which something is not ready because it waits, and has not failed."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One condition. `observed_generation` is the digest of the desired state that it speaks of."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: Moment
    observed_generation: str = ""


Conditions = tuple[Condition, ...]


def set_condition(
    conditions: Sequence[Condition],
    type: str,
    status: ConditionStatus,
    reason: str,
    message: str = "",
    *,
    now: datetime,
    observed_generation: str = "",
) -> Conditions:
    """`conditions` with this one put in, ordered: Ready, Reconciling, Stalled, then by name.

    The time is `now` if the status is new, else the one it had. Those of `ABNORMAL` with a
    status other than True are taken out.
    """
    old = find_condition(conditions, type)
    others = [condition for condition in conditions if condition.type != type]
    if type in ABNORMAL and status != "True":
        return _ordered(others)
    changed = old is None or old.status != status
    new = Condition(
        type=str(type),
        status=status,
        reason=bounded(str(reason), MAX_REASON),
        message=bounded(message),
        last_transition_time=whole_second(now) if old is None or changed else old.last_transition_time,
        observed_generation=observed_generation,
    )
    return _ordered([*others, new])


def remove_condition(conditions: Sequence[Condition], type: str) -> Conditions:
    return _ordered([condition for condition in conditions if condition.type != type])


def find_condition(conditions: Sequence[Condition], type: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == type), None)


def condition_status(conditions: Sequence[Condition], type: str) -> ConditionStatus:
    """The status of that type; Unknown where nothing was said. For the abnormal types absence means False."""
    found = find_condition(conditions, type)
    if found is not None:
        return found.status
    return "False" if type in ABNORMAL else "Unknown"


def bounded(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text` on one line, without control characters, with an ellipsis where it was too long."""
    # A cut first, so that a giant message costs no giant work.
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def whole_second(moment: datetime) -> datetime:
    """The same moment in UTC, its fraction of a second cut off."""
    return moment.astimezone(UTC).replace(microsecond=0)


def _ordered(conditions: Sequence[Condition]) -> Conditions:
    return tuple(sorted(conditions, key=lambda condition: (_RANK.get(condition.type, 9), condition.type)))
