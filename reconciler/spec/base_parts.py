"""Repositories with their units, environments, nodes, and the small sections of the document."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from reconciler.errors import GitRefused
from reconciler.git.urls import check_ref, check_url
from reconciler.spec.convert import converted, converted_section
from reconciler.spec.document import Map, Path, Seq, Value, shown
from reconciler.spec.findings import Findings
from reconciler.spec.graph import circles
from reconciler.spec.model import (
    Environment,
    Limits,
    Move,
    Node,
    Notification,
    Repository,
    SecretCredential,
    SecretSource,
    Unit,
)
from reconciler.spec.secret_parts import refer_source
from reconciler.spec.windows import check_timezone, parse_window

_AT_GITHUB = re.compile(
    r"(?:https://github\.com/|ssh://git@github\.com(?::22)?/|git@github\.com:)"
    r"([A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}?)(?:\.git)?/?"
)

BRANCH_SCOPE = "branch"
"""Stands for the environment in the ids of projects that have none, so no environment may have it."""


LOWEST_BANDWIDTH = 16 * 1024
"""Bytes a second; with less, a block of a large file would take minutes."""


def plain(value: Value) -> Any:
    """Data without marks, for a model."""
    if isinstance(value, Map):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, Seq) else value


def build_limits(findings: Findings) -> Limits:
    return msgspec.convert(converted_section(findings.data.get("limits", Map()), "limits"), Limits)


def build_repositories(findings: Findings) -> dict[str, Repository]:
    built: dict[str, Repository] = {}
    for name, entry in findings.entries("repositories"):
        path = ("repositories", name)
        fields = plain(entry)
        _check_address(findings, path, fields["url"])
        if "github" in entry:
            github = dict(converted(entry["github"], "github_reporting"))
            fields["github"] = _with_repo(findings, (*path, "github"), github, fields["url"])
        verify = fields.get("verify", {})
        if verify.get("signatures", "none") != "none" and "allowed_signers" not in verify:
            findings.report(
                (*path, "verify"), "`allowed_signers` is missing; signatures are checked against it"
            )
        units = {}
        prefixes: dict[str, str] = {}
        for unit, part in fields.get("units", {}).items():
            prefix = part.get("tag_prefix", f"{unit}/")
            if prefix in prefixes:
                findings.report(
                    (*path, "units", unit),
                    f"has the tag prefix {shown(prefix)}, as {shown(prefixes[prefix])} has; "
                    "give each unit its own `tag_prefix`",
                )
            prefixes[prefix] = unit
            _check_prefix(findings, (*path, "units", unit, "tag_prefix"), prefix)
            units[unit] = {**part, "name": f"{name}/{unit}", "repository": name, "tag_prefix": prefix}
        if not findings.is_broken("repositories", name):
            whole = {**fields, "name": name, "units": units}
            built[name] = msgspec.convert(whole, Repository)
    return built


def _with_repo(findings: Findings, path: Path, github: dict[str, Any], url: str) -> dict[str, Any]:
    """What is told at GitHub, with the repository's name there, which an address at github.com holds."""
    if github.get("token", {}).get("from") == "secret":
        findings.report((*path, "token"), "name a variable (`env`) or a `file`; it belongs to no environment")
    if "repo" not in github:
        found = _AT_GITHUB.fullmatch(url)
        if found is None:
            findings.report(path, "`repo` is missing, as the address is none of github.com")
        github["repo"] = found[1] if found is not None else ""
    return github


def build_shared_paths(findings: Findings) -> dict[str, tuple[str, ...]]:
    """By repository, for each of its services."""
    shared = findings.data.get("shared_paths") if findings.is_usable else None
    built: dict[str, tuple[str, ...]] = {}
    for name, patterns in shared.items() if isinstance(shared, Map) else ():
        if findings.refer(("shared_paths", name), "repositories", name):
            built[name] = tuple(plain(patterns))
    return built


def _check_address(findings: Findings, path: Path, url: str) -> None:
    try:
        # Whether repositories on the primary itself are allowed is its operator's decision, not the spec's.
        check_url(url, allow_local=True)
    except GitRefused as error:
        findings.report((*path, "url"), str(error))


def _check_prefix(findings: Findings, path: Path, prefix: str) -> None:
    try:
        check_ref(f"{prefix}v1.0.0")
    except GitRefused:
        findings.report(path, f"git accepts no tag such as {shown(prefix + 'v1.0.0')}; change `tag_prefix`")


def units_of(repositories: Mapping[str, Repository]) -> dict[str, Unit]:
    """All units by full name; a repository without units is one itself."""
    found: dict[str, Unit] = {}
    for name, repository in repositories.items():
        parts = repository.units.values() or (Unit(name=name, repository=name),)
        found.update((unit.name, unit) for unit in parts)
    return found


def build_environments(findings: Findings) -> dict[str, Environment]:
    built: dict[str, Environment] = {}
    for name, entry in findings.entries("environments"):
        path = ("environments", name)
        if name == BRANCH_SCOPE:
            findings.report(path, "`branch` stands for projects without an environment; choose another name")
        fields: dict[str, Any] = dict(converted(entry, "environment"))
        release: dict[str, Any] = dict(fields.get("release", {}))
        _check_release(findings, (*path, "release"), release, given="release" in fields)
        for index, window in enumerate(fields.get("windows", ())):
            _check_window(findings, (*path, "windows", index), window)
        if findings.is_broken("environments", name):
            continue
        if "from" in release:
            release["from_branch"] = release.pop("from")
        built[name] = msgspec.convert({**fields, "name": name, "release": release}, Environment)
    _check_promotions(findings, built)
    return built


def _check_release(findings: Findings, path: Path, release: Mapping[str, Any], *, given: bool) -> None:
    if not given:
        return
    if "from" in release and "promote_from" in release:
        findings.report(path, "`from` and `promote_from` exclude each other; remove one")
    elif "from" not in release and "promote_from" not in release and release.get("cut") != "external":
        findings.report(
            path, "name `from` (a branch) or `promote_from` (an environment), or say `cut: external`"
        )
    if "promote_from" in release:
        findings.refer((*path, "promote_from"), "environments", release["promote_from"])
    elif "soak" in release:
        findings.report((*path, "soak"), "counts from the release in `promote_from`, which is missing")


def _check_window(findings: Findings, path: Path, window: Mapping[str, str]) -> None:
    if ("allow" in window) == ("deny" in window):
        findings.report(path, "name exactly one of `allow` and `deny`")
    for key in ("allow", "deny"):
        if key in window:
            try:
                parse_window(window[key])
            except ValueError as error:
                # A window written as a bare text is its own `allow`.
                findings.report((*path, key), f"{shown(window[key])} is no window; {error}")
    if "timezone" in window:
        try:
            check_timezone(window["timezone"])
        except ValueError as error:
            findings.report((*path, "timezone"), f"{shown(window['timezone'])}: {error}")


def _check_promotions(findings: Findings, environments: Mapping[str, Environment]) -> None:
    comes_from = {
        name: [each.release.promote_from] if each.release.promote_from else []
        for name, each in environments.items()
    }
    for circle in circles(comes_from):
        way = " -> ".join([*circle, circle[0]])
        findings.report(
            ("environments", circle[0], "release", "promote_from"),
            f"the environments promote in a circle: {way}; one of them must have `from`",
        )


def build_nodes(findings: Findings) -> dict[str, Node]:
    built: dict[str, Node] = {}
    owners: dict[bytes, str] = {}
    for name, entry in findings.entries("nodes"):
        path = ("nodes", name)
        token = _public_key(str(entry["token_key"]))
        if token is None:
            findings.report((*path, "token_key"), "not 32 bytes in base64; take it from `trueup node add`")
        elif token in owners:
            findings.report(
                (*path, "token_key"),
                f"is that of node {shown(owners[token])} too; give each node its own with `trueup node add`",
            )
        else:
            owners[token] = name
        fields = dict(converted(entry, "node"))
        check_bandwidth(findings, path, fields)
        if not findings.is_broken("nodes", name):
            built[name] = msgspec.convert({"id": name, **fields}, Node)
    return built


def check_bandwidth(findings: Findings, path: Path, fields: Mapping[str, Any]) -> None:
    """Reports a rate at which nothing would get on."""
    rate = fields.get("bandwidth")
    if rate is not None and rate < LOWEST_BANDWIDTH:
        findings.report((*path, "bandwidth"), "is less than 16KiB/s; with `suspend` nothing is sent at all")


def _public_key(text: str) -> bytes | None:
    encoded = text.removeprefix("ed25519:").rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(encoded + "=", validate=True)
    except binascii.Error:
        return None
    return raw if len(raw) == 32 else None


def build_moved(findings: Findings) -> tuple[Move, ...]:
    entries = findings.data.get("moved")
    moves: list[Move] = []
    olds: set[str] = set()
    for index, entry in enumerate(entries if isinstance(entries, Seq) else ()):
        if not isinstance(entry, Map):
            continue
        old, new = str(entry["from"]), str(entry["to"])
        path: Path = ("moved", index)
        old_section, _, old_name = old.partition("/")
        new_section, _, new_name = new.partition("/")
        if old_section != new_section:
            findings.report(path, f"{shown(old)} cannot become {shown(new)}; a resource stays in its section")
        elif old == new:
            findings.report(path, "moves nothing: `from` and `to` are the same; remove it")
        elif old_name in findings.declared(old_section):
            findings.report(
                (*path, "from"), f"{shown(old)} is still in the spec; a name that is kept is not moved"
            )
        elif old in olds:
            findings.report((*path, "from"), f"{shown(old)} is moved twice; remove one")
        elif findings.refer((*path, "to"), new_section, new_name):
            moves.append(Move(old=old, new=new))
        olds.add(old)
    return tuple(moves)


def build_notifications(findings: Findings, sources: Mapping[str, SecretSource]) -> tuple[Notification, ...]:
    entries = findings.data.get("notifications")
    built: list[Notification] = []
    for index, entry in enumerate(entries if isinstance(entries, Seq) else ()):
        notification = msgspec.convert(converted(entry, "notification"), Notification)
        if isinstance(notification.url, SecretCredential):
            path = ("notifications", index, "url", "secret")
            refer_source(findings, path, notification.url.source, sources)
        built.append(notification)
    return tuple(built)
