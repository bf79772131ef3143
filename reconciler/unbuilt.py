"""Parts of the spec that are valid and that this version does not act on yet. Pure.

A resource that uses one is reported with the reason `NotImplemented` and left alone: a rule that is
silently ignored is worse than one that is refused. What gets built leaves this file.
"""

from reconciler.observation import Setback
from reconciler.spec.model import (
    AgentDeploy,
    DokployDeploy,
    Environment,
    ManualDeploy,
    Project,
    Service,
    Spec,
    SyncTarget,
)
from reconciler.status.conditions import Reason


def _setback(what: str) -> Setback:
    return Setback(
        Reason.NOT_IMPLEMENTED, f"{what} is valid, but this version of trueup does not act on it yet"
    )


def unbuilt_in_environment(environment: Environment) -> str | None:
    """What of an environment's rules would be broken by deploying to it as if they were not there."""
    if environment.windows:
        return "`windows`"
    if environment.release.approval == "manual":
        return "`release.approval: manual`"
    if environment.release.soak is not None:
        return "`release.soak`"
    if environment.spec_from == "release":
        return "`spec_from: release`"
    if environment.on_failure != "continue":
        return f"`on_failure: {environment.on_failure}`"
    return None


def cutting_is_unbuilt(environment: Environment) -> str | None:
    """Making tags: reported on the environment itself; services still follow tags made elsewhere."""
    if environment.release.from_branch is not None and environment.release.cut == "reconciler":
        return "`release.cut: reconciler` (make the tags yourself and say `cut: external`)"
    return None


NOTIFICATIONS = "notifications"
"""Where the notifications are reported, which are no resource and have no status file of their own."""


def unbuilt_besides(spec: Spec) -> dict[str, Setback]:
    """By resource id: what is not built of environments and notifications."""
    found: dict[str, Setback] = {}
    for name, environment in spec.environments.items():
        part = unbuilt_in_environment(environment) or cutting_is_unbuilt(environment)
        if part is not None:
            found[f"environments/{name}"] = _setback(f"environments.{name}.{part}".replace("`", "", 2))
    if spec.notifications:
        found[NOTIFICATIONS] = _setback(NOTIFICATIONS)
    return found


def unbuilt_in_service(service: Service, environment: Environment) -> Setback | None:
    where = f"environments.{environment.name}."
    if isinstance(service.deploy, ManualDeploy):
        return Setback(
            Reason.MANUAL, f"{service.name} is deployed by hand; trueup only reports it", blocks=False
        )
    if (part := unbuilt_in_environment(environment)) is not None:
        return _setback(where + part.strip("`"))
    if isinstance(service.deploy, DokployDeploy | AgentDeploy):
        kind = type(service.deploy).__struct_config__.tag
        return _setback(f"services.{service.name}.deploy.kind: {kind}")
    return None


def unbuilt_in_project(project: Project, target: SyncTarget, spec: Spec) -> Setback | None:
    where = f"projects.{project.id}."
    if project.source is not None:
        return _setback(f"{where}source (a directory on the primary)")
    if target.strategy == "release":
        return _setback(f"{where}sync.strategy: release")
    if project.sync.bandwidth is not None:
        return _setback(f"{where}sync.bandwidth")
    if project.environment is not None:
        part = unbuilt_in_environment(spec.environments[project.environment])
        if part is not None:
            return _setback(f"environments.{project.environment}.{part.strip('`')}")
    return None
