"""The desired state: for each service and each sync target the hash it should have, and why. Pure.

Everything that had to be looked up is in `Facts`; what could not be looked up is there as a `Setback`,
and travels with the resource instead of failing the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from agent.wire.messages import RenderedContent
from reconciler.errors import TrueupError
from reconciler.hashing import ConfigHash, Inputs, config_hash, digest, fingerprint
from reconciler.identity import build_id, sync_id
from reconciler.observation import Setback
from reconciler.paths import CommitPaths, digest_by_pattern
from reconciler.secrets.merge import Merged, merge
from reconciler.secrets.render import render
from reconciler.secrets.values import SecretValue
from reconciler.spec.model import Precedence, Project, SecretUse, Service, Spec, SyncTarget
from reconciler.status.conditions import Reason
from reconciler.unbuilt import unbuilt_in_project, unbuilt_in_service


@dataclass(frozen=True, slots=True)
class Revision:
    """What a unit runs: the commit, and the tag or branch through which it was chosen."""

    ref: str
    commit: str

    def __str__(self) -> str:
        return f"{self.ref}@sha1:{self.commit}"


SecretsKey = tuple[str, str]
"""(source, environment)"""

IGNORED_BY_DEFAULT = (".git", "runtime", "tmp")
"""gitignore lines of every project that does not say `ignore_defaults: false`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything looked up in git and in the secret sources for one pass."""

    spec: Spec
    spec_revision: str
    releases: Mapping[tuple[str, str], Revision | Setback]
    """By (unit, environment)."""
    branches: Mapping[tuple[str, str], Revision | Setback]
    """By (repository, branch)."""
    commits: Mapping[str, CommitPaths]
    ignore_files: Mapping[tuple[str, str], str | None]
    """Text of the ignore files that projects name, by (commit, path); None: not in that commit."""
    secrets: Mapping[SecretsKey, Mapping[str, SecretValue] | Setback]
    environ: Mapping[str, str]
    """The primary's own variables, from which services may name some."""
    hash_key: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class DesiredResource:
    """One service in one environment, or one project at one place on one node."""

    id: str
    action: str
    """`deploy` or `sync`: the step that establishes it."""
    revision: Revision | None = None
    inputs: Inputs = field(default_factory=Inputs)
    hash: ConfigHash | None = None
    soft_inputs: frozenset[str] = frozenset()
    """Keyed inputs whose values are stale or from a fallback; their change alone causes no step."""
    depends_on: tuple[str, ...] = ()
    setback: Setback | None = None
    heals_drift: bool = True
    blocks_when_unknown: bool = True
    service: Service | None = None
    project: Project | None = None
    target: SyncTarget | None = None
    variables: Mapping[str, str | SecretValue] = field(default_factory=dict, repr=False)
    rendered: tuple[RenderedContent, ...] = ()
    ignore: tuple[str, ...] = ()
    """gitignore lines: what is neither sent nor deleted."""


@dataclass(frozen=True, slots=True)
class Desired:
    spec_revision: str
    resources: tuple[DesiredResource, ...]
    builds: Mapping[str, str]
    """Sync target id -> id of the build it needs first."""
    max_prune: float = 0.5

    def by_id(self) -> dict[str, DesiredResource]:
        return {resource.id: resource for resource in self.resources}


def make_desired(facts: Facts) -> Desired:
    """The hash that every resource of the spec should have, given what was looked up."""
    spec = facts.spec
    syncs = [
        _desired_sync(facts, project, target)
        for project in spec.projects.values()
        if project.sync.enabled
        for target in project.sync.targets
    ]
    services = [_desired_service(facts, service) for service in spec.services]
    groups: dict[str, list[str]] = {}
    for sync in syncs:
        assert sync.project is not None
        groups.setdefault(f"projects/{sync.project.scope}/{sync.project.id}", []).append(sync.id)
    resources = [
        replace(resource, depends_on=_expand(resource.depends_on, groups)) for resource in (*syncs, *services)
    ]
    builds = {
        sync.id: build_id(sync.project) for sync in syncs if sync.project is not None and sync.project.build
    }
    return Desired(facts.spec_revision, tuple(resources), builds, spec.limits.max_prune)


def _expand(depends_on: Iterable[str], groups: Mapping[str, list[str]]) -> tuple[str, ...]:
    """A dependency on a project is one on each of its targets."""
    return tuple(one for dependency in depends_on for one in groups.get(dependency, [dependency]))


# --- services ----------------------------------------------------------------------------------


def _desired_service(facts: Facts, service: Service) -> DesiredResource:
    resource = DesiredResource(service.id, "deploy", depends_on=service.depends_on, service=service)
    try:
        environment = facts.spec.environments[service.environment]
        repository = facts.spec.repositories[service.repository]
        if (unbuilt := unbuilt_in_service(service, environment, repository)) is not None:
            return replace(resource, setback=unbuilt)
        if service.suspend:
            return replace(resource, setback=_suspended(service.name))
        revision = facts.releases[service.unit, service.environment]
        if isinstance(revision, Setback):
            return replace(resource, setback=revision)
        paths = facts.commits[revision.commit]
        merged = merge(
            env=service.env,
            secrets=_used_secrets(facts, service.secrets, service.environment),
            environ={name: facts.environ[name] for name in service.environ if name in facts.environ},
            precedence=service.precedence,
        )
    except _SetbackRaised as raised:
        return replace(resource, setback=raised.setback)
    except TrueupError as error:
        return replace(resource, setback=Setback.of(error))
    public = {
        "deploy": digest(msgspec.to_builtins(service.deploy)),
        **digest_by_pattern(paths, service.paths),
        **{f"shared {p}": paths.digest((p,)) for p in repository.shared_paths},
        "variables": digest(sorted(merged.variables)),
    }
    return _with_hash(facts, replace(resource, revision=revision), public, merged, service.env)


def _with_hash(
    facts: Facts,
    resource: DesiredResource,
    public: dict[str, str],
    merged: Merged,
    env: Mapping[str, str],
    prefix: str = "",
) -> DesiredResource:
    public, keyed, soft = dict(public), dict(resource.inputs.keyed), set(resource.soft_inputs)
    for name, value in merged.variables.items():
        if isinstance(value, SecretValue):
            plain = value.value.reveal()
            if not value.may_cause_change:
                soft.add(prefix + name)
        elif env.get(name) == value:
            public[f"{prefix}env {name}"] = digest(value)
            continue
        else:
            plain = value  # one of the primary's own variables: it may be a secret, so only its fingerprint shows
        keyed[prefix + name] = fingerprint(
            facts.hash_key, target=resource.id, name=prefix + name, value=plain
        )
    inputs = Inputs({**resource.inputs.public, **public}, keyed)
    return replace(
        resource,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=frozenset(soft),
        variables=merged.variables,
    )


class _SetbackRaised(Exception):
    def __init__(self, setback: Setback) -> None:
        self.setback = setback


def _used_secrets(
    facts: Facts, uses: Iterable[SecretUse], environment: str
) -> list[tuple[SecretUse, Mapping[str, SecretValue]]]:
    found: list[tuple[SecretUse, Mapping[str, SecretValue]]] = []
    for use in uses:
        values = facts.secrets[use.source, environment]
        if isinstance(values, Setback):
            raise _SetbackRaised(values)
        found.append((use, values))
    return found


def _suspended(name: str) -> Setback:
    return Setback(
        Reason.SUSPENDED, f"{name} is suspended in the spec; remove `suspend: true`", blocks=False
    )


# --- projects ----------------------------------------------------------------------------------


def _desired_sync(facts: Facts, project: Project, target: SyncTarget) -> DesiredResource:
    resource = DesiredResource(
        sync_id(project, target),
        "sync",
        depends_on=(*project.depends_on, *((build_id(project),) if project.build else ())),
        heals_drift=project.sync.on_drift == "heal",
        blocks_when_unknown=project.sync.on_unreachable == "block",
        project=project,
        target=target,
    )
    if (unbuilt := unbuilt_in_project(project, target, facts.spec)) is not None:
        return replace(resource, setback=unbuilt)
    if project.suspend:
        return replace(resource, setback=_suspended(project.id))
    revision = project_revision(facts.spec, project, facts.releases, facts.branches)
    if isinstance(revision, Setback):
        return replace(resource, setback=revision)
    paths = facts.commits[revision.commit]
    if project.build is None and not paths.has_directory(project.path):
        message = f"`{project.path}` does not exist in {revision}; correct projects.{project.id}.path"
        return replace(resource, setback=Setback(Reason.REVISION_NOT_FOUND, message))
    rules = project.sync
    ignore = (*(IGNORED_BY_DEFAULT if rules.ignore_defaults else ()), *rules.ignore_patterns)
    if rules.ignore_file is not None:
        text = facts.ignore_files[revision.commit, ignore_file_path(project)]
        if text is None:
            message = f"`{ignore_file_path(project)}` does not exist in {revision}; correct sync.ignore_file"
            return replace(resource, setback=Setback(Reason.REVISION_NOT_FOUND, message))
        ignore += tuple(text.splitlines())
    public = {
        # A build may read anything of its checkout.
        f"path {project.path}": paths.below("." if project.build else project.path),
        "target": digest(msgspec.to_builtins(target)),
        "rules": digest(
            [ignore, rules.ignore_permissions, rules.delete_foreign]
        ),
        "after": digest(project.after),
    }
    if project.build is not None:
        public["build"] = digest(project.build.task)
    resource = replace(resource, revision=revision, inputs=Inputs(public, {}), ignore=ignore)
    resource = _with_hash(facts, resource, {}, Merged({}, ()), {})
    try:
        return _with_files(facts, resource, project)
    except _SetbackRaised as raised:
        return replace(resource, setback=raised.setback)
    except TrueupError as error:
        return replace(resource, setback=Setback.of(error))


def _with_files(facts: Facts, resource: DesiredResource, project: Project) -> DesiredResource:
    rendered: list[RenderedContent] = []
    for file in project.files:
        merged = merge(
            env=file.env,
            secrets=_used_secrets(facts, file.secrets, project.environment or ""),
            environ={},
            precedence=(Precedence.ENV, Precedence.SECRETS),
        )
        rendered.append(
            RenderedContent(
                path=file.path,
                content=render(file, merged),
                mode=file.mode,
                owner=file.owner or "",
                group=file.group or "",
            )
        )
        public = {
            f"file {file.path}": digest([file.format, file.template, file.mode, file.owner, file.group]),
            f"file {file.path} names": digest(sorted(merged.variables)),
        }
        resource = _with_hash(facts, resource, public, merged, file.env, prefix=f"{file.path} ")
    return replace(resource, rendered=tuple(rendered), variables={})


def ignore_file_path(project: Project) -> str:
    """Where a project's ignore file stands in its repository."""
    directory = project.path.strip("/")
    name = project.sync.ignore_file or ""
    return name if directory in ("", ".") else f"{directory}/{name}"


def project_revision(
    spec: Spec,
    project: Project,
    releases: Mapping[tuple[str, str], Revision | Setback],
    branches: Mapping[tuple[str, str], Revision | Setback],
) -> Revision | Setback:
    """What a project of a repository is at: its unit's release in its environment, or the tip of a branch."""
    assert project.repository is not None and project.unit is not None
    if project.environment is not None:
        return releases[project.unit, project.environment]
    return branches[project.repository, project.branch or spec.repositories[project.repository].branch]
