"""`trueup secrets check`: exports to a GitHub repository the secrets that it lacks."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import click
import structlog
import trio

from reconciler.console import print_document
from reconciler.errors import JournalUnavailable, SettingsError
from reconciler.github.client import DEFAULT_API, GitHub
from reconciler.github.errors import GitHubRefused, NoToken
from reconciler.github.export import TIMEOUT, Brought, bring, look
from reconciler.github.export_work import DEFAULT_EVENT, Found, Route, State, due, judge
from reconciler.github.scopes import EnvironmentScope, RepositoryScope, name_fault
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.primary import open_primary
from reconciler.secret_reads import ReadFor, SecretRead
from reconciler.secrets.values import Secret
from reconciler.secrets_audit import operator
from reconciler.secrets_look import current_spec
from reconciler.settings import Settings
from reconciler.spec.model import GithubActionsSettings, Spec

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_REPO: Final = re.compile(r"[A-Za-z0-9-]+/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+")
_SOURCE: Final = re.compile(rf"({_REPO.pattern})(?:/([A-Za-z0-9_.-]+))?")


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is asked. `source` names one of the spec, `source_repo` reads OWNER/REPO[/ENVIRONMENT]."""

    repo: str
    keys: Sequence[str]
    environment: str | None = None
    source: str | None = None
    source_repo: str | None = None
    dry_run: bool = False
    refresh: bool = False
    patience: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the secrets come from, and with which token."""

    repo: str
    token: Secret = field(repr=False)
    environment: str | None = None
    event: str = DEFAULT_EVENT
    org_fallback: bool = True


async def check_secrets(settings: Settings, request: CheckRequest, output: str) -> int:
    """Print one line a key; returns 0 where all are there in the end, else 1.

    Raises SettingsError, and what GitHub answers where nothing can be found out.
    """
    keys = _checked(request)
    async with _origin(settings, request) as origin:
        target = (
            RepositoryScope(request.repo)
            if request.environment is None
            else EnvironmentScope(request.repo, request.environment)
        )
        route = Route(origin.repo, target, origin.event, origin.environment)
        api = settings.github_api_url or DEFAULT_API
        own = settings.github_token() or origin.token
        async with GitHub(api, origin.token) as source, GitHub(api, own) as there:
            found = await _looked(source, there, route, org_fallback=origin.org_fallback)
            # A copy that is older is exported anew on demand only: a build waits for what it lacks.
            judged = found if request.refresh else Found(found.own, found.inherited)
            states = judge({key: key for key in keys}, judged, org_fallback=origin.org_fallback)
            wanted = {name: name for name in due(states)}
            brought = Brought({}, {})
            if wanted and not request.dry_run:
                brought = await bring(source, there, route, wanted, found, patience=request.patience)
    await trio.to_thread.run_sync(_note, settings, route, keys, brought)
    document = _document(request, route, states, brought)
    if output == "table":
        for each in document["keys"]:
            click.echo(_line(each))
    else:
        print_document(document, output)
    return 0 if all(each["state"] in ("present", "exported") for each in document["keys"]) else 1


def _note(settings: Settings, route: Route, keys: Sequence[str], brought: Brought) -> None:
    """Who asked for what, into the journal of the primary if there is one here that we may write."""
    path = settings.state_dir / JOURNAL_FILE
    try:
        if not path.exists():
            return
        who = f"{operator(settings)} for {route.target}"
        reads = [SecretRead(who, ReadFor.CHECK, route.source, "", tuple(keys), "github_actions")]
        if arrived := tuple(sorted(brought.arrived)):
            reads.append(SecretRead(who, ReadFor.EXPORT, route.source, "", arrived, "github_actions"))
        with Journal(path) as journal:
            journal.record_secret_reads(reads)
    except (OSError, JournalUnavailable) as error:
        log.debug(f"who asked for these secrets is not recorded: {type(error).__name__}")


def _checked(request: CheckRequest) -> list[str]:
    if not _REPO.fullmatch(request.repo):
        raise SettingsError(f"{request.repo!r} is no repository", hint="write OWNER/REPO")
    for key in request.keys:
        if (fault := name_fault(key)) is not None:
            raise SettingsError(f"{key!r} {fault}")
    return list(dict.fromkeys(key.upper() for key in request.keys))


async def _looked(source: GitHub, target: GitHub, route: Route, *, org_fallback: bool) -> Found:
    try:
        return await look(target, source, route, organization=org_fallback)
    except GitHubRefused:
        # A token that may dispatch to the source need not be one that may list it.
        return await look(target, None, route, organization=org_fallback)


@asynccontextmanager
async def _origin(settings: Settings, request: CheckRequest) -> AsyncIterator[Origin]:
    if request.source is not None and request.source_repo is not None:
        raise SettingsError("--from and --source-repo exclude each other", hint="leave one out")
    repo = request.source_repo or (settings.source_secrets_repo if request.source is None else None)
    if repo is not None:
        parts = _SOURCE.fullmatch(repo)
        if parts is None:
            raise SettingsError(f"{repo!r} is no repository", hint="write OWNER/REPO for --source-repo")
        token = settings.github_token()
        if token is None:
            raise NoToken(
                "No auth token (GH_PAT or GITHUB_TOKEN) available",
                hint="set one; it needs the scopes `repo` and `workflow`",
            )
        yield Origin(parts[1], token, parts[2])
        return
    if settings.spec_repo is None:
        raise SettingsError(
            "it is not known where the secrets come from",
            hint="give --source-repo OWNER/REPO, or --from SOURCE with a spec repository",
        )
    async with open_primary(settings, exclusive=False) as primary:
        spec = await current_spec(primary)
        source = _source_of(spec, request.source)
        token = await primary.secret_store(spec).credential(source.token)
        yield Origin(source.repo, token, None, source.export_event, source.org_fallback)


def _source_of(spec: Spec, name: str | None) -> GithubActionsSettings:
    sources = {
        each.name: each.settings
        for each in spec.secret_sources.values()
        if isinstance(each.settings, GithubActionsSettings)
    }
    if name is None and len(sources) == 1:
        name = next(iter(sources))
    if name is not None and name in sources:
        return sources[name]
    known = ", ".join(sorted(sources)) or "none"
    what = f"--from {name}: the spec has no such source" if name is not None else "which source is not said"
    raise SettingsError(what, hint=f"give --from with a source of the kind github_actions: {known}")


def _document(
    request: CheckRequest, route: Route, states: Mapping[str, State], brought: Brought
) -> dict[str, Any]:
    keys: list[dict[str, Any]] = []
    for name, state in states.items():
        failure = brought.failures.get(name)
        each = {"name": name, "state": str(state), "where": "", "reason": "", "error": ""}
        if state.is_present:
            each |= {"state": "present", "where": str(state)}
        elif name in brought.arrived:
            each |= {"state": "exported", "where": str(State.REPOSITORY)}
        elif failure is not None:
            each |= {"state": "failed", "reason": failure.reason, "error": str(failure)}
        keys.append(each)
    return {
        "version": 1,
        "repository": request.repo,
        "environment": request.environment,
        "source": route.source,
        "dryRun": request.dry_run,
        "keys": keys,
    }


def _line(each: Mapping[str, Any]) -> str:
    what = each["state"]
    if what == "present":
        what += f" ({each['where']})"
    return f"{each['name']}: {what}" + (f": {each['error']}" if each["error"] else "")
