"""Looking at hosts: what an agent says against what is recorded, and what could not be seen."""

from collections.abc import Iterable

import pytest
from msgspec import structs

from agent.wire.messages import TaskReport
from reconciler.desired import DesiredSync, DesiredTarget
from reconciler.desired_model import DirectoryFacts, directory_key
from reconciler.errors import LookFailed
from reconciler.github.export_work import Found
from reconciler.github.scopes import SecretMeta
from reconciler.hashing import Inputs
from reconciler.observation import Absent, Observation, Present, Unknown
from reconciler.observe import Observed, observe
from reconciler.spec.model import SecretTarget
from reconciler.status.documents import InputDigests, Recorded, ServiceStatus, SyncStatus
from tests.reconciler.facts import desired, facts, secret

TEXT = """\
services:
  web: {repository: app, deploy: {kind: invoke, task: deploy}, environments: [staging]}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
      nodes: [{node_id: web-1, target_path: /srv/site}]
      files: [{path: .env, format: dotenv, secrets: [local]}]
"""
WEB, SITE = "services/staging/web", "projects/branch/site/web-1/srv+site"
TREE = b"\1" * 32
INPUTS = Inputs({"path site": "p"}, {".env DB_URL": "k"})
PLACED = SyncStatus(
    id=SITE,
    node="web-1",
    target_path="/srv/site",
    config_hash="v1:11111111:a:b",
    inputs=InputDigests.of(INPUTS),
    tree_digest=TREE.hex(),
    last_attempted_revision="main@sha1:1",
)
INTACT = TaskReport(task="t", state="SUCCESS", observed=TREE, rendered_equal=True, after_done=True)


class Hosts:
    """Agents that answer as a test says; implements `observe.Agents`."""

    def __init__(self, report: TaskReport | LookFailed = INTACT, *, away: bool = False) -> None:
        self.report = report
        self.away = away
        self.looked: list[str] = []
        self.owners: list[bytes] = []

    async def wait_connected(self, nodes: Iterable[str]) -> set[str]:
        return set() if self.away else set(nodes)

    def why_not_connected(self, node: str) -> Unknown:
        return Unknown("AgentUnreachable", f"{node} is away")

    async def look(self, sync: DesiredSync, tree: bytes, owners: bytes = b"") -> TaskReport:
        assert tree == TREE
        self.looked.append(sync.id)
        self.owners.append(owners)
        if isinstance(self.report, LookFailed):
            raise self.report
        return self.report


class NoTargets:
    """For a spec without secret targets."""

    async def look(self, target: SecretTarget) -> dict[str, SecretMeta]:
        raise AssertionError(f"{target.name} is not in the spec")


class NoExports:
    async def look(self, desired: DesiredTarget) -> Found:
        raise AssertionError(f"{desired.id} is not in the spec")


async def look(
    hosts: Hosts | None,
    status: SyncStatus | None = PLACED,
    *,
    interrupted: Iterable[str] = (),
    text: str = TEXT,
    **facts: object,
) -> Observed:
    recorded = Recorded() if status is None else Recorded().put(status)
    made, begun = desired(text, **facts), set(interrupted)
    return await observe(
        made,
        recorded,
        hosts,
        secret_targets=NoTargets(),
        secret_exports=NoExports(),
        interrupted=begun,
    )


async def seen(hosts: Hosts | None, status: SyncStatus | None = PLACED, **options: object) -> Observation:
    return (await look(hosts, status, **options)).resources[SITE]  # type: ignore[arg-type]


async def test_what_is_as_it_was_placed() -> None:
    hosts = Hosts()
    observed = await look(hosts)
    assert observed.resources[SITE] == Present(PLACED.config_hash, INPUTS)
    assert observed.asked == observed.connected == frozenset({"web-1"})
    assert hosts.looked == [SITE]


@pytest.mark.parametrize(
    ("changes", "drift"),
    [
        ({"observed": b"\2" * 32}, "files differ from what was placed"),
        ({"owners_equal": False}, "owners differ from what was placed"),
        ({"rendered_equal": False}, "a rendered file differs or is missing"),
        ({"after_done": False}, "the commands after the last sync did not finish"),
        (
            {"observed": b"", "after_done": False},
            "files differ from what was placed, the commands after the last sync did not finish",
        ),
    ],
)
async def test_what_differs_is_drift(changes: dict[str, object], drift: str) -> None:
    fields: dict[str, object] = {"observed": TREE, "rendered_equal": True, "after_done": True, **changes}
    report = TaskReport(task="t", state="SUCCESS", **fields)  # type: ignore[arg-type]
    assert await seen(Hosts(report)) == Present(PLACED.config_hash, INPUTS, drift)


async def test_local_edits_that_stay_are_counted_where_somebody_looked() -> None:
    edited = structs.replace(INTACT, local_edits=2)
    keep = TEXT.replace("    sync:\n", "    sync:\n      on_local_edit: keep\n")
    assert (await look(Hosts(edited), text=keep)).edits_kept == {SITE: 2}
    assert (await look(Hosts(edited))).edits_kept == {SITE: 0}  # they are about to be put right
    assert (await look(Hosts(edited, away=True), text=keep)).edits_kept == {}
    assert (await look(Hosts(LookFailed("no")), text=keep)).edits_kept == {}


@pytest.mark.parametrize("moved_on", [False, True], ids=["as placed", "moved on"])
async def test_owners_are_asked_for_where_they_are_those_of_what_was_placed(moved_on: bool) -> None:
    """Of a directory that has changed since nobody knows any more whose its entries were."""
    sync = "{nodes: [{node_id: web-1, target_path: /srv/site}]}"
    text = f"projects: {{site: {{source: {{directory: /data}}, sync: {sync}}}}}"
    [project] = facts(text).spec.projects.values()
    key = directory_key(project, project.sync.targets[0])
    now = DirectoryFacts("d2" if moved_on else "d1", (), owners=b"\3" * 32)
    status = structs.replace(PLACED, inputs=InputDigests.of(Inputs({f"path {project.path}": "d1"}, {})))
    hosts = Hosts()
    await observe(
        desired(text, directories={key: now}),
        Recorded().put(status),
        hosts,
        secret_targets=NoTargets(),
        secret_exports=NoExports(),
    )
    assert hosts.owners == [b"" if moved_on else b"\3" * 32]


async def test_could_not_look_is_unknown_and_never_absent() -> None:
    assert await seen(Hosts(away=True)) == Unknown("AgentUnreachable", "web-1 is away")
    assert await seen(Hosts(away=True), None) == Unknown("AgentUnreachable", "web-1 is away")
    failed = Hosts(LookFailed("the disk does not answer"))
    assert await seen(failed) == Unknown("ObservationFailed", "the disk does not answer")


async def test_another_value_of_a_fallback_is_no_drift() -> None:
    values = {"DB_URL": secret("DB_URL", "of the fallback", is_fallback=True)}
    differs = TaskReport(task="t", state="SUCCESS", observed=TREE, rendered_equal=False, after_done=True)
    found = await seen(Hosts(differs), secrets={("local", ""): values})
    assert found == Present(PLACED.config_hash, INPUTS)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (None, "not applied yet"),
        (SyncStatus(id=SITE, node="web-1", target_path="/srv/site"), "not applied yet"),
        (
            SyncStatus(id=SITE, node="web-1", target_path="/srv/site", last_attempted_revision="x"),
            "the last attempt failed",
        ),
    ],
)
async def test_where_nothing_was_placed_nobody_is_asked(status: SyncStatus | None, why: str) -> None:
    hosts = Hosts()
    assert await seen(hosts, status) == Absent(why)
    assert hosts.looked == []


async def test_a_record_that_does_not_say_what_was_placed() -> None:
    status = SyncStatus(
        id=SITE, node="web-1", target_path="/srv/site", config_hash="v1:1:2:3", tree_digest="no hex"
    )
    assert isinstance(await seen(Hosts(), status), Absent)


async def test_an_interrupted_step_leaves_its_resource_anywhere() -> None:
    assert await seen(Hosts(), interrupted=[SITE]) == Absent("a step was interrupted")


async def test_without_agents_the_record_is_taken() -> None:
    observed = await look(None)
    assert observed.resources[SITE] == Present(PLACED.config_hash, INPUTS)
    assert (observed.asked, observed.connected) == (frozenset(), frozenset())


async def test_services_are_taken_as_recorded_and_nobody_is_asked_for_what_has_a_setback() -> None:
    status = ServiceStatus(id=WEB, config_hash="v1:11111111:c:d")
    hosts = Hosts()
    made = desired(TEXT.replace("path: site", "path: dist"))
    recorded = Recorded().put(status)
    observed = await observe(made, recorded, hosts, secret_targets=NoTargets(), secret_exports=NoExports())
    assert observed.resources[WEB] == Present("v1:11111111:c:d", Inputs())
    assert (hosts.looked, observed.asked) == ([], frozenset())
