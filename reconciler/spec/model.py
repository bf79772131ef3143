"""The spec as a frozen model: defaults filled in, environments' overrides resolved, references checked.

Durations are seconds, sizes are bytes, rates are bytes a second. Every name is the key under which
the resource stands in the YAML document. Nothing here holds a secret value.
"""

from enum import StrEnum
from typing import Literal

from reconciler.spec.secret_model import (
    AgeSettings,
    Credential,
    EnvCredential,
    EnvFileSettings,
    EnvironSettings,
    FileCredential,
    GithubActionsSettings,
    InfisicalSettings,
    Model,
    SecretCredential,
    SecretSource,
    SecretTarget,
    SecretUse,
    SopsSettings,
    SourceSettings,
    TargetKey,
)

__all__ = [
    "DEFAULT_PRECEDENCE",
    "AgeSettings",
    "AgentDeploy",
    "Build",
    "ComposeDeploy",
    "Credential",
    "Deploy",
    "DirectorySource",
    "DokployDeploy",
    "EnvCredential",
    "EnvFileSettings",
    "EnvironSettings",
    "Environment",
    "FileCredential",
    "GithubActionsSettings",
    "Health",
    "InfisicalSettings",
    "InvokeDeploy",
    "Limits",
    "ManualDeploy",
    "Move",
    "Node",
    "Notification",
    "Precedence",
    "Project",
    "ReleasePolicy",
    "RenderedFile",
    "Repository",
    "Retry",
    "SecretCredential",
    "SecretSource",
    "SecretTarget",
    "SecretUse",
    "Service",
    "SopsSettings",
    "SourceSettings",
    "Spec",
    "SyncRules",
    "SyncTarget",
    "TargetKey",
    "Unit",
    "Verify",
    "Window",
]


# --- repositories and environments -------------------------------------------------------------


class Limits(Model, frozen=True, kw_only=True):
    max_parallel_steps: int = 8
    max_parallel_tasks: int = 16
    max_prune: float = 0.5
    """Share of the recorded resources, 0 to 1, that one pass may forget."""


class Unit(Model, frozen=True, kw_only=True):
    """What is versioned together. Its name is `<repository>` or `<repository>/<unit>`."""

    name: str
    repository: str
    tag_prefix: str = ""
    paths: tuple[str, ...] = ()


class Verify(Model, frozen=True, kw_only=True):
    signatures: Literal["none", "tag", "commit"] = "none"
    allowed_signers: str | None = None


class GithubReporting(Model, frozen=True, kw_only=True):
    """Where the repository is at GitHub, and what is told there of its releases."""

    repo: str
    token: Credential | None = None
    releases: bool = True
    commit_status: bool = True


class Repository(Model, frozen=True, kw_only=True):
    name: str
    url: str
    branch: str = "main"
    verify: Verify = Verify()
    github: GithubReporting | None = None
    """None: nothing is told."""
    units: dict[str, Unit] = {}
    """By unit name without the repository; empty: the repository itself is the one unit."""


class ReleasePolicy(Model, frozen=True, kw_only=True):
    from_branch: str | None = None
    promote_from: str | None = None
    bump: Literal["patch", "minor", "major"] | None = None
    cut: Literal["reconciler", "external"] = "reconciler"
    approval: Literal["none", "manual"] = "none"
    soak: float | None = None
    """How long the source must have run a release before it is promoted by itself; None: by command."""

    @property
    def bump_or_default(self) -> Literal["patch", "minor", "major"]:
        """Which number a release raises: a promotion the minor one, all others the patch."""
        return self.bump or ("minor" if self.promote_from is not None else "patch")


class Window(Model, frozen=True, kw_only=True):
    allow: str | None = None
    deny: str | None = None
    timezone: str = "UTC"


class Environment(Model, frozen=True, kw_only=True):
    name: str
    release: ReleasePolicy = ReleasePolicy()
    spec_from: Literal["head", "release"] = "head"
    windows: tuple[Window, ...] = ()
    on_failure: Literal["rollback", "hold", "continue"] = "continue"


# --- services ----------------------------------------------------------------------------------


class InvokeDeploy(Model, frozen=True, kw_only=True, tag="invoke", tag_field="kind"):
    task: str
    args: tuple[str, ...] = ()
    workdir: str = "."
    timeout: float = 1800.0


class ComposeDeploy(Model, frozen=True, kw_only=True, tag="compose", tag_field="kind"):
    file: str = "compose.yaml"
    project_name: str | None = None
    workdir: str = "."
    timeout: float = 600.0


class DokployDeploy(Model, frozen=True, kw_only=True, tag="dokploy", tag_field="kind"):
    server: str
    compose_id: str
    api_key: Credential
    file: str = "compose.yaml"
    timeout: float = 600.0


class AgentDeploy(Model, frozen=True, kw_only=True, tag="agent", tag_field="kind"):
    project: str
    command: str
    on_failure: Literal["stop", "continue"] = "stop"
    timeout: float = 600.0
    remove_command: str | None = None


class ManualDeploy(Model, frozen=True, kw_only=True, tag="manual", tag_field="kind"):
    pass


Deploy = InvokeDeploy | ComposeDeploy | DokployDeploy | AgentDeploy | ManualDeploy


class Health(Model, frozen=True, kw_only=True):
    http: str | None = None
    tcp: str | None = None
    command: tuple[str, ...] = ()
    timeout: float = 60.0
    interval: float = 2.0


class Precedence(StrEnum):
    """Where a variable may come from."""

    ENV = "env"
    SECRETS = "secrets"
    ENVIRON = "environ"


DEFAULT_PRECEDENCE = (Precedence.ENV, Precedence.SECRETS, Precedence.ENVIRON)


class Service(Model, frozen=True, kw_only=True):
    """One service in one environment, with that environment's overrides applied."""

    name: str
    environment: str
    repository: str
    unit: str
    paths: tuple[str, ...] = ()
    """gitignore patterns over the paths of the repository; empty: the whole repository."""
    shared_paths: tuple[str, ...] = ()
    """Patterns whose changes concern every service of the repository."""
    secrets: tuple[SecretUse, ...] = ()
    env: dict[str, str] = {}
    precedence: tuple[Precedence, ...] = DEFAULT_PRECEDENCE
    """Strongest first."""
    environ: tuple[str, ...] = ()
    deploy: Deploy
    health: Health | None = None
    depends_on: tuple[str, ...] = ()
    """Resource ids: `services/<env>/<name>` or `projects/<env>/<name>`."""
    suspend: bool = False

    @property
    def id(self) -> str:
        return f"services/{self.environment}/{self.name}"


# --- nodes and projects ------------------------------------------------------------------------


class Node(Model, frozen=True, kw_only=True):
    id: str
    name: str = ""
    labels: dict[str, str] = {}
    token_key: str
    """`ed25519:<base64>`: the public half of the node's token."""
    fingerprint: str | None = None
    """Optional pin: SHA-256 of the agent certificate's public key (SPKI), lower-case hex."""
    bandwidth: float | None = None
    """Bytes a second that all projects together may send to it."""


class Build(Model, frozen=True, kw_only=True):
    task: str
    timeout: float = 600.0


class RenderedFile(Model, frozen=True, kw_only=True):
    """A file made in memory and placed in a target; its path is reserved there."""

    path: str
    format: Literal["dotenv", "json", "yaml"] | None = None
    template: str | None = None
    mode: int = 0o600
    owner: str | None = None
    group: str | None = None
    secrets: tuple[SecretUse, ...] = ()
    env: dict[str, str] = {}


class Retry(Model, frozen=True, kw_only=True):
    attempts: int = 5
    backoff: float = 1.0
    max_backoff: float = 300.0


class SyncTarget(Model, frozen=True, kw_only=True):
    """One project on one node, at one path: labels resolved, overrides applied."""

    node: str
    target_path: str
    strategy: Literal["mirror", "overlay", "release"]
    keep: int = 3
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class SyncRules(Model, frozen=True, kw_only=True):
    enabled: bool = True
    driver: Literal["agent"] = "agent"
    max_parallel_nodes: int = 2
    ignore_defaults: bool = True
    ignore_patterns: tuple[str, ...] = ()
    ignore_file: str | None = None
    ignore_permissions: bool = False
    owners: Literal["none", "names"] = "none"
    delete_foreign: bool = False
    max_delete: float = 0.5
    on_local_edit: Literal["overwrite", "keep", "backup"] = "overwrite"
    on_drift: Literal["heal", "report"] = "heal"
    on_unreachable: Literal["skip", "block"] = "skip"
    durability: Literal["none", "commit", "paced"] = "commit"
    bandwidth: float | None = None
    """Bytes a second that the project may send to each node."""
    compression: Literal["auto", "on", "off"] = "auto"
    retry: Retry = Retry()
    targets: tuple[SyncTarget, ...] = ()


class DirectorySource(Model, frozen=True, kw_only=True):
    directory: str
    watch: bool = False


class Project(Model, frozen=True, kw_only=True):
    id: str
    name: str = ""
    repository: str | None = None
    unit: str | None = None
    source: DirectorySource | None = None
    environment: str | None = None
    branch: str | None = None
    path: str = "."
    build: Build | None = None
    sync: SyncRules = SyncRules()
    files: tuple[RenderedFile, ...] = ()
    after: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    suspend: bool = False

    @property
    def scope(self) -> str:
        """The environment, or `branch` for a project that follows a branch or a directory."""
        return self.environment or "branch"


class Move(Model, frozen=True, kw_only=True):
    old: str
    new: str
    not_in: tuple[str, ...] = ()
    """Environments whose releases have the old name yet: there nothing is renamed so far."""


class Notification(Model, frozen=True, kw_only=True):
    url: Credential
    on: tuple[str, ...] = ("failed", "recovered")


class Spec(Model, frozen=True, kw_only=True):
    """A whole valid spec. `revision` is the commit it was read at, `hash` is SHA-256 of its meaning."""

    version: Literal[1]
    limits: Limits = Limits()
    repositories: dict[str, Repository] = {}
    units: dict[str, Unit] = {}
    environments: dict[str, Environment] = {}
    secret_sources: dict[str, SecretSource] = {}
    secret_targets: dict[str, SecretTarget] = {}
    services: tuple[Service, ...] = ()
    """One entry for each service in each of its environments, ordered by id."""
    nodes: dict[str, Node] = {}
    projects: dict[str, Project] = {}
    moved: tuple[Move, ...] = ()
    notifications: tuple[Notification, ...] = ()
    hash: str = ""

    def project_of(self, service: Service) -> Project | None:
        """The project that a service of kind `agent` deploys: of its environment, or one that has none.

        Where releases bring revisions of their own, another environment may have one of that id too.
        """
        deploy = service.deploy
        if not isinstance(deploy, AgentDeploy):
            return None
        named = [each for each in self.projects.values() if each.id == deploy.project]
        return next(
            (each for scope in (service.environment, None) for each in named if each.environment == scope),
            None,
        )
