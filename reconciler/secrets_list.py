"""`trueup secrets list`: asks the sources as a pass would, or reads what the last pass recorded of them."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.live import PrimaryRefused, request_if_running
from reconciler.primary import as_settings_say, open_primary, open_repositories, read_status
from reconciler.secret_reads import ReadFor
from reconciler.secret_uses import asked_environments, uses_of
from reconciler.secrets_audit import record_reads
from reconciler.secrets_look import ask, current_spec
from reconciler.secrets_report import recorded_document, sources_document
from reconciler.settings import Settings
from reconciler.spec.model import SecretSource, Spec
from reconciler.spec_source import read_spec


async def list_sources(settings: Settings, output: str, *, recorded: bool) -> int:
    """Print every source of the spec; returns the exit code: 4 where a source that is used serves nothing."""
    document = await (_recorded(settings) if recorded else _looked(settings))
    if output == "table":
        _print(document)
    else:
        print_document(document, output)
    states = {each["state"] for source in document["sources"] for each in source["environments"]}
    return 4 if "failed" in states else 0


async def _recorded(settings: Settings) -> dict[str, Any]:
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    spec = (await read_spec(repositories.mirror(url), settings.spec_branch, last_good=None)).spec
    status = await read_status(settings, repositories)
    return recorded_document(_sources(spec, settings), uses_of(spec), status.sources)


async def _looked(settings: Settings) -> Any:
    """What a running primary knows, with the ages of what it serves; else the sources are asked."""
    try:
        document = await request_if_running(settings, "GET", "/api/secrets")
    except PrimaryRefused as refused:
        if settings.server is not None or refused.status != 503:
            raise
        document = None  # one that has only just started, and read no spec yet
    if document is not None:
        return document
    async with open_primary(settings, exclusive=False) as primary:
        spec = await current_spec(primary)
        store = primary.secret_store(spec)
        asked = [(name, each) for name, all in asked_environments(spec).items() for each in all]
        values = await ask(store, asked)
        await record_reads(primary.journal, settings, ReadFor.LIST, values.values())
        found = {pair: store.freshness_in(*pair) for pair in asked}
        return sources_document(primary.secret_sources(spec), uses_of(spec), found, primary.now())


def _sources(spec: Spec, settings: Settings) -> Mapping[str, SecretSource]:
    return {name: as_settings_say(source, settings) for name, source in spec.secret_sources.items()}


def _print(document: Mapping[str, Any]) -> None:
    columns = ("SOURCE", "KIND", "ENVIRONMENT", "STATE", "SERVED BY", "AGE", "KEYS", "USED BY", "ERROR")
    table = make_table(*columns)
    for source in document["sources"]:
        users = dict.fromkeys(_user(use) for use in source["usedBy"])
        for each in source["environments"]:
            table.add_row(
                Text(source["name"]),
                source["kind"],
                Text(each["environment"]),
                each["state"],
                Text(each["servedBy"]),
                age(each["ageSeconds"]),
                Text(", ".join(each["keys"])),
                Text(", ".join(users)),
                Text(each["error"]),
            )
    print_table(table)


def _user(use: Mapping[str, Any]) -> str:
    return f"{use['resource']} {use['file']}".strip()


def age(seconds: int | None) -> str:
    """`45s`, `12m`, `3h`, `2d`: as people read it."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
