"""`trueup secrets diff`: which keys changed since the last pass, and what that would touch."""

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.exit_codes import ExitCode
from reconciler.primary import open_primary
from reconciler.reconcile import prepare
from reconciler.secret_fingerprints import source_fingerprints
from reconciler.secret_reads import ReadFor
from reconciler.secret_uses import asked_environments, uses_of
from reconciler.secrets_audit import record_reads
from reconciler.secrets_diff_report import KINDS, diff_document, has_changes
from reconciler.secrets_look import ask, current_spec
from reconciler.secrets_sync import refuse_unknown
from reconciler.settings import Settings


async def diff_sources(settings: Settings, source: str | None, output: str, *, detailed: bool) -> int:
    """Compare what the sources say now with what was recorded, by fingerprints; the plan says the rest."""
    async with open_primary(settings, exclusive=False) as primary:
        spec = await current_spec(primary)
        if source is not None:
            refuse_unknown(source, spec.secret_sources)
        # What a cache on disk still has would show nothing of a change.
        await ask(
            primary.secret_store(spec),
            [(name, each) for name, all in asked_environments(spec).items() for each in all],
            force=True,
        )
        prepared = await prepare(primary, patience=None)
        spec = prepared.spec.spec
        read = [
            values
            for (name, _), values in prepared.facts.secrets.items()
            if isinstance(values, Mapping) and source in (None, name)
        ]
        await record_reads(primary.journal, settings, ReadFor.DIFF, read)
        store = primary.secret_store(spec)
        document = diff_document(
            list(spec.secret_sources),
            marks=source_fingerprints(store.own_answers(), primary.key.hash_key),
            recorded={
                id.removeprefix("secrets/"): status.fingerprints
                for id, status in prepared.recorded.sources.items()
            },
            failed=sorted(
                name
                for name, freshness in store.freshness().items()
                if freshness.enabled and freshness.reason is not None and source in (None, name)
            ),
            plan=prepared.plan,
            desired=prepared.desired,
            uses=uses_of(spec),
            only=source,
        )
    if output == "table":
        _print(document)
    else:
        print_document(document, output)
    if document["failed"]:
        return ExitCode.FAILED
    return ExitCode.CHANGES_PENDING if detailed and has_changes(document) else ExitCode.DONE


def _print(document: Mapping[str, Any]) -> None:
    changed = [source for source in document["sources"] if any(source[kind] for kind in KINDS)]
    if changed:
        table = make_table("SOURCE", *(kind.upper() for kind in KINDS))
        for source in changed:
            table.add_row(Text(source["name"]), *(Text(", ".join(source[kind])) for kind in KINDS))
        print_table(table)
    if document["steps"]:
        table = make_table("WOULD", "RESOURCE", "BECAUSE OF", "THERE CALLED")
        for step in document["steps"]:
            for each in step["secrets"]:
                key = "/".join(part for part in (each["source"], each["key"]) if part)
                table.add_row(step["action"], Text(step["resource"]), Text(key), Text(each["name"]))
        print_table(table)
    if document["broken"]:
        table = make_table("WOULD NOT WORK", "REASON", "WHY")
        for each in document["broken"]:
            table.add_row(Text(each["resource"]), each["reason"], Text(each["message"]))
        print_table(table)
    for name in document["failed"]:
        click.echo(f"{name} did not answer: what changed there is not known", err=True)
    if not (changed or document["steps"] or document["broken"]):
        click.echo("no secret changed" if not document["failed"] else "nothing else changed")
