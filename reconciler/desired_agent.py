"""The desired state of a service whose command runs where its project is synced. Pure.

What is synced decides as well: a command has to run again after its project changed, and after its files were
put back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reconciler.desired_model import DesiredService, DesiredSync, Facts, split_inputs
from reconciler.hashing import Inputs, config_hash, digest
from reconciler.identity import project_id
from reconciler.observation import Setback
from reconciler.spec.model import AgentDeploy


def with_project(
    facts: Facts, service: DesiredService, syncs: Mapping[str, Sequence[DesiredSync]]
) -> DesiredService:
    """A service with the inputs of the project that its `deploy` names, where it names one.

    `syncs`: the targets of each project by `project_id`. What keeps a project from being synced keeps its
    service from being deployed.
    """
    deploy = service.service.deploy
    if not isinstance(deploy, AgentDeploy):
        return service
    project = facts.spec.project_of(service.service)
    targets = syncs.get(project_id(project), ()) if project is not None else ()
    service = replace(service, follows=tuple(target.id for target in targets))
    if service.setback is not None:
        return service
    for target in targets:
        if (setback := target.setback) is not None:
            message = f"its project {deploy.project}: {setback.message}"
            return replace(service, setback=Setback(setback.reason, message, setback.unknown, setback.blocks))
    public, keyed = dict(service.inputs.public), dict(service.inputs.keyed)
    public[f"project {deploy.project}"] = digest({target.id: target.inputs.public for target in targets})
    soft, keys = set(service.soft_inputs), dict(service.keys)
    # Rendered files are the same on all nodes, and their fingerprints belong to one resource each.
    for target in targets[:1]:
        for file in target.project.files:
            prefix = f"{deploy.project}/{file.path} "
            split = split_inputs(facts, service.id, target.merged[file.path], file.env, prefix)
            keyed |= split.keyed
            soft |= split.soft
            keys |= split.keys
    inputs = Inputs(public, keyed)
    return replace(
        service,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=frozenset(soft),
        keys=keys,
        degraded=service.degraded or any(target.degraded for target in targets),
    )
