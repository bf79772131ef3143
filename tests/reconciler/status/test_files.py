"""Status files: everything written is read back, is valid against the schema, and garbage is refused."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reconciler.errors import StatusUnreadable
from reconciler.status.conditions import Condition
from reconciler.status.documents import (
    KINDS,
    MAX_HISTORY,
    MAX_PROBLEMS,
    EnvironmentStatus,
    HistoryEntry,
    Part,
    Recorded,
    Release,
    ServiceStatus,
    Summary,
    bounded_problems,
)
from reconciler.status.files import (
    KIND_NAMES,
    id_of,
    parse_document,
    parse_files,
    path_of,
    render_changes,
    render_document,
    render_files,
)
from reconciler.status.past import add_history, record_release
from reconciler.status.revisions import split_revision
from schema import read_schema
from tests.reconciler.status.documents import (
    COMMIT,
    MOMENT,
    READY,
    REVISION,
    documents,
    one_of_each,
    service,
)

SCHEMA = json.loads(read_schema("status.v1.schema.json"))
VALIDATOR = Draft202012Validator(SCHEMA)

SERVICE = """\
version: 1
kind: Service
id: services/production/web
observedGeneration: 9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a9a
conditions:
- type: Ready
  status: 'True'
  reason: ReconciliationSucceeded
  message: v1.0.1 is deployed
  lastTransitionTime: '2026-03-01T12:00:00Z'
lastAttemptedRevision: v1.0.1@sha1:4b825dc642cb6eb9a060e54bf8d69288fbee4904
lastAppliedRevision: v1.0.1@sha1:4b825dc642cb6eb9a060e54bf8d69288fbee4904
configHash: v1:066d4dcb:1f:2e
inputs:
  public:
    env LOG_LEVEL: 1f
  keyed:
    DB_URL: '12e4567890123456'
history:
- revision: v1.0.1@sha1:4b825dc642cb6eb9a060e54bf8d69288fbee4904
  outcome: succeeded
  configHash: v1:066d4dcb:1f:2e
  at: '2026-03-01T12:00:00Z'
deploy: invoke
"""

NODE = """\
version: 1
kind: Node
id: nodes/web-1
certificate: |
  -----BEGIN CERTIFICATE-----
  MIIB
  -----END CERTIFICATE-----
fingerprint: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
pairedAt: '2026-03-01T12:00:00Z'
trustOnFirstUse: true
agentVersion: 0.1.0
"""


def test_files_read_like_this() -> None:
    files = render_files(one_of_each())
    assert files["services/production/web.yaml"].decode() == SERVICE
    assert files["nodes/web-1.yaml"].decode() == NODE
    assert set(files) == {
        "environments/production.yaml",
        "services/production/web.yaml",
        "projects/production/web/web-1/srv+web.yaml",
        "nodes/web-1.yaml",
        "secrets/local.yaml",
        "targets/billing.yaml",
        "summary.yaml",
    }


def test_one_of_each_is_read_back() -> None:
    assert parse_files(render_files(one_of_each())) == one_of_each()
    assert parse_files({}) == Recorded()


@given(documents)
def test_every_document_is_valid_and_read_back(document: Any) -> None:
    content = render_document(document)
    parsed = parse_document(path_of(document.id), content)
    assert parsed == document
    assert render_document(parsed) == content
    errors = [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(content))]
    assert errors == []


@given(documents)
def test_what_is_written_in_python_and_in_c_means_the_same(document: Any) -> None:
    content = render_document(document)
    assert yaml.load(content, Loader=yaml.SafeLoader) == yaml.load(content, Loader=yaml.CSafeLoader)


def _structs() -> Iterator[tuple[str, dict[str, Any], type[msgspec.Struct], set[str]]]:
    """Each definition of the schema with its struct, and the names that only the file's head has."""
    definitions = SCHEMA["$defs"]
    by_kind = {
        definition["properties"].get("kind", {}).get("const"): name
        for name, definition in definitions.items()
    }
    for prefix, struct in KINDS.items():
        name = by_kind[KIND_NAMES[prefix]]
        yield name, definitions[name], struct, {"version", "kind"}
    parts = {"condition": "Condition", "inputs": "InputDigests", "unit": "UnitStatus"}
    structs: dict[str, type[msgspec.Struct]] = {"Condition": Condition}
    structs |= {struct.__name__: struct for struct in Part.__subclasses__()}
    for name, definition in definitions.items():
        if "const" not in definition["properties"].get("kind", {}):
            yield name, definition, structs[parts.get(name, name[0].upper() + name[1:])], set()


def test_schema_and_structs_name_the_same_fields() -> None:
    VALIDATOR.check_schema(SCHEMA)
    seen = {}
    for name, definition, struct, head in _structs():
        seen[name] = struct
        fields = msgspec.structs.fields(struct)
        assert set(definition["properties"]) == {field.encode_name for field in fields} | head, name
        assert (
            set(definition["required"]) == {field.encode_name for field in fields if field.required} | head
        ), name
    assert set(seen) == set(SCHEMA["$defs"])


def _all_fields(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{where}.{name}", field
        yield from _all_fields(field, f"{where}.{name}")


def test_every_field_of_the_schema_is_explained() -> None:
    parts = [("", SCHEMA), *((name, part) for name, part in SCHEMA["$defs"].items())]
    fields = [*parts, *(found for name, part in parts for found in _all_fields(part, name))]
    assert len(fields) > 80
    assert [where for where, field in fields if not (field.get("title") and field.get("description"))] == []


def test_keys_of_a_newer_version_are_tolerated_and_left_alone() -> None:
    newer = SERVICE + "canary: {weight: 5}\n"
    path = "services/production/web.yaml"
    before = parse_files({path: newer.encode()})
    assert before.services["services/production/web"] == one_of_each().services["services/production/web"]
    assert list(VALIDATOR.iter_errors(yaml.safe_load(newer))) == []
    # Only what changed is written: that file stays as the newer version wrote it.
    assert list(render_changes(before, before.put(service("api")))) == ["services/production/api.yaml"]


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("services/production/web.yaml", b"", "does not hold a mapping"),
        ("services/production/web.yaml", b"- a", "does not hold a mapping"),
        ("services/production/web.yaml", b"{", "is not YAML"),
        ("services/production/web.yaml", b"\xff\xfe\x00", "is not YAML"),
        ("services/production/web.yaml", b"a: !!python/object:os.system x", "is not YAML"),
        ("services/production/web.yaml", b"a: 2026-13-77", "is not YAML"),
        ("services/production/web.yaml", SERVICE.replace("version: 1", "version: 2").encode(), "newer"),
        (
            "services/production/web.yaml",
            SERVICE.replace("version: 1", "version: true").encode(),
            "version True",
        ),
        ("services/production/web.yaml", SERVICE.replace("version: 1\n", "").encode(), "version None"),
        (
            "services/production/web.yaml",
            SERVICE.replace("Service", "Node").encode(),
            "'Service' belongs there",
        ),
        ("services/production/api.yaml", SERVICE.encode(), "'services/production/web'"),
        ("services/production/web.yaml", SERVICE.replace("invoke", "[]").encode(), "deploy"),
        ("services/production/web.yaml", SERVICE.replace("'True'", "'Maybe'").encode(), "Maybe"),
        ("services/production/web.yaml", SERVICE.replace("12:00:00Z'", "25:00'").encode(), "RFC3339"),
        ("services/production/web.yaml", SERVICE.replace("T12:00:00Z'", "T12:00:00'").encode(), "timezone"),
        ("services/production/web.yaml", b"a: " + b"x" * (5 << 20), "bytes"),
        ("README.md", b"hello", "not the path of a status file"),
        ("leases/a.yaml", b"version: 1", "not the path of a status file"),
    ],
)
def test_what_is_garbled_is_never_taken_for_empty(path: str, content: bytes, said: str) -> None:
    with pytest.raises(StatusUnreadable) as caught:
        parse_files({**render_files(Recorded().put(service("other"))), path: content})
    assert said in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "id",
    [
        "",
        "services",
        "services/production",
        "services/production/web/more",
        "services//web",
        "services/../web",
        "services/./web",
        "services/.git/web",
        "services/.GIT/web",
        "services/a\nb/web",
        "services/a\0b/web",
        "services/a\\b/web",
        "services/a\u202eb/web",
        "services/a\ud800/web",
        "services/" + "x" * 300 + "/web",
        "/services/a/b",
        "unknown/a",
        "summary/a",
    ],
)
def test_an_id_that_is_no_path_is_refused(id: str) -> None:
    assert id_of(f"{id}.yaml") is None
    with pytest.raises(StatusUnreadable):
        path_of(id)


def test_only_what_changed_is_rendered() -> None:
    before = one_of_each()
    assert render_changes(before, before) == {}
    assert render_changes(before, parse_files(render_files(before))) == {}
    web = msgspec.structs.replace(before.services["services/production/web"], config_hash="")
    after = before.put(web).without(["nodes/web-1", "nodes/never-there", "summary"])
    changes = render_changes(before, after)
    assert changes["nodes/web-1.yaml"] is None
    assert changes["summary.yaml"] is None
    assert (
        b"configHash: v1:066d4dcb"
        not in (changes["services/production/web.yaml"] or b"").split(b"history")[0]
    )
    assert len(changes) == 3


@given(st.lists(documents, max_size=6), st.lists(documents, max_size=6))
def test_changes_lead_from_one_state_to_the_other(old: list[Any], new: list[Any]) -> None:
    before, after = Recorded().put(*old), Recorded().put(*new)
    files: dict[str, bytes | None] = {**render_files(before), **render_changes(before, after)}
    assert {path: content for path, content in files.items() if content is not None} == render_files(after)


def test_recorded_finds_its_documents_by_id() -> None:
    recorded = one_of_each()
    assert recorded.ids() == {path.removesuffix(".yaml") for path in render_files(recorded)}
    for id in recorded.ids():
        document = recorded.get(id)
        assert document is not None
        assert document.id == id
    assert recorded.get("nodes/other") is None
    assert recorded.get("unknown/other") is None
    assert recorded.without(recorded.ids()) == Recorded()
    for wrong in (ServiceStatus(id="nodes/web-1"), ServiceStatus(id="summary"), Summary(id="nodes/web-1")):
        with pytest.raises(ValueError):
            recorded.put(wrong)


def test_history_keeps_the_last_five_that_differed() -> None:
    history: tuple[HistoryEntry, ...] = ()
    for number in (1, 1, 2, 2, 3, 1, 4, 5, 5):
        entry = HistoryEntry(revision=f"v{number}", outcome="succeeded", at=MOMENT)
        history = add_history(history, entry)
    assert [entry.revision for entry in history] == ["v5", "v4", "v1", "v3", "v2"]
    assert len(history) == MAX_HISTORY
    failed = HistoryEntry(revision="v5", outcome="failed", reason="Timeout", at=MOMENT)
    assert add_history(history, failed)[0] == failed


def test_recording_a_release_again_changes_nothing() -> None:
    status = EnvironmentStatus(id="environments/production", conditions=(READY,))
    first = Release(tag="v1.0.0", commit=COMMIT, recorded_at=MOMENT)
    status = record_release(status, "infra", first)
    again = Release(tag="v1.0.0", commit=COMMIT, recorded_at=MOMENT.replace(year=2030))
    assert record_release(status, "infra", again) is status
    for number in range(1, 30):
        status = record_release(
            status, "infra", Release(tag=f"v1.0.{number}", commit=COMMIT, recorded_at=MOMENT)
        )
    assert status.units["infra"].release.tag == "v1.0.29"
    assert [release.tag for release in status.units["infra"].history] == [
        f"v1.0.{n}" for n in range(28, 8, -1)
    ]


def test_problems_are_bounded() -> None:
    assert bounded_problems(["a\nb"]) == ("a b",)
    many = bounded_problems(range(80))
    assert len(many) == MAX_PROBLEMS + 1
    assert many[-1] == "and 30 more"


def test_revisions_are_written_as_users_of_flux_know_them() -> None:
    assert split_revision(REVISION) == ("v1.0.1", COMMIT)
    assert split_revision(f"sha1:{COMMIT}") == ("", COMMIT)
    assert split_revision(f"dir@sha256:{'e' * 64}") == ("dir", "e" * 64)
    assert split_revision("") == ("", "")
