"""Services of kind `agent`, without hosts: what decides, what is planned, what is recorded and taken away."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from agent.wire.messages import Command
from reconciler.deploy.agent import AgentDriver
from reconciler.deploy.context import RunContext
from reconciler.deploy.request import CannotRemove, RemoveRequest
from reconciler.desired import Desired, DesiredService, make_desired
from reconciler.observation import Absent, Observation, Present
from reconciler.observe import recorded_observation
from reconciler.plan import Plan, make_plan
from reconciler.recording import StepResult, with_replayed, with_results
from reconciler.spec.model import Move
from reconciler.status.conditions import ConditionType, set_condition
from reconciler.status.documents import Recorded, ServiceStatus
from tests.reconciler.facts import COMMIT, FILES, commit_paths, desired, facts, secret
from tests.reconciler.scripted_fleet import Script, fleet

TEXT = """\
services:
  web:
    repository: app
    paths: ["web/**"]
    deploy: {kind: agent, project: site, command: up}
    environments: [staging]
projects:
  site:
    repository: app
    environment: staging
    path: site
    sync:
      nodes: [{node_id: web-1, target_path: /srv/site}, {node_id: web-1, target_path: /srv/other}]
      files: [{path: .env, format: dotenv, env: {LEVEL: info}, secrets: [local]}]
"""
WEB = "services/staging/web"
FIRST, SECOND = "projects/staging/site/web-1/srv+site", "projects/staging/site/web-1/srv+other"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def service(made: Desired) -> DesiredService:
    return made.services()[WEB]


def in_order(made: Desired, **changes: Observation) -> dict[str, Observation]:
    found: dict[str, Observation] = {
        one.id: Present(str(one.hash), one.inputs) for one in made.resources if one.hash is not None
    }
    return found | changes


def planned(plan: Plan) -> dict[str, str]:
    return {step.resource: f"{step.action}: {step.reason}" for step in plan.steps}


@pytest.mark.parametrize(
    ("text", "changes", "differs"),
    [
        (TEXT, {"commits": {COMMIT: commit_paths({**FILES, "site/index.html": "b1" * 20})}}, "project site"),
        (TEXT, {"commits": {COMMIT: commit_paths({**FILES, "web/compose.yaml": "b1" * 20})}}, "web/**"),
        (TEXT.replace("LEVEL: info", "LEVEL: debug"), {}, "project site"),
        (TEXT.replace("command: up", "command: down"), {}, "deploy"),
        (TEXT.replace("/srv/other", "/srv/another"), {}, "project site"),
        (
            TEXT,
            {"secrets": {("local", "staging"): {"DB_URL": secret("DB_URL", "another")}}},
            "secret site/.env DB_URL",
        ),
        (TEXT, {"commits": {COMMIT: commit_paths({**FILES, "api/compose.yaml": "b1" * 20})}}, ""),
    ],
)
def test_what_decides(text: str, changes: dict[str, object], differs: str) -> None:
    before, after = desired(TEXT), desired(text, **changes)
    plan = make_plan(after, {**in_order(before), **in_order(after), WEB: in_order(before)[WEB]}, recorded=[])
    step = planned(plan).get(WEB, "")
    assert (differs in step) if differs else step == ""


def test_a_value_that_is_stale_causes_no_deploy() -> None:
    stale = secret("DB_URL", "another", is_stale=True)
    before, after = desired(TEXT), desired(TEXT, secrets={("local", "staging"): {"DB_URL": stale}})
    assert planned(make_plan(after, in_order(before), recorded=[])) == {}


def test_a_project_that_cannot_be_synced_keeps_its_service_back() -> None:
    made = desired(TEXT.replace("path: site\n", "path: site\n    suspend: true\n"))
    setback = service(made).setback
    assert setback is not None
    assert (setback.reason, setback.blocks) == ("Suspended", False)
    assert setback.message.startswith("its project site: ")


def test_a_project_of_that_id_in_another_environment_is_another_one() -> None:
    """As when it went from one environment to another, and a release still has it where it was."""
    known = facts(TEXT)
    [site] = known.spec.projects.values()
    elsewhere = msgspec.structs.replace(site, environment=None, branch="main")
    both = {"branch/site": elsewhere, "staging/site": site}
    made = make_desired(replace(known, spec=msgspec.structs.replace(known.spec, projects=both)))
    assert service(made).follows == (FIRST, SECOND)
    [web] = known.spec.services
    assert msgspec.structs.replace(known.spec, projects=both).project_of(web) == site
    assert msgspec.structs.replace(known.spec, projects={"site": elsewhere}).project_of(web) == elsewhere


def test_a_deploy_follows_each_sync_of_its_project() -> None:
    made = desired(TEXT)
    assert service(made).follows == (FIRST, SECOND)
    assert planned(make_plan(made, in_order(made), recorded=[])) == {}
    first = in_order(made)[FIRST]
    assert isinstance(first, Present)
    edited = Present(first.hash, first.inputs, "files differ from what was placed")
    plan = make_plan(made, in_order(made, **{FIRST: edited}), recorded=[])
    assert planned(plan) == {
        FIRST: "sync: drift: files differ from what was placed",
        WEB: "deploy: drift: its project is put right on web-1",
    }
    assert plan.steps[-1].depends_on == (FIRST,)
    plan = make_plan(made, in_order(made, **{FIRST: Absent("not applied yet")}), recorded=[])
    assert planned(plan)[WEB] == "deploy: its project is synced to web-1"


def synced() -> StepResult:
    place = {"node": "web-1", "target_path": "/srv/site"}
    return StepResult(resource=FIRST, action="sync", at=NOW, hash="h", followers=(WEB,), **place)  # type: ignore[arg-type]


def test_a_pass_that_was_killed_after_the_sync_leaves_the_deploy_due() -> None:
    ready = set_condition((), ConditionType.READY, "True", "Deployed", "", now=NOW)
    recorded = Recorded().put(ServiceStatus(id=WEB, config_hash="old", conditions=ready))
    killed = with_results(recorded, [synced()])
    assert recorded_observation(killed.services[WEB], interrupted=False) == Absent(
        "it was not deployed since its project was synced"
    )
    deployed = StepResult(resource=WEB, action="deploy", at=NOW, hash="new", deploy="agent")
    done = with_results(recorded, [synced(), deployed])
    assert done.services[WEB].config_hash == "new"
    moved = with_replayed(recorded, [synced()], [Move(old="services/web", new="services/shop")])
    assert moved.services["services/staging/shop"].config_hash == ""


async def test_a_service_is_taken_away_by_the_command_that_was_recorded(tmp_path: Path) -> None:
    script = Script({}, {"state": "FAILED", "reason": "CommandNotAllowed", "message": "not here"})
    context = RunContext({}, tmp_path / "homes")
    inventory = {
        "project": "site",
        "command": "compose-down",
        "timeout": "30",
        "targets": '[["web-1","/srv/site"],["left-the-spec","/srv/site"]]',
    }
    driver = AgentDriver()
    assert (driver.place(inventory), driver.place({})) == ("site", "")
    assert driver.place_of(service(desired(TEXT)).service, {}) == "site"
    async with fleet(tmp_path, script) as (agents, _):
        request = RemoveRequest(WEB, inventory, context, agents)
        await driver.remove(request)
        [sent] = script.tasks
        assert isinstance(sent, Command)
        assert (sent.command, sent.target_path, sent.environment) == ("compose-down", "/srv/site", {})
        with pytest.raises(Exception, match="not here"):
            await driver.remove(request)
        with pytest.raises(CannotRemove, match="no `remove_command`"):
            await driver.remove(RemoveRequest(WEB, {}, context, agents))
