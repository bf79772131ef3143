"""What a resource's status says about the signature of what it runs. Pure."""

from datetime import datetime

import msgspec

from reconciler.desired_model import AnyDesired, DesiredService, DesiredSync
from reconciler.spec.model import Repository, Spec
from reconciler.status.conditions import ConditionType, Reason, remove_condition, set_condition
from reconciler.status.documents import ServiceStatus, SyncStatus, TargetStatus

Status = ServiceStatus | SyncStatus | TargetStatus


def with_source_verified(status: Status, resource: AnyDesired, spec: Spec, now: datetime) -> Status:
    """`status` with the condition `SourceVerified`, where the repository asks for signatures.

    A resource has a revision only once its signature was checked; one that has none for another reason
    keeps what was said before.
    """
    repository = _repository_of(resource, spec)
    if repository is None or repository.verify.signatures == "none":
        conditions = remove_condition(status.conditions, ConditionType.SOURCE_VERIFIED)
        return msgspec.structs.replace(status, conditions=conditions)
    kind, setback = ConditionType.SOURCE_VERIFIED, resource.setback
    if setback is not None and setback.reason == Reason.SIGNATURE_INVALID:
        conditions = set_condition(status.conditions, kind, "False", setback.reason, setback.message, now=now)
    elif resource.revision is not None:
        what = resource.revision.ref if repository.verify.signatures == "tag" else resource.revision.commit
        conditions = set_condition(
            status.conditions,
            kind,
            "True",
            Reason.RECONCILIATION_SUCCEEDED,
            f"{what} is signed by an allowed signer",
            now=now,
        )
    else:
        return status
    return msgspec.structs.replace(status, conditions=conditions)


def _repository_of(resource: AnyDesired, spec: Spec) -> Repository | None:
    if isinstance(resource, DesiredService):
        return spec.repositories.get(resource.service.repository)
    if isinstance(resource, DesiredSync) and resource.project.repository is not None:
        return spec.repositories.get(resource.project.repository)
    return None
