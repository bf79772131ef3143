"""Status documents for tests: one of each kind as a person would meet it, and all there can be."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from reconciler.status.conditions import Condition, ConditionType, Reason
from reconciler.status.documents import (
    AnyDocument,
    EnvironmentStatus,
    HistoryEntry,
    InputDigests,
    NodeStatus,
    ReadinessCounts,
    Recorded,
    Release,
    ServiceStatus,
    SourceStatus,
    Summary,
    SyncCounts,
    SyncStatus,
    TargetStatus,
    UnitStatus,
)

MOMENT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
COMMIT = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
REVISION = f"v1.0.1@sha1:{COMMIT}"
READY = Condition(
    type="Ready",
    status="True",
    reason="ReconciliationSucceeded",
    message="v1.0.1 is deployed",
    last_transition_time=MOMENT,
)


def service(name: str, **fields: object) -> ServiceStatus:
    return ServiceStatus(id=f"services/production/{name}", **fields)  # type: ignore[arg-type]


def one_of_each() -> Recorded:
    history = (
        HistoryEntry(revision=REVISION, outcome="succeeded", config_hash="v1:066d4dcb:1f:2e", at=MOMENT),
    )
    release = Release(tag="v1.0.1", commit=COMMIT, spec_revision=COMMIT, recorded_at=MOMENT)
    return Recorded().put(
        EnvironmentStatus(
            id="environments/production",
            conditions=(READY,),
            units={"infra/platform": UnitStatus(release=release, history=(release,))},
        ),
        service(
            "web",
            observed_generation="9a" * 32,
            conditions=(READY,),
            last_attempted_revision=REVISION,
            last_applied_revision=REVISION,
            config_hash="v1:066d4dcb:1f:2e",
            inputs=InputDigests(public={"env LOG_LEVEL": "1f"}, keyed={"DB_URL": "12e4567890123456"}),
            history=history,
            deploy="invoke",
        ),
        SyncStatus(
            id="projects/production/web/web-1/srv+web",
            conditions=(READY,),
            last_applied_revision=REVISION,
            node="web-1",
            target_path="/srv/web",
            tree_digest="ab" * 32,
            counts=SyncCounts(files_written=3, bytes_received=1024),
            after_done=True,
            warnings=("3 entries of others were left alone",),
        ),
        NodeStatus(
            id="nodes/web-1",
            certificate="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            fingerprint="cd" * 32,
            paired_at=MOMENT,
            trust_on_first_use=True,
            agent_version="0.1.0",
        ),
        SourceStatus(id="secrets/local", source_kind="env_file", state="fresh", keys=("DB_URL", "REDIS_URL")),
        TargetStatus(
            id="targets/billing",
            target_kind="github_actions",
            owned={"CACHE_URL": "2026-01-02"},
            history=history,
        ),
        Summary(
            id="summary",
            last_attempted_revision=COMMIT,
            last_applied_revision=COMMIT,
            problems=("trueup.yaml:3:1: services: unknown key",),
            counts={"services": ReadinessCounts(ready=1)},
        ),
    )


# Everything that may stand in a YAML text, with a liking for what parsers misread.
MISREAD = (
    *(
        "yes",
        "no",
        "on",
        "null",
        "~",
        "true",
        "=",
        "<<",
        "?",
        "-",
        "",
        " ",
        " a",
        "a ",
        "a: b",
        "a #b",
        "- a",
    ),
    *("012", "0o17", "0x1F", "1:30", "1e3", "12e4567", "1_000", ".5", ".inf", ".nan", "2026-03-01", "k:v"),
    *("@a", "`b`", "%c", "!d", "&e", "*f", "|g", ">h", "'i'", '"j"', "{k}", "[l]", ","),
    *("line\nline\n", "line\n", "\n", "\ttab", "ä…😀", "\x85", "\u2028"),
)
texts = st.one_of(
    st.sampled_from(MISREAD),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.text("0123456789abcdef", max_size=40),
)
names = st.text(
    st.characters(categories=("Ll", "Lu", "Nd"), include_characters="-_.+%"), min_size=1, max_size=20
).filter(lambda name: name.strip(".") and name.lower() != ".git")
moments = st.datetimes(
    datetime(2000, 1, 1),
    datetime(2100, 1, 1),
    timezones=st.just(UTC),
).map(lambda moment: moment - timedelta(microseconds=moment.microsecond))
maps = st.dictionaries(texts, texts, max_size=4)
revisions = st.just("") | st.text("0123456789abcdef", min_size=40, max_size=40).map(
    lambda oid: f"v1.0.1@sha1:{oid}"
)
conditions = st.lists(
    st.builds(
        Condition,
        type=st.sampled_from([str(each) for each in ConditionType]),
        status=st.sampled_from(["True", "False", "Unknown"]),
        reason=st.sampled_from([str(each) for each in Reason]),
        message=texts,
        last_transition_time=moments,
        observed_generation=texts,
    ),
    max_size=3,
).map(tuple)
releases = st.builds(Release, tag=texts, commit=texts, spec_revision=st.none() | texts, recorded_at=moments)
histories = st.lists(
    st.builds(
        HistoryEntry,
        revision=texts,
        outcome=st.sampled_from(["succeeded", "failed"]),
        config_hash=texts,
        reason=texts,
        at=moments,
    ),
    max_size=5,
).map(tuple)
_common = {"observed_generation": texts, "conditions": conditions}
_applied = _common | {
    "last_attempted_revision": revisions,
    "last_applied_revision": revisions,
    "config_hash": texts,
    "inputs": st.builds(InputDigests, public=maps, keyed=maps),
    "history": histories,
}
_counts = st.integers(0, 2**50)


def _ids(prefix: str, depth: int) -> st.SearchStrategy[str]:
    return st.lists(names, min_size=depth, max_size=depth).map(lambda parts: "/".join([prefix, *parts]))


documents: st.SearchStrategy[AnyDocument] = st.one_of(
    st.builds(
        EnvironmentStatus,
        id=_ids("environments", 1),
        units=st.dictionaries(
            texts,
            st.builds(UnitStatus, release=releases, history=st.lists(releases, max_size=5).map(tuple)),
            max_size=3,
        ),
        **_common,
    ),
    st.builds(ServiceStatus, id=_ids("services", 2), deploy=texts, **_applied),
    st.builds(
        SyncStatus,
        id=_ids("projects", 4),
        node=texts,
        target_path=texts,
        strategy=texts,
        tree_digest=st.text("0123456789abcdef", max_size=64),
        counts=st.builds(SyncCounts, **dict.fromkeys(SyncCounts.__struct_fields__, _counts)),
        after_done=st.booleans(),
        warnings=st.lists(texts, max_size=3).map(tuple),
        **_applied,
    ),
    st.builds(
        NodeStatus,
        id=_ids("nodes", 1),
        certificate=texts,
        fingerprint=texts,
        paired_at=st.none() | moments,
        trust_on_first_use=st.booleans(),
        agent_version=texts,
        **_common,
    ),
    st.builds(
        SourceStatus,
        id=_ids("secrets", 1),
        source_kind=texts,
        state=st.sampled_from(["unknown", "fresh", "stale", "fallback", "failed", "disabled"]),
        keys=st.lists(texts, max_size=4).map(tuple),
        **_common,
    ),
    st.builds(TargetStatus, id=_ids("targets", 1), target_kind=texts, owned=maps, **_applied),
    st.builds(
        Summary,
        id=st.just("summary"),
        last_attempted_revision=texts,
        last_applied_revision=texts,
        problems=st.lists(texts, max_size=3).map(tuple),
        counts=st.dictionaries(
            texts, st.builds(ReadinessCounts, ready=_counts, not_ready=_counts, unknown=_counts), max_size=3
        ),
        **_common,
    ),
)
