"""What changed in the secret sources, and what each key would touch: read off a plan. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from reconciler.desired_model import AnyDesired, Desired, DesiredService, DesiredSync
from reconciler.errors import SecretMissing
from reconciler.hashing import SECRET
from reconciler.plan import Plan, Step
from reconciler.secret_fingerprints import changed_keys
from reconciler.secret_uses import Use
from reconciler.secrets.values import SecretValue

Entry = dict[str, Any]

KINDS = ("appeared", "changed", "vanished")


def diff_document(
    names: Sequence[str],
    *,
    marks: Mapping[str, Mapping[str, str]],
    recorded: Mapping[str, Mapping[str, str]],
    failed: Sequence[str],
    plan: Plan,
    desired: Desired,
    uses: Iterable[Use],
    only: str | None = None,
) -> Entry:
    """What differs between the fingerprints of now (`marks`) and those of the last pass, by source and key.

    A source that did not answer itself says nothing of what changed. `steps` are those of the plan in which
    a secret has a part; what is `broken` asks for a key that is not there, so nothing is planned for it.
    `only`: of this one of the named sources.
    """
    sources: list[Entry] = []
    for name in names if only is None else [only]:
        compared = name in marks and name not in failed
        changes = changed_keys(recorded.get(name, {}), marks[name]) if compared else {}
        sources.append(
            {"name": name, "compared": compared, **{kind: changes.get(kind, []) for kind in KINDS}}
        )
    new = {(source["name"], key) for source in sources for kind in KINDS for key in source[kind]}
    resources, given = {resource.id: resource for resource in desired.resources}, list(uses)
    steps: list[Entry] = []
    for step in plan.steps:
        resource = resources.get(step.resource)
        touched = _touched(step, resource, given, new) if resource is not None else []
        if touched := [each for each in touched if only in (None, each["source"])]:
            steps.append(
                {
                    "resource": step.resource,
                    "action": step.action.value,
                    "reason": step.reason,
                    "changes": [change for change in step.changes if change.startswith(SECRET)],
                    "secrets": touched,
                }
            )
    users = {use.resource for use in given if only in (None, use.source)}
    broken = [
        {"resource": finding.resource, "reason": finding.reason, "message": finding.message}
        for finding in plan.findings
        if finding.reason == SecretMissing.reason and _is_of(finding.resource, users)
    ]
    return {"version": 1, "sources": sources, "failed": list(failed), "steps": steps, "broken": broken}


def has_changes(document: Entry) -> bool:
    if document["steps"] or document["broken"]:
        return True
    return any(source[kind] for source in document["sources"] for kind in KINDS)


def _is_of(resource: str, users: Collection[str]) -> bool:
    """Whether it is one of these, or a target of one."""
    return any(resource == user or resource.startswith(f"{user}/") for user in users)


def _touched(
    step: Step, resource: AnyDesired, uses: Sequence[Use], new: Collection[tuple[str, str]]
) -> list[Entry]:
    """Which secrets are a reason for a step. One without a list of changes does everything anew, such as
    after a failure: then those that changed since the last pass."""
    values = _values(resource)
    names = [change.removeprefix(SECRET) for change in step.changes if change.startswith(SECRET)]
    if not step.changes:
        names = [name for name, value in values.items() if (value.origin, value.key) in new]
    entries = []
    for name in names:
        value = values.get(name)
        source, key = (value.origin, value.key) if value is not None else _gone(name, resource, uses, new)
        entries.append({"source": source, "key": key, "name": name})
    return entries


def _values(resource: AnyDesired) -> dict[str, SecretValue]:
    """The secrets that a resource gets, by the names of its keyed inputs."""
    if isinstance(resource, DesiredService):
        named: dict[str, str | SecretValue] = dict(resource.merged.variables)
    elif isinstance(resource, DesiredSync):
        named = {
            f"{path} {variable}": value
            for path, merged in resource.merged.items()
            for variable, value in merged.variables.items()
        }
    else:
        named = dict(resource.values)
    return {name: value for name, value in named.items() if isinstance(value, SecretValue)}


def _gone(
    name: str, resource: AnyDesired, uses: Sequence[Use], new: Collection[tuple[str, str]]
) -> tuple[str, str]:
    """The source and key of a variable that a resource does not get any more, as far as its name tells.

    No source: a variable of the primary's own, or one that the spec no longer asks for.
    """
    variable = name.rpartition(" ")[2]
    for use in uses:
        if _is_of(resource.id, (use.resource,)):
            for source, key in sorted(new):
                if source == use.source and variable.endswith(key):
                    return source, key
    return "", variable
