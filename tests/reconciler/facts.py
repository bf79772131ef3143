"""Facts for `make_desired` out of a spec's text: one commit that everything runs, and given secrets."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.desired import Desired, DesiredService, DesiredSync, Facts, Revision, make_desired
from reconciler.git.objects import TreeEntry
from reconciler.paths import CommitPaths
from reconciler.secrets.values import Secret, SecretValue
from reconciler.spec.load import SPEC_FILE, load_or_raise

COMMIT = "c0" * 20
TOKEN_KEY = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
HEAD = f"""\
version: 1
repositories: {{app: {{url: "https://git.example/app.git"}}}}
environments: {{staging: {{release: {{cut: external}}}}}}
secret_sources: {{local: {{kind: env_file, file: .env}}}}
nodes: {{web-1: {{token_key: "{TOKEN_KEY}"}}}}
"""
FILES = {"web/compose.yaml": "a1" * 20, "api/compose.yaml": "a2" * 20, "site/index.html": "a3" * 20}


def commit_paths(files: Mapping[str, str] = FILES) -> CommitPaths:
    """The files of a commit, by path to object id."""
    return CommitPaths([TreeEntry(path, 0o100644, "file", oid, 1) for path, oid in files.items()])


def secret(key: str, value: str, **changes: object) -> SecretValue:
    known = SecretValue(
        key=key,
        value=Secret(value),
        environment="staging",
        source="env_file",
        origin="local",
        is_cached=False,
        retrieved_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def facts(text: str, **changes: object) -> Facts:
    """What a pass would know of this spec if every look succeeded."""
    spec = load_or_raise({SPEC_FILE: (HEAD + text).encode()})
    names = tuple(spec.environments)
    values = {"DB_URL": secret("DB_URL", "the url")}
    known = Facts(
        spec=spec,
        spec_revision="main@sha1:1",
        releases={
            (unit, env): Revision("v1.0.0", COMMIT) for unit in spec.units for env in spec.environments
        },
        branches={("app", "main"): Revision("main", COMMIT)},
        commits={COMMIT: commit_paths()},
        ignore_files={},
        templates={},
        secrets={("local", environment): values for environment in ("", *names)},
        degraded=(),
        environ={},
        hash_key=b"k" * 32,
        key_id="11111111",
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def desired(text: str, **changes: object) -> Desired:
    return make_desired(facts(text, **changes))


def only_service(text: str, **changes: object) -> DesiredService:
    [service] = desired(text, **changes).services().values()
    return service


def only_sync(text: str, **changes: object) -> DesiredSync:
    [sync] = desired(text, **changes).syncs().values()
    return sync
