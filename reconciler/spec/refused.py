"""References of resources that the schema refuses: told in the same run, so that one look mends all."""

from reconciler.spec.document import Map, Path, Seq, Value
from reconciler.spec.findings import Findings


def check_references(findings: Findings) -> None:
    """To be called right after the schema; a resource without a problem is checked where it is built."""
    for section in ("services", "projects", "environments", "secret_sources", "secret_targets"):
        entries = findings.data.get(section)
        for name, entry in list(entries.items()) if isinstance(entries, Map) else ():
            if isinstance(entry, Map) and findings.is_broken(section, name):
                _check(findings, section, (section, name), entry)


def _check(findings: Findings, section: str, path: Path, entry: Map) -> None:
    match section:
        case "services":
            _name(findings, (*path, "repository"), "repositories", entry.get("repository"))
            _sources(findings, (*path, "secrets"), entry.get("secrets"))
            where = entry.get("environments")
            for index, name in enumerate(where) if isinstance(where, Map | Seq) else ():
                step = str(name) if isinstance(where, Map) else index
                _name(findings, (*path, "environments", step), "environments", name)
                over = where[str(name)] if isinstance(where, Map) else None
                if isinstance(over, Map):
                    _sources(findings, (*path, "environments", step, "secrets"), over.get("secrets"))
        case "projects":
            _name(findings, (*path, "repository"), "repositories", entry.get("repository"))
            _name(findings, (*path, "environment"), "environments", entry.get("environment"))
            sync = entry.get("sync")
            if isinstance(sync, Map):
                _each(findings, (*path, "sync", "nodes"), sync.get("nodes"), "node_id", "nodes")
                files = sync.get("files")
                for index, file in enumerate(files if isinstance(files, Seq) else ()):
                    if isinstance(file, Map):
                        _sources(findings, (*path, "sync", "files", index, "secrets"), file.get("secrets"))
        case "environments":
            release = entry.get("release")
            if isinstance(release, Map):
                at = (*path, "release", "promote_from")
                _name(findings, at, "environments", release.get("promote_from"))
        case "secret_sources":
            fallback = entry.get("fallback")
            for index, name in enumerate(fallback if isinstance(fallback, Seq) else ()):
                _name(findings, (*path, "fallback", index), "secret_sources", name)
        case "secret_targets":
            _name(findings, (*path, "from"), "secret_sources", entry.get("from"))


def _name(findings: Findings, path: Path, section: str, name: Value) -> None:
    if isinstance(name, str):
        findings.refer(path, section, name)


def _each(findings: Findings, path: Path, entries: Value, key: str, section: str) -> None:
    for index, entry in enumerate(entries if isinstance(entries, Seq) else ()):
        if isinstance(entry, Map):
            _name(findings, (*path, index, key), section, entry.get(key))


def _sources(findings: Findings, path: Path, uses: Value) -> None:
    for index, use in enumerate(uses if isinstance(uses, Seq) else ()):
        _name(findings, (*path, index), "secret_sources", use)
        if isinstance(use, Map):
            _name(findings, (*path, index, "source"), "secret_sources", use.get("source"))
