"""The desired state of a sync target: one project at one path on one node. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from agent.ignore import DEFAULT_IGNORES
from agent.wire.messages import RenderedContent
from reconciler.desired_model import (
    DIRECTORY,
    DesiredSync,
    DirectoryFacts,
    Facts,
    Revision,
    SetbackRaised,
    directory_key,
    split_inputs,
    suspended,
    suspended_by_operator,
    used_secrets,
)
from reconciler.errors import TrueupError
from reconciler.hashing import Inputs, config_hash, digest
from reconciler.identity import project_id, sync_id
from reconciler.observation import Setback
from reconciler.returned import with_release
from reconciler.secrets.merge import Collision, Merged, merge
from reconciler.secrets.render import render
from reconciler.spec.model import Precedence, Project, RenderedFile, Spec, SyncRules, SyncTarget
from reconciler.status.conditions import Reason


def desired_sync(facts: Facts, project: Project, target: SyncTarget) -> DesiredSync:
    resource = DesiredSync(
        id=sync_id(project, target),
        depends_on=project.depends_on,
        heals_drift=project.sync.on_drift == "heal",
        may_be_unreachable=project.sync.on_unreachable == "skip",
        project=project,
        target=target,
    )
    if project.suspend:
        return replace(resource, setback=suspended(project.id))
    ids = (resource.id, project_id(project), f"environments/{project.environment}", f"nodes/{target.node}")
    if (by := suspended_by_operator(facts, *ids)) is not None:
        return replace(resource, setback=by)
    if not project.sync.enabled:
        message = f"the sync of {project.id} is off in the spec; remove `enabled: false`"
        return replace(resource, setback=Setback(Reason.SUSPENDED, message, blocks=False))
    if (returned := facts.suspended.returned.get(resource.id)) is not None and target.strategy == "release":
        return with_release(facts, resource, returned)
    origin = _from_directory(facts, project, target) if project.source else _from_repository(facts, project)
    if isinstance(origin, Setback):
        return replace(resource, setback=origin)
    rules = project.sync
    public = {
        content_input(project): origin.content,
        "target": digest(msgspec.to_builtins(target)),
        "rules": digest([origin.ignore, rules.ignore_permissions, rules.delete_foreign, *_owners(rules)]),
        "after": digest(project.after),
    }
    if project.build is not None:
        public["build"] = digest(project.build.task)
    resource = replace(
        resource,
        revision=origin.revision,
        inputs=Inputs(public, {}),
        ignore=origin.ignore,
        owners=origin.owners,
    )
    try:
        return _with_files(facts, resource, project)
    except SetbackRaised as raised:
        return replace(resource, setback=raised.setback)
    except TrueupError as error:
        return replace(resource, setback=Setback.of(error))


def content_input(project: Project) -> str:
    """The input that says what the tree of a project's targets holds."""
    return f"path {project.path}"


def _owners(rules: SyncRules) -> list[str]:
    """Nothing where they do not count, as was once the rule: what was synced then is not synced anew."""
    return [rules.owners] if rules.owners != "none" and not rules.ignore_permissions else []


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where the tree of a target comes from: which one, a digest of its content, what is left out of it, and
    the digest of its owners where they count."""

    revision: Revision
    content: str
    ignore: tuple[str, ...]
    owners: bytes = b""


def _from_directory(facts: Facts, project: Project, target: SyncTarget) -> _Origin | Setback:
    found = facts.directories[directory_key(project, target)]
    if isinstance(found, Setback):
        return found
    return _Origin(Revision(DIRECTORY, found.digest, form="sha256"), found.digest, found.ignore, found.owners)


def _from_repository(facts: Facts, project: Project) -> _Origin | Setback:
    revision = project_revision(facts.spec, project, facts.releases, facts.branches)
    if isinstance(revision, Setback):
        return revision
    paths = facts.commits[revision.commit]
    if isinstance(paths, Setback):
        return paths
    if project.build is None and not paths.has_directory(project.path):
        message = f"`{project.path}` does not exist in {revision}; correct projects.{project.id}.path"
        return Setback(Reason.REVISION_NOT_FOUND, message)
    ignore_file = ""
    if project.sync.ignore_file is not None:
        text = facts.ignore_files[revision.commit, ignore_file_path(project)]
        if isinstance(text, Setback):
            return text
        if text is None:
            message = f"`{ignore_file_path(project)}` does not exist in {revision}; correct sync.ignore_file"
            return Setback(Reason.REVISION_NOT_FOUND, message)
        ignore_file = text
    # A build may read anything of its checkout.
    content = paths.below("." if project.build else project.path)
    return _Origin(revision, content, ignore_lines(project, ignore_file))


def ignore_lines(project: Project, ignore_file: str) -> tuple[str, ...]:
    """The gitignore lines of a project, given the text of its ignore file."""
    rules = project.sync
    return (
        *(DEFAULT_IGNORES if rules.ignore_defaults else ()),
        *rules.ignore_patterns,
        *ignore_file.splitlines(),
    )


def _with_files(facts: Facts, resource: DesiredSync, project: Project) -> DesiredSync:
    """With the files that are rendered in memory, and the hash over everything."""
    rendered: list[RenderedContent] = []
    collisions: dict[str, tuple[Collision, ...]] = {}
    by_file: dict[str, Merged] = {}
    public, keyed = dict(resource.inputs.public), dict(resource.inputs.keyed)
    soft: set[str] = set()
    keys: dict[str, str] = {}
    for file in project.files:
        merged = merge(
            env=file.env,
            secrets=used_secrets(facts, file.secrets, project.environment or ""),
            environ={},
            precedence=(Precedence.ENV, Precedence.SECRETS),
        )
        collisions[file.path] = merged.collisions
        by_file[file.path] = merged
        template = _template(facts, resource, file)
        if file.template is not None:
            public[f"template {file.template}"] = digest(template)
        rendered.append(
            RenderedContent(
                path=file.path,
                content=render(file, merged, template),
                mode=file.mode,
                owner=file.owner or "",
                group=file.group or "",
            )
        )
        split = split_inputs(facts, resource.id, merged, file.env, prefix=f"{file.path} ")
        form = digest([file.format, file.template, file.mode, file.owner, file.group])
        public |= {f"file {file.path}": form, **split.public}
        keyed |= split.keyed
        soft |= split.soft
        keys |= split.keys
    inputs = Inputs(public, keyed)
    return replace(
        resource,
        rendered=tuple(rendered),
        collisions=collisions,
        merged=by_file,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=frozenset(soft),
        keys=keys,
        degraded=any(
            (use.source, project.environment or "") in facts.degraded
            for file in project.files
            for use in file.secrets
        ),
    )


def _template(facts: Facts, resource: DesiredSync, file: RenderedFile) -> str:
    """The text of the template that a file names; nothing for one without. Raises SetbackRaised."""
    if file.template is None:
        return ""
    assert resource.revision is not None  # files come last
    text: str | Setback | None
    where = "the repository"
    if resource.project.source is not None:
        found = facts.directories[directory_key(resource.project, resource.target)]
        assert isinstance(found, DirectoryFacts)  # otherwise there is no revision
        text, where = found.templates[file.template], "the directory"
    else:
        text = facts.templates[resource.revision.commit, file.template]
    if isinstance(text, Setback):
        raise SetbackRaised(text)
    if text is None:
        message = (
            f"`{file.template}` does not exist in {resource.revision}; correct the `template` of "
            f"{file.path}, which is named from the root of {where}"
        )
        raise SetbackRaised(Setback(Reason.REVISION_NOT_FOUND, message))
    return text


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
    assert project.repository is not None
    if project.environment is not None and project.unit is not None:
        return releases[project.unit, project.environment]
    return branches[project.repository, project.branch or spec.repositories[project.repository].branch]
