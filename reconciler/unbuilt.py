"""Parts of the spec that are valid and that this version does not act on yet. Pure.

A resource that uses one is reported with the reason `NotImplemented` and left alone: a rule that is
silently ignored is worse than one that is refused. What gets built leaves this file.
"""

from reconciler.observation import Setback
from reconciler.spec.model import (
    ManualDeploy,
    Project,
    Service,
    SyncTarget,
)
from reconciler.status.conditions import Reason


def _setback(what: str) -> Setback:
    return Setback(
        Reason.NOT_IMPLEMENTED, f"{what} is valid, but this version of trueup does not act on it yet"
    )


def unbuilt_in_service(service: Service) -> Setback | None:
    if isinstance(service.deploy, ManualDeploy):
        return Setback(
            Reason.MANUAL, f"{service.name} is deployed by hand; trueup only reports it", blocks=False
        )
    return None


def unbuilt_in_project(project: Project, target: SyncTarget) -> Setback | None:
    where = f"projects.{project.id}."
    if target.strategy == "release":
        return _setback(f"{where}sync.strategy: release")
    return None
