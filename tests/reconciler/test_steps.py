"""How many steps run at a time: targets have limits of their own."""

from pathlib import Path

import trio
import trio.testing

from reconciler.apply import Details, Outcome, apply_plan
from reconciler.deploy.context import RunContext
from reconciler.git.process import GitOptions
from reconciler.github.export import Arrivals
from reconciler.github.pace import Pace
from reconciler.health import HealthChecks
from reconciler.observation import Absent
from reconciler.plan import Action, Step, make_plan
from reconciler.repositories import Repositories
from reconciler.secret_exports import SecretExports
from reconciler.secret_targets import SecretTargets
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.status.documents import Recorded
from reconciler.steps import Steps
from reconciler.superseded import Calls, Newer
from reconciler.sync.sources import ProjectSources
from tests.reconciler.facts import desired, facts

TEXT = """\
limits: {max_parallel_steps: 2, max_parallel_tasks: 3}
services:
  web: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}
  api: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}
  db: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}
projects:
"""


def project(name: str, targets: int) -> str:
    nodes = ", ".join(f"{{node_id: web-1, target_path: /srv/{name}-{n}}}" for n in range(targets))
    return f"  {name}: {{repository: app, branch: main, path: site, sync: {{nodes: [{nodes}]}}}}\n"


class Quiet:
    async def begin(self, step: Step) -> int:
        return 0

    async def end(self, record: int, step: Step, outcome: Outcome) -> None:
        pass


async def test_targets_and_other_steps_each_have_their_limit(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Two projects of four targets, two at a time each and three in all; three deploys, two at a time."""
    text = TEXT + project("a", 4) + project("b", 4)
    made = desired(text)
    plan = make_plan(made, {resource.id: Absent() for resource in made.resources}, recorded=())
    spec = facts(text).spec
    repositories = Repositories(tmp_path, GitOptions())
    context = RunContext({}, tmp_path / "homes")
    running: list[str] = []
    most: dict[str, int] = {}

    async def carry_out(step: Step) -> Details:
        running.append(step.resource)
        for kind in ("services/", "projects/", "projects/branch/a/", "projects/branch/b/"):
            count = sum(resource.startswith(kind) for resource in running)
            most[kind] = max(most.get(kind, 0), count)
        await trio.sleep(1)
        running.remove(step.resource)
        return {}

    async with ProjectSources(spec, repositories, tmp_path, context) as sources:
        store = SecretStore({}, context=SourceContext.from_environ({}))
        steps = Steps(
            spec,
            made,
            repositories=repositories,
            sources=sources,
            fleet=None,
            secret_targets=SecretTargets(store, Pace()),
            secret_exports=SecretExports(store, Pace(), Arrivals()),
            recorded=Recorded(),
            observed={},
            health=HealthChecks(
                spec, Newer(spec, "", "main", repositories, Calls()), repositories, tmp_path, context
            ),
            checkouts=tmp_path,
            context=context,
        )
        assert set(steps.executors()) == set(Action) - {Action.RELEASE, Action.REMOVE}
        executors = dict.fromkeys(Action, carry_out)
        outcomes = await apply_plan(plan, executors, Quiet(), slot=steps.slot)
    assert {outcome.state for outcome in outcomes.values()} == {"succeeded"}
    assert len(outcomes) == 11
    assert most == {"services/": 2, "projects/": 3, "projects/branch/a/": 2, "projects/branch/b/": 2}
    assert trio.current_time() < 5
