"""How many steps run at a time: targets have limits of their own."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import trio
import trio.testing

from reconciler.apply import Details, Outcome, apply_plan
from reconciler.deploy.context import RunContext
from reconciler.desired import Desired
from reconciler.git.process import GitOptions
from reconciler.github.export import Arrivals
from reconciler.github.pace import Pace
from reconciler.health import HealthChecks
from reconciler.lanes import Lanes
from reconciler.observation import Absent
from reconciler.plan import Action, Step, make_plan
from reconciler.release_steps import ReleaseSteps
from reconciler.repositories import Repositories
from reconciler.secret_exports import SecretExports
from reconciler.secret_targets import SecretTargets
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.settings import load_settings
from reconciler.spec.model import Spec
from reconciler.status.conditions import Reason, set_condition
from reconciler.status.documents import Recorded, ServiceStatus
from reconciler.steps import Steps
from reconciler.superseded import Calls, Newer
from reconciler.sync.sources import ProjectSources
from reconciler.verification import Verification
from tests.reconciler.facts import desired, facts

TEXT = """\
limits: {max_parallel_steps: 2, max_parallel_tasks: 3}
services:
  web: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}
  api: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}
  db: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}
projects:
"""

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def project(name: str, targets: int, *, at_once: int = 2) -> str:
    nodes = ", ".join(f"{{node_id: web-1, target_path: /srv/{name}-{n}}}" for n in range(targets))
    sync = f"{{max_parallel_nodes: {at_once}, nodes: [{nodes}]}}"
    return f"  {name}: {{repository: app, branch: main, path: site, sync: {sync}}}\n"


class Quiet:
    async def begin(self, step: Step) -> int:
        return 0

    async def end(self, record: int, step: Step, outcome: Outcome) -> None:
        pass


def made_steps(
    made: Desired,
    spec: Spec,
    repositories: Repositories,
    sources: ProjectSources,
    recorded: Recorded,
    where: Path,
) -> Steps:
    store = SecretStore({}, context=SourceContext.from_environ({}))
    context = RunContext({}, where / "homes")
    return Steps(
        spec,
        made,
        repositories=repositories,
        sources=sources,
        releases=ReleaseSteps(
            spec,
            {},
            {},
            repositories=repositories,
            verification=Verification(repositories, load_settings({"TRUEUP_STATE_DIR": str(where)})),
            spec_branch="main",
            now=lambda: MOMENT,
        ),
        fleet=None,
        secret_targets=SecretTargets(store, Pace()),
        secret_exports=SecretExports(store, Pace(), Arrivals()),
        recorded=recorded,
        observed={},
        health=HealthChecks(
            spec, Newer(spec, "", "main", repositories, Calls()), repositories, where, context
        ),
        checkouts=where,
        context=context,
        lanes=Lanes(),
    )


async def most_at_once(text: str, where: Path, kinds: Sequence[str]) -> dict[str, int]:
    """How many steps for resources of each kind were at work at the same time."""
    made = desired(text)
    plan = make_plan(made, {resource.id: Absent() for resource in made.resources}, recorded=())
    spec = facts(text).spec
    repositories = Repositories(where, GitOptions())
    running: list[str] = []
    most = dict.fromkeys(kinds, 0)

    async def carry_out(step: Step) -> Details:
        running.append(step.resource)
        for kind in kinds:
            most[kind] = max(most[kind], sum(resource.startswith(kind) for resource in running))
        await trio.sleep(1)
        running.remove(step.resource)
        return {}

    async with ProjectSources(spec, repositories, where, RunContext({}, where / "homes")) as sources:
        steps = made_steps(made, spec, repositories, sources, Recorded(), where)
        assert set(steps.executors()) == set(Action)
        outcomes = await apply_plan(plan, dict.fromkeys(Action, carry_out), Quiet(), slot=steps.slot)
    assert {outcome.state for outcome in outcomes.values()} == {"succeeded"}
    assert len(outcomes) == len(made.resources)
    return most


async def test_targets_and_other_steps_each_have_their_limit(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Two projects of four targets, two at a time each and three in all; three deploys, two at a time."""
    text = TEXT + project("a", 4) + project("b", 4)
    most = await most_at_once(text, tmp_path, ["services/", "projects/", "projects/branch/a/"])
    assert most == {"services/": 2, "projects/": 3, "projects/branch/a/": 2}
    assert trio.current_time() < 5


async def test_a_project_has_as_many_targets_at_work_as_it_may(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """There is room for all of the twelve targets but for the projects' own limits."""
    text = "limits: {max_parallel_tasks: 16}\nprojects:\n" + project("a", 4) + project("b", 4, at_once=1)
    most = await most_at_once(
        text + project("c", 4, at_once=3),
        tmp_path,
        ["projects/", *(f"projects/branch/{name}/" for name in "abc")],
    )
    assert list(most.values()) == [6, 2, 1, 3]


async def test_what_timed_out_the_last_time_goes_last(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    names = [f"s{number}" for number in range(6)]
    text = "limits: {max_parallel_steps: 1}\nservices:\n" + "".join(
        f"  {name}: {{repository: app, deploy: {{kind: invoke, task: t}}, environments: [staging]}}\n"
        for name in names
    )
    made, spec = desired(text), facts(text).spec
    plan = make_plan(made, {resource.id: Absent() for resource in made.resources}, recorded=())
    hung = {"services/staging/s0", "services/staging/s3"}
    conditions = set_condition((), "Ready", "False", Reason.TIMEOUT, now=datetime(2026, 1, 2, tzinfo=UTC))
    recorded = Recorded().put(*(ServiceStatus(id=id, conditions=conditions) for id in hung))
    order: list[str] = []

    async def carry_out(step: Step) -> Details:
        await trio.sleep(1)
        order.append(step.resource)
        return {}

    repositories = Repositories(tmp_path, GitOptions())
    async with ProjectSources(spec, repositories, tmp_path, RunContext({}, tmp_path / "homes")) as sources:
        steps = made_steps(made, spec, repositories, sources, recorded, tmp_path)
        await apply_plan(plan, dict.fromkeys(Action, carry_out), Quiet(), slot=steps.slot)
    assert len(order) == 6
    assert set(order[-2:]) == hung
