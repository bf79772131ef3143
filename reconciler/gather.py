"""Looking things up for a pass: repositories, releases, trees and secrets. It looks and never decides.

What could not be looked up becomes a `Setback` in the facts and concerns only the resources that need it.
"""

from collections.abc import Iterable, Mapping

from reconciler.control.state import ControlState
from reconciler.desired import Facts, Revision, SecretsKey, ignore_file_path, project_revision
from reconciler.desired_model import DirectoryFacts, DirectoryKey
from reconciler.errors import TrueupError
from reconciler.keys import MasterKey
from reconciler.observation import Setback
from reconciler.paths import CommitPaths
from reconciler.release.current import NoReleaseYet, NothingPromotedYet, Release
from reconciler.release.decide import Decision
from reconciler.repositories import Repositories
from reconciler.secret_uses import asked_environments
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.store import SecretStore
from reconciler.secrets.template import MAX_TEMPLATE, decode_template
from reconciler.secrets.values import Secret, SecretValue, is_text
from reconciler.settings import Settings
from reconciler.spec.model import Spec
from reconciler.status.conditions import MEANT
from reconciler.verification import Verification
from reconciler.views import View, Views, for_each

MAX_IGNORE_FILE = 1 << 20

Releases = Mapping[tuple[str, str], Revision | Setback]
"""By (unit, environment)."""


async def gather_facts(
    spec: Spec,
    spec_revision: str,
    *,
    repositories: Repositories,
    views: Views,
    releases: Releases,
    store: SecretStore,
    settings: Settings,
    key: MasterKey,
    suspended: ControlState,
    directories: Mapping[DirectoryKey, DirectoryFacts | Setback],
    offline: bool = False,
) -> Facts:
    """Everything that `make_desired` needs, looked up concurrently, given the release of each unit.

    `offline`: of secrets what is in memory.
    """
    secrets: dict[SecretsKey, Mapping[str, SecretValue] | Setback] = {}
    await _fetch_secrets(spec, store, secrets, ask=not offline)
    branches = await Verification(repositories, settings).branches(spec, await _find_branches(spec, views))
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
        branches=branches,
        commits=commits,
        ignore_files=ignore_files,
        templates=templates,
        secrets=secrets,
        degraded=_degraded(secrets, store),
        environ=_own_variables(spec, settings),
        hash_key=key.hash_key,
        key_id=key.key_id,
        suspended=suspended,
        directories=directories,
    )


def releases_of(decisions: Mapping[tuple[str, str], Decision]) -> Releases:
    """What each unit is to run in each environment: what comes next, else what is recorded."""
    releases: dict[tuple[str, str], Revision | Setback] = {}
    for pair, decision in decisions.items():
        coming, current = decision.next, decision.current
        if coming is not None:
            releases[pair] = Revision(coming.tag, coming.commit, coming.spec_revision)
        elif isinstance(current, Release):
            releases[pair] = Revision(current.tag, current.commit, current.spec_revision)
        elif isinstance(current, Setback):
            releases[pair] = current
        elif isinstance(current, NoReleaseYet):
            waits = decision.waiting
            found = Setback.of(current)
            reason, message = (
                (waits.reason, waits.message) if waits is not None else (found.reason, found.message)
            )
            meant = reason in MEANT if waits is not None else isinstance(current, NothingPromotedYet)
            releases[pair] = Setback(reason, message, blocks=not meant)
        else:
            releases[pair] = Setback.of(current)
    return releases


def _degraded(secrets: Iterable[SecretsKey], store: SecretStore) -> frozenset[SecretsKey]:
    """What was served by something else because its source failed: not one that the spec has disabled."""
    failed = {
        name
        for name, freshness in store.freshness().items()
        if freshness.reason is not None and freshness.state in (SourceState.STALE, SourceState.FALLBACK)
    }
    return frozenset(key for key in secrets if key[0] in failed)


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


async def _find_branches(spec: Spec, views: Views) -> dict[tuple[str, str], Revision | Setback]:
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

    await for_each(read, urls.items())
    return commits


async def _read_ignore_files(
    views: Views,
    spec: Spec,
    releases: Releases,
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
    views: Views,
    spec: Spec,
    releases: Releases,
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
    spec: Spec,
    store: SecretStore,
    secrets: dict[SecretsKey, Mapping[str, SecretValue] | Setback],
    *,
    ask: bool,
) -> None:
    """One snapshot a pass: each source that something uses, once for each environment."""
    wanted = [(source, each) for source, all in asked_environments(spec).items() for each in all]

    async def fetch(source: str, environment: str) -> None:
        try:
            secrets[source, environment] = await store.values(source, environment, ask=ask)
        except TrueupError as error:
            secrets[source, environment] = Setback.of(error)

    await for_each(fetch, sorted(wanted))
