"""`trueup secrets sync` and `clear-cache`: by the running primary where there is one, else right here."""

import difflib
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import click
from rich.text import Text

from reconciler import live
from reconciler.console import make_table, print_document, print_table
from reconciler.errors import SettingsError
from reconciler.primary import CACHE_DIRECTORY, open_primary
from reconciler.secret_reads import ReadFor
from reconciler.secret_uses import asked_environments
from reconciler.secrets.freshness import SourceState
from reconciler.secrets_audit import record_reads
from reconciler.secrets_look import ask, current_spec
from reconciler.settings import Settings
from reconciler.source_sync import changes, environments_of, why

Answer = dict[str, Any]
"""What is told of one source: `name`, `success`, `message`, and `changes` by kind where they are known."""


async def sync_sources(settings: Settings, source: str | None, output: str) -> int:
    """Ask a source itself, or all; returns the exit code: 1 where none came through, 4 where some did not."""
    answers = await _through_primary(settings, source)
    if answers is None:
        answers = await _here(settings, source)
    if output == "table":
        _print(answers)
    else:
        print_document({"version": 1, "sources": answers}, output)
    failed = sum(not answer["success"] for answer in answers)
    return 0 if not failed else 1 if failed == len(answers) else 4


async def clear_cache(settings: Settings, source: str | None, output: str) -> int:
    """Forget what was fetched, in the memory of the running primary and on disk."""
    params = {"source": source} if source is not None else {}
    document = await live.request_if_running(settings, "POST", "/api/secrets/cache/clear", params=params)
    if document is not None:
        message = str(document["message"])
    elif await _clear_disk(settings, source):
        message = f"Cache of secret {source} cleared" if source else "All secrets cache cleared"
    elif settings.secret_cache_on_disk:
        message = "nothing is cached: no primary is running here, and nothing of it is on disk"
    else:
        message = (
            "nothing is cached: no primary is running here, and TRUEUP_SECRET_CACHE=disk is not set, "
            "so each command fetches anew"
        )
    if output == "table":
        click.echo(message)
    else:
        print_document({"version": 1, "success": True, "message": message}, output)
    return 0


async def _clear_disk(settings: Settings, source: str | None) -> int:
    """Forget what is on disk; says how many lists there were."""
    if not settings.secret_cache_on_disk:
        if not settings.sees_state(CACHE_DIRECTORY):
            return 0
        # Left by a primary that has it on: whoever clears the cache means that one.
        settings = replace(settings, secret_cache_on_disk=True)
    async with open_primary(settings, exclusive=False) as primary:
        if source is None:
            return primary.clear_secret_cache()
        spec = await current_spec(primary)
        refuse_unknown(source, spec.secret_sources)
        return primary.secret_store(spec).clear_cache(source)


async def _through_primary(settings: Settings, source: str | None) -> list[Answer] | None:
    """What a running primary answers; None where there is none on this machine."""
    document = await live.request_if_running(settings, "GET", "/api/secrets")
    if document is None:
        return None
    known = {each["name"]: each for each in document["sources"]}
    if source is not None:
        refuse_unknown(source, known)
    answers: list[Answer] = []
    for name, each in known.items():
        if source == name or (source is None and _is_read(each)):
            answers.append(await _ask_primary(settings, name))
    return answers


def _is_read(source: Mapping[str, Any]) -> bool:
    return bool(source["enabled"] and source["kind"] != "github_actions")


async def _ask_primary(settings: Settings, name: str) -> Answer:
    try:
        quoted = urllib.parse.quote(name, safe="")
        document = await live.request(settings, "POST", f"/api/secrets/{quoted}/sync")
    except (live.PrimaryRefused, live.PrimaryUnreachable) as error:
        return {"name": name, "success": False, "message": str(error)}
    told = {"changes": document["changes"]} if document.get("changes") is not None else {}
    return {"name": name, "success": True, "message": str(document["message"]), **told}


async def _here(settings: Settings, source: str | None) -> list[Answer]:
    async with open_primary(settings, exclusive=False) as primary:
        spec = await current_spec(primary)
        sources = primary.secret_sources(spec)
        if source is not None:
            refuse_unknown(source, sources)
        environments = asked_environments(spec)
        asked = [
            (name, environment)
            for name, each in sources.items()
            if name == source or (source is None and each.enabled and each.kind != "github_actions")
            for environment in environments_of(each, environments)
        ]
        store = primary.secret_store(spec)
        values = await ask(store, asked, force=True)
        await record_reads(primary.journal, settings, ReadFor.SYNC, values.values())
        await primary.repositories.refresh(settings.require_status_repo())
        answers: list[Answer] = []
        for name in dict.fromkeys(name for name, _ in asked):
            found = [store.freshness_in(*pair) for pair in asked if pair[0] == name]
            failures = [each for each in found if each.state is not SourceState.FRESH]
            answer: Answer = {"name": name, "success": not failures}
            if failures:
                answer["message"] = why(failures[0])
            else:
                answer["message"] = f"Secret {name} synced successfully"
                if (told := await changes(primary, store, name)) is not None:
                    answer["changes"] = told
            answers.append(answer)
        return answers


def refuse_unknown(name: str, known: Iterable[str]) -> None:
    """Raises SettingsError for a source that the spec does not have."""
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"the spec has {', '.join(names) or 'none'}"
        raise SettingsError(f"Secret {name} not found", hint=hint)


def _print(answers: Iterable[Answer]) -> None:
    table = make_table("SOURCE", "OUTCOME", "CHANGED SINCE THE LAST PASS")
    messages: list[str] = []
    for answer in answers:
        keys_by_kind = answer.get("changes", {})
        told = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in keys_by_kind.items() if keys)
        table.add_row(Text(answer["name"]), "synced" if answer["success"] else "failed", Text(told))
        messages.append(answer["message"])
    print_table(table)
    for message in messages:
        click.echo(message)
