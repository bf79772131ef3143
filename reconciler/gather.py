"""Looking things up for a pass: repositories, releases, trees and secrets. It looks and never decides.

What could not be looked up becomes a `Setback` in the facts and concerns only the resources that need it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVarTuple

import trio

from reconciler.desired import Facts, Revision, SecretsKey, ignore_file_path, project_revision
from reconciler.errors import TrueupError
from reconciler.git.mirror import Mirror, Refs, Tag
from reconciler.keys import MasterKey
from reconciler.observation import Setback
from reconciler.paths import CommitPaths
from reconciler.release.choose import choose_release
from reconciler.release.current import Release
from reconciler.repositories import Repositories
from reconciler.secret_uses import asked_environments
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.store import SecretStore
from reconciler.secrets.template import MAX_TEMPLATE, decode_template
from reconciler.secrets.values import Secret, SecretValue, is_text
from reconciler.settings import Settings
from reconciler.spec.model import Spec
from reconciler.status.documents import Recorded
from reconciler.verification import Verification

MAX_PARALLEL_LOOKS = 16
MAX_IGNORE_FILE = 1 << 20

Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, slots=True)
class View:
    """One repository as its mirror knows it after this pass's look."""

    mirror: Mirror
    refs: Refs
    tags: tuple[Tag, ...]


async def gather_facts(
    spec: Spec,
    spec_revision: str,
    *,
    repositories: Repositories,
    store: SecretStore,
    recorded: Recorded,
    settings: Settings,
    key: MasterKey,
    held: Collection[str] = (),
) -> Facts:
    """Everything that `make_desired` needs, looked up concurrently. `held`: environments without news."""
    views: dict[str, View | Setback] = {}
    secrets: dict[SecretsKey, Mapping[str, SecretValue] | Setback] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_view_repositories, spec, repositories, views)
        nursery.start_soon(_fetch_secrets, spec, store, secrets)
    releases, waiting = _choose_releases(spec, views, recorded, held)
    verification = Verification(repositories, settings)
    releases = await verification.releases(spec, releases)
    branches = await verification.branches(spec, await _find_branches(spec, views))
    commits = await _read_commits(
        repositories,
        [
            *((spec.repositories[spec.units[unit].repository].url, r) for (unit, _), r in releases.items()),
            *((spec.repositories[repository].url, r) for (repository, _), r in branches.items()),
        ],
    )
    ignore_files = await _read_ignore_files(views, spec, releases, branches)
    templates = await _read_templates(views, spec, releases, branches)
    return Facts(
        spec=spec,
        spec_revision=spec_revision,
        releases=releases,
        waiting=waiting,
        branches=branches,
        commits=commits,
        ignore_files=ignore_files,
        templates=templates,
        secrets=secrets,
        degraded=_degraded(secrets, store),
        environ=_own_variables(spec, settings),
        hash_key=key.hash_key,
        key_id=key.key_id,
    )


async def _view_repositories(
    spec: Spec, repositories: Repositories, views: dict[str, View | Setback]
) -> None:
    async def look(name: str, url: str) -> None:
        try:
            mirror = repositories.mirror(url)
            refs = await repositories.refresh(url)
            views[name] = View(mirror, refs, await mirror.tags())
        except TrueupError as error:
            views[name] = Setback.of(error)

    await _for_each(look, [(repository.name, repository.url) for repository in spec.repositories.values()])


def _choose_releases(
    spec: Spec, views: Mapping[str, View | Setback], recorded: Recorded, held: Collection[str]
) -> tuple[dict[tuple[str, str], Revision | Setback], dict[tuple[str, str], str]]:
    """The release of every unit in every environment that runs something of it, and the tags held back."""
    wanted = {(service.unit, service.environment) for service in spec.services}
    wanted |= {
        (project.unit, project.environment)
        for project in spec.projects.values()
        if project.unit is not None and project.environment is not None
    }
    releases: dict[tuple[str, str], Revision | Setback] = {}
    waiting: dict[tuple[str, str], str] = {}
    for unit_name, environment in sorted(wanted):
        unit = spec.units[unit_name]
        view = views[unit.repository]
        if isinstance(view, Setback):
            releases[unit_name, environment] = view
            continue
        choose = partial(
            choose_release,
            unit,
            spec.environments[environment],
            recorded_release(recorded, unit_name, environment),
            view.tags,
        )
        release = choose(held=environment in held)
        if environment in held and isinstance(other := choose(), Release) and other != release:
            waiting[unit_name, environment] = other.tag
        if isinstance(release, Release):
            releases[unit_name, environment] = Revision(release.tag, release.commit, release.spec_revision)
        else:
            releases[unit_name, environment] = Setback.of(release)
    return releases, waiting


def _degraded(secrets: Iterable[SecretsKey], store: SecretStore) -> frozenset[SecretsKey]:
    """What was served by something else because its source failed: not one that the spec has disabled."""
    failed = {
        name
        for name, freshness in store.freshness().items()
        if freshness.reason is not None and freshness.state in (SourceState.STALE, SourceState.FALLBACK)
    }
    return frozenset(key for key in secrets if key[0] in failed)


def recorded_release(recorded: Recorded, unit: str, environment: str) -> Release | None:
    """What the status branch says a unit runs in an environment."""
    status = recorded.environments.get(f"environments/{environment}")
    known = status.units.get(unit) if status is not None else None
    if known is None:
        return None
    return Release(known.release.tag, known.release.commit, known.release.spec_revision)


def _own_variables(spec: Spec, settings: Settings) -> dict[str, Secret | Setback]:
    """The primary's own variables that services name, where they are set."""
    found: dict[str, Secret | Setback] = {}
    for name in sorted({name for service in spec.services for name in service.environ}):
        try:
            for value in settings.visible([name]).values():
                found[name] = Secret(value) if is_text(value) else Setback.of(_no_text(name))
        except TrueupError as error:
            found[name] = Setback.of(error)
    return found


def _no_text(name: str) -> VariableUnusable:
    return VariableUnusable(
        f"environ: the value of {name} is not valid text", hint="set it to UTF-8 text; binary data in base64"
    )


async def _find_branches(
    spec: Spec, views: Mapping[str, View | Setback]
) -> dict[tuple[str, str], Revision | Setback]:
    found: dict[tuple[str, str], Revision | Setback] = {}
    for project in spec.projects.values():
        if project.environment is not None or project.repository is None:
            continue
        branch = project.branch or spec.repositories[project.repository].branch
        view = views[project.repository]
        if isinstance(view, Setback):
            found[project.repository, branch] = view
            continue
        try:
            commit = await view.mirror.commit_of(branch)
            found[project.repository, branch] = Revision(branch, commit)
        except TrueupError as error:
            found[project.repository, branch] = Setback.of(error)
    return found


async def _read_commits(
    repositories: Repositories, revisions: Iterable[tuple[str, Revision | Setback]]
) -> dict[str, CommitPaths | Setback]:
    """The paths of each commit that something runs, by (URL, revision); each read once."""
    urls = {revision.commit: url for url, revision in revisions if isinstance(revision, Revision)}
    commits: dict[str, CommitPaths | Setback] = {}

    async def read(commit: str, url: str) -> None:
        try:
            commits[commit] = await repositories.commit_paths(url, commit)
        except TrueupError as error:
            commits[commit] = Setback.of(error)

    await _for_each(read, urls.items())
    return commits


async def _read_ignore_files(
    views: Mapping[str, View | Setback],
    spec: Spec,
    releases: Mapping[tuple[str, str], Revision | Setback],
    branches: Mapping[tuple[str, str], Revision | Setback],
) -> dict[tuple[str, str], str | Setback | None]:
    found: dict[tuple[str, str], str | Setback | None] = {}
    for project in spec.projects.values():
        if project.sync.ignore_file is None or project.repository is None:
            continue
        view, revision = views[project.repository], project_revision(spec, project, releases, branches)
        if isinstance(view, View) and isinstance(revision, Revision):
            path = ignore_file_path(project)
            try:
                content = await view.mirror.read_file(revision.commit, path, max_size=MAX_IGNORE_FILE)
            except TrueupError as error:
                found[revision.commit, path] = Setback.of(error)
            else:
                found[revision.commit, path] = None if content is None else content.decode(errors="replace")
    return found


async def _read_templates(
    views: Mapping[str, View | Setback],
    spec: Spec,
    releases: Mapping[tuple[str, str], Revision | Setback],
    branches: Mapping[tuple[str, str], Revision | Setback],
) -> dict[tuple[str, str], str | Setback | None]:
    found: dict[tuple[str, str], str | Setback | None] = {}
    for project in spec.projects.values():
        names = {file.template for file in project.files if file.template is not None}
        if not names or project.repository is None:
            continue
        view, revision = views[project.repository], project_revision(spec, project, releases, branches)
        if isinstance(view, View) and isinstance(revision, Revision):
            for path in sorted(names):
                try:
                    content = await view.mirror.read_file(revision.commit, path, max_size=MAX_TEMPLATE)
                    found[revision.commit, path] = None if content is None else decode_template(path, content)
                except TrueupError as error:
                    found[revision.commit, path] = Setback.of(error)
    return found


async def _fetch_secrets(
    spec: Spec, store: SecretStore, secrets: dict[SecretsKey, Mapping[str, SecretValue] | Setback]
) -> None:
    """One snapshot a pass: each source that something uses, once for each environment."""
    wanted = [(source, each) for source, all in asked_environments(spec).items() for each in all]

    async def fetch(source: str, environment: str) -> None:
        try:
            secrets[source, environment] = await store.values(source, environment)
        except TrueupError as error:
            secrets[source, environment] = Setback.of(error)

    await _for_each(fetch, sorted(wanted))


async def _for_each(
    function: Callable[[*Arguments], Awaitable[None]], arguments: Iterable[tuple[*Arguments]]
) -> None:
    """Call the function for each of the argument lists, at most so many at a time."""
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)

    async def one(*each: *Arguments) -> None:
        async with limiter:
            await function(*each)

    async with trio.open_nursery() as nursery:
        for each in arguments:
            nursery.start_soon(one, *each)
