"""`trueup secrets list`: asks the sources as a pass would, or reads what the last pass recorded of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import trio
from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.errors import TrueupError
from reconciler.primary import Primary, as_settings_say, open_primary, open_repositories, read_status
from reconciler.secret_reads import ReadFor
from reconciler.secret_uses import asked_environments, uses_of
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from reconciler.secrets_audit import record_reads
from reconciler.secrets_report import recorded_document, sources_document
from reconciler.settings import Settings
from reconciler.spec.model import SecretSource, Spec
from reconciler.spec_source import read_spec

MAX_PARALLEL_LOOKS = 16


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


async def _looked(settings: Settings) -> dict[str, Any]:
    async with open_primary(settings, exclusive=False) as primary:
        spec = await current_spec(primary)
        store = primary.secret_store(spec)
        asked = [(name, each) for name, all in asked_environments(spec).items() for each in all]
        values = await ask(store, asked)
        await record_reads(primary.journal, settings, ReadFor.LIST, values.values())
        found = {pair: store.freshness_in(*pair) for pair in asked}
        return sources_document(_sources(spec, settings), uses_of(spec), found, primary.now())


async def current_spec(primary: Primary) -> Spec:
    """The spec as a pass would use it now."""
    url = primary.settings.require_spec_repo()
    primary.repositories.begin_pass()
    await primary.repositories.refresh(url)
    branch = primary.settings.spec_branch
    return (await read_spec(primary.repositories.mirror(url), branch, last_good=None)).spec


async def ask(
    store: SecretStore, pairs: Sequence[tuple[str, str]], *, force: bool = False
) -> dict[tuple[str, str], Mapping[str, SecretValue]]:
    """Ask each source for each environment; the values where there are any. The rest is in its freshness."""
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)
    found: dict[tuple[str, str], Mapping[str, SecretValue]] = {}

    async def one(source: str, environment: str) -> None:
        async with limiter:
            try:
                found[source, environment] = await store.values(source, environment, force=force)
            except TrueupError:
                return  # the store knows it, with the reason

    async with trio.open_nursery() as nursery:
        for pair in pairs:
            nursery.start_soon(one, *pair)
    return found


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
