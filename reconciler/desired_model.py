"""What is wanted, as data: the facts of a pass, and for each resource its inputs and hash. Pure.

Also what services and projects share on the way there: splitting an environment into what may be published
and what only its fingerprint may be.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from agent.wire.messages import RenderedContent
from reconciler.control.records import Record
from reconciler.control.state import ControlState
from reconciler.hashing import ConfigHash, Inputs, digest
from reconciler.observation import Setback
from reconciler.paths import CommitPaths
from reconciler.secrets.merge import Collision, Merged
from reconciler.secrets.values import Secret, SecretValue
from reconciler.spec.model import (
    GithubActionsSettings,
    Project,
    SecretTarget,
    SecretUse,
    Service,
    Spec,
    SyncTarget,
)
from reconciler.status.conditions import Reason


@dataclass(frozen=True, slots=True)
class Revision:
    """What a unit runs: the commit, and the tag or branch through which it was chosen."""

    ref: str
    commit: str
    spec_revision: str | None = None
    """The commit of the spec that a release was made with, where its tag says so."""
    form: Literal["sha1", "sha256"] = "sha1"
    """`sha256`: no commit, but the digest of the tree in a directory, whose `ref` is DIRECTORY."""

    def __str__(self) -> str:
        return f"{self.ref}@{self.form}:{self.commit}"


DIRECTORY: Final = "dir"
"""What stands for a branch in the revision of a directory: `dir@sha256:<digest of its tree>`."""

DirectoryKey = tuple[str, tuple[str, ...], tuple[str, ...]]
"""(project, include, exclude): targets that differ in neither get the same tree."""


def directory_key(project: Project, target: SyncTarget) -> DirectoryKey:
    return project.id, target.include, target.exclude


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """What was found in the directory that a project is synced from."""

    digest: str
    """Of the tree that goes to its targets (`agent.index.tree_digest`), in hex, and of its owners where they
    count."""
    ignore: tuple[str, ...]
    """gitignore lines: what of it is left out."""
    templates: Mapping[str, str | Setback | None] = field(default_factory=dict)
    """Text of the templates that rendered files name, by path; None: not there."""
    owners: bytes = b""
    """The digest of its owners (`agent.ownership`); empty where they do not count."""


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
    templates: Mapping[tuple[str, str], str | Setback | None]
    """Text of the templates that rendered files name, in the same way."""
    secrets: Mapping[SecretsKey, Mapping[str, SecretValue] | Setback]
    degraded: Collection[SecretsKey]
    """Those of `secrets` that a stale value or a fallback serves because the source itself failed."""
    environ: Mapping[str, Secret | Setback]
    """The primary's own variables that services name, where they are set."""
    hash_key: bytes
    key_id: str
    suspended: ControlState = field(default_factory=ControlState)
    """What operators have suspended, over what the spec says."""
    directories: Mapping[DirectoryKey, DirectoryFacts | Setback] = field(default_factory=dict)
    """Of projects that have no repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredResource:
    """What services and sync targets have in common. Without a `setback`, `revision` and `hash` are set."""

    id: str
    revision: Revision | None = None
    inputs: Inputs = field(default_factory=Inputs)
    hash: ConfigHash | None = None
    soft_inputs: frozenset[str] = frozenset()
    """Keyed inputs whose values are stale or from a fallback; their change alone causes no step."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The key in its source of each keyed input that has another name there."""
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
    follows: tuple[str, ...] = ()
    """Sync targets after each of whose syncs it has to be deployed."""
    passed_on: tuple[Secret, ...] = ()
    """Those of its values that are the primary's own variables: of no source, and yet maybe secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredSync(DesiredResource):
    """One project at one path on one node."""

    project: Project
    target: SyncTarget
    rendered: tuple[RenderedContent, ...] = ()
    collisions: Mapping[str, tuple[Collision, ...]] = field(default_factory=dict)
    """By rendered file: its variables that several places give."""
    merged: Mapping[str, Merged] = field(default_factory=dict)
    """By rendered file: all its variables."""
    ignore: tuple[str, ...] = ()
    """gitignore lines: what is neither sent nor deleted."""
    owners: bytes = b""
    """The digest of the owners of its tree; empty where they do not count."""
    returned: Record | None = None
    """The operator's decision by which the target stays at a release that it keeps."""

    @property
    def keeps_edits(self) -> bool:
        """Whether what was edited on the host stays."""
        return self.project.sync.on_local_edit == "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredTarget(DesiredResource):
    """Secrets in another system. Its keyed inputs are the names they have there."""

    target: SecretTarget
    values: Mapping[str, SecretValue] = field(default_factory=dict, repr=False)
    """By those names; none where the source has to export them."""
    origin: GithubActionsSettings | None = None
    """The source that exports them, as its values cannot be read."""


AnyDesired = DesiredService | DesiredSync | DesiredTarget


@dataclass(frozen=True, slots=True)
class Desired:
    spec_revision: str
    resources: tuple[AnyDesired, ...]
    builds: Mapping[str, str]
    """Sync target id -> id of the build it needs first."""
    others: tuple[str, ...] = ()
    """Ids of what the spec names besides: environments, nodes and secret sources."""
    max_prune: float = 0.5

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(resource.id for resource in self.resources) | frozenset(self.others)

    def services(self) -> dict[str, DesiredService]:
        return {one.id: one for one in self.resources if isinstance(one, DesiredService)}

    def syncs(self) -> dict[str, DesiredSync]:
        return {one.id: one for one in self.resources if isinstance(one, DesiredSync)}

    def targets(self) -> dict[str, DesiredTarget]:
        return {one.id: one for one in self.resources if isinstance(one, DesiredTarget)}


@dataclass(frozen=True, slots=True)
class Split:
    """The inputs that an environment adds: values of the spec in the open, all others by fingerprint."""

    public: dict[str, str]
    keyed: dict[str, str]
    soft: frozenset[str]
    keys: dict[str, str]
    passed_on: tuple[Secret, ...]


def split_inputs(
    facts: Facts, target: str, merged: Merged, env: Mapping[str, str], prefix: str = ""
) -> Split:
    public: dict[str, str] = {}
    keyed: dict[str, str] = {}
    soft: set[str] = set()
    keys: dict[str, str] = {}
    passed_on: list[Secret] = []
    for variable, value in merged.variables.items():
        name = prefix + variable
        if isinstance(value, SecretValue):
            secret = value.value
            if not value.may_cause_change:
                soft.add(name)
            if value.key != variable:
                keys[name] = value.key
        elif env.get(variable) == value:
            public[f"{prefix}env {variable}"] = _digest_of(value)
            continue
        else:
            secret = Secret(value)
            passed_on.append(secret)
        keyed[name] = secret.fingerprint(facts.hash_key, target, name)
    return Split(public, keyed, frozenset(soft), keys, tuple(passed_on))


@lru_cache(maxsize=4096)
def _digest_of(value: str) -> str:
    """Of what stands in the spec, and there in a thousand services alike."""
    return digest(value)


class SetbackRaised(Exception):
    def __init__(self, setback: Setback) -> None:
        self.setback = setback


def used_secrets(
    facts: Facts, uses: Iterable[SecretUse], environment: str
) -> list[tuple[SecretUse, Mapping[str, SecretValue]]]:
    found: list[tuple[SecretUse, Mapping[str, SecretValue]]] = []
    for use in uses:
        values = facts.secrets[use.source, environment]
        if isinstance(values, Setback):
            raise SetbackRaised(values)
        found.append((use, values))
    return found


def own_variables(facts: Facts, names: Iterable[str]) -> dict[str, str]:
    passed: dict[str, str] = {}
    for name in names:
        value = facts.environ.get(name)
        if isinstance(value, Setback):
            raise SetbackRaised(value)
        if value is not None:
            passed[name] = value.reveal()
    return passed


def suspended_by_operator(facts: Facts, *ids: str) -> Setback | None:
    """Whether somebody has suspended one of these: a resource itself, its project or its environment."""
    for id in ids:
        record = facts.suspended.suspension_of(id)
        if record is not None:
            why = f": {record.reason}" if record.reason else ""
            return Setback(
                Reason.SUSPENDED,
                f"{record.resource} is suspended by {record.by}{why}; "
                f"`trueup resume {record.resource}` ends it",
                blocks=False,
            )
    return None


def suspended(name: str) -> Setback:
    return Setback(Reason.SUSPENDED, f"{name} is suspended in the spec; remove `suspend: true`", blocks=False)
