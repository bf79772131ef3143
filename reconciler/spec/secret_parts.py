"""Secret sources and targets, and every place that takes from a source."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from reconciler.spec.addresses import secret_host_fault
from reconciler.spec.convert import converted
from reconciler.spec.document import Map, Path, Seq, shown
from reconciler.spec.findings import Findings
from reconciler.spec.graph import circles
from reconciler.spec.model import (
    Credential,
    SecretCredential,
    SecretSource,
    SecretTarget,
    SecretUse,
)
from reconciler.spec.schema import definition, suggest
from reconciler.spec.secret_model import SOPS_TYPES
from reconciler.spec.values import parse_duration

MAX_CACHE_TTL = 3600.0
_GITHUB_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMON = ("enabled", "environments", "cache_ttl", "refresh_interval", "max_stale", "fallback")
_LOGIN = {
    "universal": ("client_id", "client_secret"),
    "token": ("token",),
    "oidc": ("identity_id", "jwt"),
}
_PUBLISHED = definition("published_key")["patternErrorMessage"]


def is_published(name: str) -> bool:
    """Whether a secret may be handed on under this name."""
    return name.isascii() and name.isidentifier() and name == name.upper() and name[:1].isalpha()


def build_sources(findings: Findings) -> dict[str, SecretSource]:
    built: dict[str, SecretSource] = {}
    for name, entry in findings.entries("secret_sources"):
        path = ("secret_sources", name)
        for index, environment in enumerate(_texts(entry, "environments")):
            findings.refer((*path, "environments", index), "environments", environment, waits=False)
        if "repository" in entry:
            findings.refer((*path, "repository"), "repositories", str(entry["repository"]))
        _check_login(findings, path, entry)
        _check_file(findings, path, entry)
        if parse_duration(str(entry.get("cache_ttl", "0s"))) > MAX_CACHE_TTL:
            findings.report((*path, "cache_ttl"), "longer than 3600s; choose 0s to 3600s")
        fields = converted(entry, "secret_source")
        common = {key: fields.pop(key) for key in _COMMON if key in fields}
        if not findings.is_broken("secret_sources", name):
            whole = {"name": name, "kind": fields["kind"], **common, "settings": fields}
            built[name] = msgspec.convert(whole, SecretSource)
    for name, source in built.items():
        _check_needs(findings, name, source, built)
    _check_circles(findings, built)
    return built


def _texts(entry: Map, key: str) -> list[str]:
    found = entry.get(key)
    return [str(each) for each in found] if isinstance(found, Seq) else []


def _check_login(findings: Findings, path: Path, entry: Map) -> None:
    if entry.get("kind") != "infisical":
        return
    auth = str(entry.get("auth", "universal"))
    for key in _LOGIN[auth]:
        if key not in entry:
            findings.report(path, f"`{key}` is missing; logging in by {auth} needs {_and(_LOGIN[auth])}")
    if "host" in entry and (fault := secret_host_fault(str(entry["host"]))) is not None:
        findings.report((*path, "host"), f"{fault}; write https://HOST")


def _check_file(findings: Findings, path: Path, entry: Map) -> None:
    file = str(entry.get("file", ""))
    inside = definition("relative_path")
    if "repository" in entry and not re.search(inside["pattern"], file):
        findings.report((*path, "file"), f"{shown(file)} will not do; {inside['patternErrorMessage']}")
    if entry.get("kind") == "sops" and PurePosixPath(file).suffix not in SOPS_TYPES:
        findings.report(
            (*path, "file"),
            f"{shown(file)} does not say what it is; sops has to know by a name with {', '.join(SOPS_TYPES)}",
        )


def _and(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _check_needs(
    findings: Findings, name: str, source: SecretSource, sources: Mapping[str, SecretSource]
) -> None:
    """The sources that this one leans on: its fallbacks and those that hold its credentials."""
    path = ("secret_sources", name)
    for index, other in enumerate(source.fallback):
        refer_source(findings, (*path, "fallback", index), other, sources)
    for key in source.settings.__struct_fields__:
        value = getattr(source.settings, key)
        if isinstance(value, SecretCredential):
            refer_source(findings, (*path, key, "secret"), value.source, sources)


def _check_circles(findings: Findings, sources: Mapping[str, SecretSource]) -> None:
    needs = {
        name: {
            *source.fallback,
            *(
                value.source
                for key in source.settings.__struct_fields__
                if isinstance(value := getattr(source.settings, key), SecretCredential)
            ),
        }
        for name, source in sources.items()
    }
    for circle in circles(needs):
        way = " -> ".join([*circle, circle[0]])
        by = "fallback" if circle[1 % len(circle)] in sources[circle[0]].fallback else "credential"
        path = ("secret_sources", circle[0], *(("fallback",) if by == "fallback" else ()))
        findings.report(
            path, f"the sources go in a circle: {way}; remove one of the fallbacks or credentials"
        )


def refer_source(
    findings: Findings, path: Path, name: str, sources: Mapping[str, SecretSource]
) -> SecretSource | None:
    """The source that is meant, if it exists, is valid and has values that can be read."""
    if not findings.refer(path, "secret_sources", name):
        return None
    source = sources.get(name)
    if source is not None and source.kind == "github_actions":
        findings.report(
            path,
            f"{shown(name)} is of kind github_actions, whose values cannot be read; "
            "only a secret target may take `from` it",
        )
        return None
    return source


class Uses:
    """Checks places that take secrets, and remembers which source serves which environment."""

    def __init__(self, findings: Findings, sources: Mapping[str, SecretSource]) -> None:
        self._findings = findings
        self._sources = sources
        self._served: dict[str, set[str | None]] = {}

    def check(self, path: Path, source: str, environment: str | None) -> None:
        """`environment` is None for what follows a branch or a directory."""
        found = refer_source(self._findings, path, source, self._sources)
        if found is None:
            return
        if not may_serve(found, environment):
            allowed = ", ".join(found.environments)
            what = f"may not serve {environment}" if environment else "does not serve what has no environment"
            self._findings.report(
                path,
                f"{shown(source)} {what}, only {allowed}; take another source, or widen its `environments`",
            )
            return
        self._served.setdefault(source, set()).add(environment)

    def check_all(self, paths: Sequence[Path], uses: Sequence[SecretUse], environment: str | None) -> None:
        """A whole `secrets:` list; `paths` has the place of each entry."""
        for path, use in zip(paths, uses, strict=True):
            self.check(path, use.source, environment)
            self._check_names(path, use)

    def _check_names(self, path: Path, use: SecretUse) -> None:
        for key in use.rename:
            if use.keys and key not in use.keys:
                advice = suggest(key, use.keys) or "add it to `keys`"
                self._findings.report((*path, "rename", key), f"{shown(key)} is not one of `keys`; {advice}")
        for index, key in enumerate(use.keys):
            if key not in use.rename and not is_published(use.prefix + key):
                self._findings.report(
                    (*path, "keys", index), f"{shown(use.prefix + key)}: {_PUBLISHED}; `rename` it"
                )

    def check_credential(self, path: Path, value: Credential, environment: str | None) -> None:
        if isinstance(value, SecretCredential):
            self.check((*path, "secret"), value.source, environment)

    def check_fallbacks(self) -> None:
        """Once all uses are known: a fallback must be allowed where its source serves."""
        for name, environments in sorted(self._served.items()):
            for index, other in enumerate(self._sources[name].fallback):
                fallback = self._sources.get(other)
                if fallback is None:
                    continue
                missing = sorted(str(each) for each in environments if not may_serve(fallback, each))
                if missing:
                    self._findings.report(
                        ("secret_sources", name, "fallback", index),
                        f"{shown(other)} may not serve {', '.join(missing)}, where {shown(name)} is used; "
                        "widen its `environments`, or take another fallback",
                    )


def may_serve(source: SecretSource, environment: str | None) -> bool:
    return not source.environments or environment in source.environments


def build_targets(findings: Findings, sources: Mapping[str, SecretSource]) -> dict[str, SecretTarget]:
    built: dict[str, SecretTarget] = {}
    for name, entry in findings.entries("secret_targets"):
        path = ("secret_targets", name)
        fields: dict[str, Any] = converted(entry, "secret_target")
        findings.refer((*path, "from"), "secret_sources", fields["from"])
        _check_target(findings, path, fields)
        _check_export(findings, path, fields, sources.get(fields["from"]))
        if findings.is_broken("secret_targets", name):
            continue
        fields["source"] = fields.pop("from")
        target = msgspec.convert({"name": name, **fields}, SecretTarget)
        if isinstance(target.token, SecretCredential):
            refer_source(findings, (*path, "token", "secret"), target.token.source, sources)
        built[name] = target
    _check_places(findings, built.values())
    return built


def _check_places(findings: Findings, targets: Iterable[SecretTarget]) -> None:
    """Two targets that write one secret would write it in turns for ever."""
    taken: dict[tuple[str, ...], str] = {}
    for target in targets:
        place = ((target.repo or target.org or "").lower(), (target.environment or "").lower())
        for index, key in enumerate(target.keys):
            other = taken.setdefault((*place, key.name), target.name)
            if other != target.name:
                path: Path = ("secret_targets", target.name, "keys", index)
                message = (
                    f"{shown(key.name)} is written there by {shown(other)} too; remove one, or rename it"
                )
                findings.report(path, message)


def _check_target(findings: Findings, path: Path, fields: dict[str, Any]) -> None:
    if ("repo" in fields) == ("org" in fields):
        findings.report(path, "name exactly one of `repo` and `org`")
    if "org" in fields and "visibility" not in fields:
        findings.report(
            path, "`visibility` is missing; an organisation's secret needs all, private or selected"
        )
    if "org" in fields and fields.get("environment") is not None:
        findings.report((*path, "environment"), "an organisation has no environments; remove it")
    if (fields.get("visibility") == "selected") != bool(fields.get("selected_repositories")):
        findings.report(path, "`visibility: selected` and `selected_repositories` belong together")
    names: list[str] = []
    for index, key in enumerate(fields["keys"]):
        name = key["name"]
        at = (*path, "keys", index)
        if not is_published(name) or name.startswith("GITHUB_"):
            findings.report(at, f"{shown(name)}: {_PUBLISHED}, and not with GITHUB_; give it a `name`")
        elif name in names:
            findings.report(at, f"{shown(name)} is pushed twice; remove one")
        names.append(name)
    fields["keys"] = [*fields["keys"], *_grouped(findings, path, fields.get("groups", ()), names)]


def _check_export(
    findings: Findings, path: Path, fields: Mapping[str, Any], source: SecretSource | None
) -> None:
    """What an export by the source's own workflow cannot do."""
    if source is None or source.kind != "github_actions":
        return
    if "org" in fields:
        findings.report(
            (*path, "org"),
            f"{shown(source.name)} is exported to repositories only; name a `repo`, or take another source",
        )
    for index, key in enumerate(fields["keys"]):
        if not _GITHUB_NAME.fullmatch(key["key"]) or key["key"].upper().startswith("GITHUB_"):
            findings.report(
                (*path, "keys", index), f"{shown(key['key'])} is no name that a secret of GitHub may have"
            )


def _grouped(
    findings: Findings, path: Path, groups: Sequence[Sequence[str]], names: Iterable[str]
) -> list[dict[str, str]]:
    """Members of groups that are not under `keys`: they are pushed too, under their own names."""
    added: dict[str, dict[str, str]] = {}
    known = set(names)
    for group, members in enumerate(groups):
        for index, name in enumerate(members):
            if name.startswith("GITHUB_"):
                at = (*path, "groups", group, index)
                findings.report(at, f"{shown(name)}: the name of a secret may not begin with GITHUB_")
            elif name not in known:
                added[name] = {"key": name, "name": name}
    return list(added.values())
