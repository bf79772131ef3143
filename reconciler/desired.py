"""The desired state: for each service and each sync target the hash it should have, and why. Pure.

Everything that had to be looked up is in `Facts`; what could not be looked up is there as a `Setback`,
and travels with the resource instead of failing the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from agent.ignore import check_patterns
from reconciler.desired_agent import with_project
from reconciler.desired_model import (
    AnyDesired,
    Desired,
    DesiredResource,
    DesiredService,
    DesiredSync,
    DesiredTarget,
    Facts,
    Revision,
    SecretsKey,
    SetbackRaised,
    own_variables,
    split_inputs,
    suspended,
    suspended_by_operator,
    used_secrets,
)
from reconciler.desired_sync import desired_sync, ignore_file_path, project_revision
from reconciler.desired_target import desired_target
from reconciler.errors import TrueupError
from reconciler.hashing import Inputs, config_hash, digest
from reconciler.identity import build_id, project_id
from reconciler.observation import Setback
from reconciler.paths import digest_by_pattern
from reconciler.secrets.merge import merge
from reconciler.spec.model import Service
from reconciler.unbuilt import unbuilt_in_service

__all__ = [
    "Desired",
    "DesiredResource",
    "DesiredService",
    "DesiredSync",
    "DesiredTarget",
    "Facts",
    "Revision",
    "SecretsKey",
    "ignore_file_path",
    "make_desired",
    "project_revision",
]


def make_desired(facts: Facts) -> Desired:
    """The hash that every resource of the spec should have, given what was looked up."""
    spec = facts.spec
    syncs = [
        desired_sync(facts, project, target)
        for project in spec.projects.values()
        for target in project.sync.targets
    ]
    by_project: dict[str, list[DesiredSync]] = {}
    for sync in syncs:
        by_project.setdefault(project_id(sync.project), []).append(sync)
    services = [
        with_project(facts, _desired_service(facts, service), by_project) for service in spec.services
    ]
    groups = {id: [sync.id for sync in each] for id, each in by_project.items()}
    resources: tuple[AnyDesired, ...] = (
        *(desired_target(facts, target) for target in spec.secret_targets.values()),
        *(replace(sync, depends_on=(*_expand(sync.depends_on, groups), *_build(sync))) for sync in syncs),
        *(replace(service, depends_on=_expand(service.depends_on, groups)) for service in services),
    )
    builds = {sync.id: build_id(sync.project) for sync in syncs if _build(sync)}
    others = (
        *(f"environments/{name}" for name in spec.environments),
        *(f"nodes/{name}" for name in spec.nodes),
        *(f"secrets/{name}" for name in spec.secret_sources),
    )
    return Desired(facts.spec_revision, resources, builds, others, spec.limits.max_prune)


def _build(sync: DesiredSync) -> tuple[str, ...]:
    """Never expanded: a build has the id of its project, on whose targets others depend by that id."""
    return (build_id(sync.project),) if sync.project.build and sync.returned is None else ()


def _expand(depends_on: Iterable[str], groups: Mapping[str, list[str]]) -> tuple[str, ...]:
    """A dependency on a project is one on each of its targets."""
    return tuple(one for dependency in depends_on for one in groups.get(dependency, [dependency]))


def _desired_service(facts: Facts, service: Service) -> DesiredService:
    resource = DesiredService(id=service.id, depends_on=service.depends_on, service=service)
    try:
        if (unbuilt := unbuilt_in_service(service)) is not None:
            return replace(resource, setback=unbuilt)
        if service.suspend:
            return replace(resource, setback=suspended(service.name))
        where = f"environments/{service.environment}"
        if (by := suspended_by_operator(facts, resource.id, where)) is not None:
            return replace(resource, setback=by)
        revision = facts.releases[service.unit, service.environment]
        if isinstance(revision, Setback):
            return replace(resource, setback=revision)
        paths = facts.commits[revision.commit]
        if isinstance(paths, Setback):
            return replace(resource, setback=paths)
        check_patterns([*service.paths, *service.shared_paths])
        merged = merge(
            env=service.env,
            secrets=used_secrets(facts, service.secrets, service.environment),
            environ=own_variables(facts, service.environ),
            precedence=service.precedence,
        )
    except SetbackRaised as raised:
        return replace(resource, setback=raised.setback)
    except TrueupError as error:
        return replace(resource, setback=Setback.of(error))
    public = {
        "deploy": digest(msgspec.to_builtins(service.deploy)),
        **digest_by_pattern(paths, service.paths),
        **{f"shared {p}": paths.digest((p,)) for p in service.shared_paths},
    }
    split = split_inputs(facts, resource.id, merged, service.env)
    inputs = Inputs({**public, **split.public}, split.keyed)
    return replace(
        resource,
        revision=revision,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=split.soft,
        keys=split.keys,
        degraded=any((use.source, service.environment) in facts.degraded for use in service.secrets),
        merged=merged,
        passed_on=split.passed_on,
    )
