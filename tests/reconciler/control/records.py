"""One operator's record of each kind."""

from datetime import UTC, datetime

from reconciler.control.records import Record

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNA = "Anna <anna@example.org>"
COMMIT = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def record(kind: str, number: int = 0, **fields: object) -> Record:
    values = {"by": ANNA, "at": NOW, **fields}
    return Record(number=number, kind=kind, **values)  # type: ignore[arg-type]


_FIELDS: dict[str, dict[str, object]] = {
    "hold": {"environment": "production", "unit": "infra", "reason": "a sale"},
    "unhold": {"environment": "production"},
    "approve": {"environment": "production", "unit": "infra", "tag": "v1.2.4", "commit": COMMIT},
    "freeze": {"reason": "an incident"},
    "unfreeze": {},
    "suspend": {"resource": "services/web"},
    "resume": {"resource": "services/production/web"},
    "override": {"environment": "production", "until": NOW, "reason": "a bug"},
    "promote": {
        "environment": "production",
        "unit": "infra",
        "source": "staging",
        "tag": "v1.2.4",
        "commit": COMMIT,
        "drop_hotfix": True,
    },
    "hotfix": {"environment": "production", "unit": "infra", "commit": COMMIT},
    "rollback": {"environment": "production", "unit": "infra", "tag": "v1.1.0"},
    "release": {"environment": "staging", "unit": "infra", "commit": COMMIT, "bump": "major"},
    "revoke": {"resource": "nodes/web-1"},
    "node-rollback": {
        "resource": "projects/production/site/web-1/srv+site",
        "tree": "ab" * 32,
        "revision": f"v1.1.0@sha1:{COMMIT}",
        "reason": "slow there",
    },
    "node-unroll": {"resource": "projects/production/site/web-1/srv+site"},
}
EACH = tuple(record(kind, number, **fields) for number, (kind, fields) in enumerate(_FIELDS.items(), start=1))
