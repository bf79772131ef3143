"""`trueup secrets diff`: which keys changed since the last pass, and what that would touch."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from reconciler.console import make_table, print_document, print_table
from reconciler.plan import Plan
from reconciler.primary import open_primary
from reconciler.reconcile import prepare
from reconciler.secret_fingerprints import changed_keys, source_fingerprints
from reconciler.secret_reads import ReadFor
from reconciler.secrets_audit import record_reads
from reconciler.secrets_sync import refuse_unknown
from reconciler.settings import Settings
from reconciler.status.documents import SourceStatus

KINDS = ("appeared", "changed", "vanished")


async def diff_sources(settings: Settings, source: str | None, output: str, *, detailed: bool) -> int:
    """Compare what the sources say now with what was recorded, by fingerprints; the plan says the rest."""
    async with open_primary(settings, exclusive=False) as primary:
        prepared = await prepare(primary, patience=None)
        spec = prepared.spec.spec
        if source is not None:
            refuse_unknown(source, spec.secret_sources)
        read = [
            values
            for (name, _), values in prepared.facts.secrets.items()
            if isinstance(values, Mapping) and source in (None, name)
        ]
        await record_reads(primary.journal, settings, ReadFor.DIFF, read)
        store = primary.secret_store(spec)
        marks = source_fingerprints(store.own_answers(), primary.key.hash_key)
        failed = sorted(
            name
            for name, freshness in store.freshness().items()
            if freshness.reason is not None and source in (None, name)
        )
        names = [name for name in spec.secret_sources if source in (None, name)]
        document = diff_document(names, marks, prepared.recorded.sources, failed, prepared.plan)
    if output == "table":
        _print(document)
    else:
        print_document(document, output)
    if failed:
        return 1
    return 2 if detailed and document["steps"] else 0


def diff_document(
    names: Sequence[str],
    marks: Mapping[str, Mapping[str, str]],
    recorded: Mapping[str, SourceStatus],
    failed: Sequence[str],
    plan: Plan,
) -> dict[str, Any]:
    """Names alone. A source that did not answer itself says nothing of what changed. Pure."""
    sources: list[dict[str, Any]] = []
    for name in names:
        known = recorded.get(f"secrets/{name}")
        compared = name in marks and name not in failed
        changes = changed_keys(known.fingerprints if known else {}, marks[name]) if compared else {}
        told = {kind: changes.get(kind, []) for kind in KINDS}
        sources.append({"name": name, "compared": compared, **told})
    steps = []
    for step in plan.steps:
        touched = [change for change in step.changes if change.startswith("secret ")]
        if touched:
            steps.append({"resource": step.resource, "action": step.action.value, "changes": touched})
    return {"version": 1, "sources": sources, "failed": list(failed), "steps": steps}


def _print(document: Mapping[str, Any]) -> None:
    changed = False
    table = make_table("SOURCE", *(kind.upper() for kind in KINDS))
    for source in document["sources"]:
        if any(source[kind] for kind in KINDS):
            changed = True
            table.add_row(Text(source["name"]), *(Text(", ".join(source[kind])) for kind in KINDS))
    if changed:
        print_table(table)
    if document["steps"]:
        table = make_table("WOULD", "RESOURCE", "BECAUSE OF")
        for step in document["steps"]:
            table.add_row(step["action"], Text(step["resource"]), Text(", ".join(step["changes"])))
        print_table(table)
    for name in document["failed"]:
        click.echo(f"{name} did not answer: what changed there is not known", err=True)
    if not changed and not document["steps"]:
        click.echo("no secret changed" if not document["failed"] else "nothing else changed")
