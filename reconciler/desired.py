"""The desired state: for each service and each sync target the hash it should have, and why. Pure.

Everything that had to be looked up is in `Facts`; what could not be looked up is there as a `Setback`,
and travels with the resource instead of failing the others.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from agent.ignore import DEFAULT_IGNORES, check_patterns
from agent.wire.messages import RenderedContent
from reconciler.errors import TrueupError
from reconciler.hashing import ConfigHash, Inputs, config_hash, digest, fingerprint
from reconciler.identity import build_id, sync_id
from reconciler.observation import Setback
from reconciler.paths import CommitPaths, digest_by_pattern
from reconciler.secrets.merge import Merged, merge
from reconciler.secrets.render import render
from reconciler.secrets.values import Secret, SecretValue
from reconciler.spec.model import Precedence, Project, SecretUse, Service, Spec, SyncTarget
from reconciler.status.conditions import Reason
from reconciler.unbuilt import unbuilt_besides, unbuilt_in_project, unbuilt_in_service


@dataclass(frozen=True, slots=True)
class Revision:
    """What a unit runs: the commit, and the tag or branch through which it was chosen."""

    ref: str
    commit: str
    spec_revision: str | None = None
    """The commit of the spec that a release was made with, where its tag says so."""

    def __str__(self) -> str:
        return f"{self.ref}@sha1:{self.commit}"


SecretsKey = tuple[str, str]
"""(source, environment)"""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything looked up in git and in the secret sources for one pass."""

    spec: Spec
    spec_revision: str
    releases: Mapping[tuple[str, str], Revision | Setback]
    """By (unit, environment)."""
    branches: Mapping[tuple[str, str], Revision | Setback]
    """By (repository, branch)."""
    commits: Mapping[str, CommitPaths | Setback]
    ignore_files: Mapping[tuple[str, str], str | Setback | None]
    """Text of the ignore files that projects name, by (commit, path); None: not in that commit."""
    secrets: Mapping[SecretsKey, Mapping[str, SecretValue] | Setback]
    degraded: Collection[SecretsKey]
    """Those of `secrets` that a stale value or a fallback serves because the source itself failed."""
    environ: Mapping[str, Secret | Setback]
    """The primary's own variables that services name, where they are set."""
    hash_key: bytes
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredResource:
    """What services and sync targets have in common. Without a `setback`, `revision` and `hash` are set."""

    id: str
    revision: Revision | None = None
    inputs: Inputs = field(default_factory=Inputs)
    hash: ConfigHash | None = None
    soft_inputs: frozenset[str] = frozenset()
    """Keyed inputs whose values are stale or from a fallback; their change alone causes no step."""
    degraded: bool = False
    """Some source is down and something else serves for it, so a keyed input that is gone proves nothing."""
    depends_on: tuple[str, ...] = ()
    setback: Setback | None = None
    heals_drift: bool = True
    may_be_unreachable: bool = False
    """A host that is away is skipped, and nothing waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredService(DesiredResource):
    """One service in one environment."""

    service: Service
    merged: Merged = field(default_factory=lambda: Merged({}, ()))
    """Its environment."""
    passed_on: tuple[Secret, ...] = ()
    """Those of its values that are the primary's own variables: of no source, and yet maybe secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredSync(DesiredResource):
    """One project at one path on one node."""

    project: Project
    target: SyncTarget
    rendered: tuple[RenderedContent, ...] = ()
    ignore: tuple[str, ...] = ()
    """gitignore lines: what is neither sent nor deleted."""


@dataclass(frozen=True, slots=True)
class Desired:
    spec_revision: str
    resources: tuple[DesiredService | DesiredSync, ...]
    builds: Mapping[str, str]
    """Sync target id -> id of the build it needs first."""
    others: tuple[str, ...] = ()
    """Ids of what the spec names besides: environments, nodes, secret sources and targets."""
    max_prune: float = 0.5
    unbuilt: Mapping[str, Setback] = field(default_factory=dict)
    """By id: what of the others, and of the notifications, is valid and not acted on yet."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(resource.id for resource in self.resources) | frozenset(self.others)

    def services(self) -> dict[str, DesiredService]:
        return {one.id: one for one in self.resources if isinstance(one, DesiredService)}

    def syncs(self) -> dict[str, DesiredSync]:
        return {one.id: one for one in self.resources if isinstance(one, DesiredSync)}


def make_desired(facts: Facts) -> Desired:
    """The hash that every resource of the spec should have, given what was looked up."""
    spec = facts.spec
    syncs = [
        _desired_sync(facts, project, target)
        for project in spec.projects.values()
        for target in project.sync.targets
    ]
    services = [_desired_service(facts, service) for service in spec.services]
    groups: dict[str, list[str]] = {}
    for sync in syncs:
        groups.setdefault(f"projects/{sync.project.scope}/{sync.project.id}", []).append(sync.id)
    resources: tuple[DesiredService | DesiredSync, ...] = (
        *(replace(sync, depends_on=(*_expand(sync.depends_on, groups), *_build(sync))) for sync in syncs),
        *(replace(service, depends_on=_expand(service.depends_on, groups)) for service in services),
    )
    builds = {sync.id: build_id(sync.project) for sync in syncs if sync.project.build}
    others = (
        *(f"environments/{name}" for name in spec.environments),
        *(f"nodes/{name}" for name in spec.nodes),
        *(f"secrets/{name}" for name in spec.secret_sources),
        *(f"targets/{name}" for name in spec.secret_targets),
    )
    return Desired(
        facts.spec_revision, resources, builds, others, spec.limits.max_prune, unbuilt_besides(spec)
    )


def _build(sync: DesiredSync) -> tuple[str, ...]:
    """Never expanded: a build has the id of its project, on whose targets others depend by that id."""
    return (build_id(sync.project),) if sync.project.build else ()


def _expand(depends_on: Iterable[str], groups: Mapping[str, list[str]]) -> tuple[str, ...]:
    """A dependency on a project is one on each of its targets."""
    return tuple(one for dependency in depends_on for one in groups.get(dependency, [dependency]))


# --- services ----------------------------------------------------------------------------------


def _desired_service(facts: Facts, service: Service) -> DesiredService:
    resource = DesiredService(id=service.id, depends_on=service.depends_on, service=service)
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
        if isinstance(paths, Setback):
            return replace(resource, setback=paths)
        check_patterns([*service.paths, *repository.shared_paths])
        merged = merge(
            env=service.env,
            secrets=_used_secrets(facts, service.secrets, service.environment),
            environ=_passed_on(facts, service.environ),
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
    }
    split = _split(facts, resource.id, merged, service.env)
    inputs = Inputs({**public, **split.public}, split.keyed)
    return replace(
        resource,
        revision=revision,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=split.soft,
        degraded=any((use.source, service.environment) in facts.degraded for use in service.secrets),
        merged=merged,
        passed_on=split.passed_on,
    )


@dataclass(frozen=True, slots=True)
class _Split:
    """The inputs that an environment adds: values of the spec in the open, all others by fingerprint."""

    public: dict[str, str]
    keyed: dict[str, str]
    soft: frozenset[str]
    passed_on: tuple[Secret, ...]


def _split(facts: Facts, target: str, merged: Merged, env: Mapping[str, str], prefix: str = "") -> _Split:
    public: dict[str, str] = {}
    keyed: dict[str, str] = {}
    soft: set[str] = set()
    passed_on: list[Secret] = []
    for variable, value in merged.variables.items():
        name = prefix + variable
        if isinstance(value, SecretValue):
            plain = value.value.reveal()
            if not value.may_cause_change:
                soft.add(name)
        elif env.get(variable) == value:
            public[f"{prefix}env {variable}"] = digest(value)
            continue
        else:
            plain = value
            passed_on.append(Secret(value))
        keyed[name] = fingerprint(facts.hash_key, target=target, name=name, value=plain)
    return _Split(public, keyed, frozenset(soft), tuple(passed_on))


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


def _passed_on(facts: Facts, names: Iterable[str]) -> dict[str, str]:
    passed: dict[str, str] = {}
    for name in names:
        value = facts.environ.get(name)
        if isinstance(value, Setback):
            raise _SetbackRaised(value)
        if value is not None:
            passed[name] = value.reveal()
    return passed


def _suspended(name: str) -> Setback:
    return Setback(Reason.SUSPENDED, f"{name} is suspended in the spec; remove `suspend: true`", blocks=False)


# --- projects ----------------------------------------------------------------------------------


def _desired_sync(facts: Facts, project: Project, target: SyncTarget) -> DesiredSync:
    resource = DesiredSync(
        id=sync_id(project, target),
        depends_on=project.depends_on,
        heals_drift=project.sync.on_drift == "heal",
        may_be_unreachable=project.sync.on_unreachable == "skip",
        project=project,
        target=target,
    )
    if (unbuilt := unbuilt_in_project(project, target, facts.spec)) is not None:
        return replace(resource, setback=unbuilt)
    if project.suspend:
        return replace(resource, setback=_suspended(project.id))
    if not project.sync.enabled:
        message = f"the sync of {project.id} is off in the spec; remove `enabled: false`"
        return replace(resource, setback=Setback(Reason.SUSPENDED, message, blocks=False))
    revision = project_revision(facts.spec, project, facts.releases, facts.branches)
    if isinstance(revision, Setback):
        return replace(resource, setback=revision)
    paths = facts.commits[revision.commit]
    if isinstance(paths, Setback):
        return replace(resource, setback=paths)
    if project.build is None and not paths.has_directory(project.path):
        message = f"`{project.path}` does not exist in {revision}; correct projects.{project.id}.path"
        return replace(resource, setback=Setback(Reason.REVISION_NOT_FOUND, message))
    rules = project.sync
    ignore = (*(DEFAULT_IGNORES if rules.ignore_defaults else ()), *rules.ignore_patterns)
    if rules.ignore_file is not None:
        text = facts.ignore_files[revision.commit, ignore_file_path(project)]
        if isinstance(text, Setback):
            return replace(resource, setback=text)
        if text is None:
            message = f"`{ignore_file_path(project)}` does not exist in {revision}; correct sync.ignore_file"
            return replace(resource, setback=Setback(Reason.REVISION_NOT_FOUND, message))
        ignore += tuple(text.splitlines())
    public = {
        # A build may read anything of its checkout.
        f"path {project.path}": paths.below("." if project.build else project.path),
        "target": digest(msgspec.to_builtins(target)),
        "rules": digest([ignore, rules.ignore_permissions, rules.delete_foreign]),
        "after": digest(project.after),
    }
    if project.build is not None:
        public["build"] = digest(project.build.task)
    resource = replace(resource, revision=revision, inputs=Inputs(public, {}), ignore=ignore)
    try:
        return _with_files(facts, resource, project)
    except _SetbackRaised as raised:
        return replace(resource, setback=raised.setback)
    except TrueupError as error:
        return replace(resource, setback=Setback.of(error))


def _with_files(facts: Facts, resource: DesiredSync, project: Project) -> DesiredSync:
    """With the files that are rendered in memory, and the hash over everything."""
    rendered: list[RenderedContent] = []
    public, keyed = dict(resource.inputs.public), dict(resource.inputs.keyed)
    soft: set[str] = set()
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
        split = _split(facts, resource.id, merged, file.env, prefix=f"{file.path} ")
        form = digest([file.format, file.template, file.mode, file.owner, file.group])
        public |= {f"file {file.path}": form, **split.public}
        keyed |= split.keyed
        soft |= split.soft
    inputs = Inputs(public, keyed)
    return replace(
        resource,
        rendered=tuple(rendered),
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=frozenset(soft),
        degraded=any(
            (use.source, project.environment or "") in facts.degraded
            for file in project.files
            for use in file.secrets
        ),
    )


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
    assert project.repository is not None  # a directory is unbuilt, and reported before
    if project.environment is not None and project.unit is not None:
        return releases[project.unit, project.environment]
    return branches[project.repository, project.branch or spec.repositories[project.repository].branch]
