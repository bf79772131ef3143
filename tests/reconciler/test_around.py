"""Planning around steps that still run: no second one for them, and nothing else waits."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.around import around, finding_under_way
from reconciler.desired import Desired, DesiredService
from reconciler.hashing import Inputs, config_hash
from reconciler.observation import Absent, Observation
from reconciler.plan import Action, Plan, Step, make_plan
from reconciler.prune import Removable
from reconciler.spec.model import InvokeDeploy, Service
from reconciler.status.conditions import Reason

INPUTS = Inputs({"path web/**": "p1"}, {})
RUNNING = Step("", Action.DEPLOY, "changed: path web/**", "h")


def service(name: str, *depends_on: str) -> DesiredService:
    spec = Service(
        name=name, environment="staging", repository="r", unit="r", deploy=InvokeDeploy(task="deploy")
    )
    return DesiredService(
        id=spec.id,
        service=spec,
        inputs=INPUTS,
        hash=config_hash(INPUTS, "1" * 8),
        depends_on=tuple(f"services/staging/{each}" for each in depends_on),
    )


def planned(
    *resources: DesiredService, under_way: set[str], recorded: tuple[str, ...] = (), **options: object
) -> tuple[Plan, frozenset[str]]:
    """Nothing of these was ever applied."""
    desired = Desired("main@sha1:1", resources, builds={})
    found: dict[str, Observation] = {resource.id: Absent() for resource in resources}
    running = {id: finding_under_way(replace(RUNNING, resource=id), id) for id in under_way}
    removable = options.pop("removable", None)
    assert removable is None or isinstance(removable, Removable)
    plan = make_plan(
        desired,
        found,
        recorded=recorded,
        under_way=running,
        removable=removable,
        **options,  # type: ignore[arg-type]
    )
    return around(plan, under_way, removable)


def ids(*names: str) -> set[str]:
    return {f"services/staging/{name}" for name in names}


def test_what_runs_gets_no_step_and_what_depends_on_it_waits() -> None:
    plan, waiting = planned(
        service("db"), service("api", "db"), service("web", "api"), service("other"), under_way=ids("db")
    )
    assert {step.resource for step in plan.steps} == ids("other")
    assert waiting == ids("api", "web")
    told = {finding.resource: (finding.reason, finding.message) for finding in plan.findings}
    waits = "waits for services/staging/db, which is under way"
    assert told == {
        "services/staging/db": (Reason.PROGRESSING, "is being deployed (changed: path web/**)"),
        "services/staging/api": (Reason.PROGRESSING, waits),
        "services/staging/web": (Reason.PROGRESSING, waits),
    }


def test_what_runs_is_not_forced_either() -> None:
    plan, _ = planned(service("db"), under_way=ids("db"), forced=ids("db"))
    assert plan.steps == ()


def test_what_left_the_spec_while_it_runs_is_left_alone() -> None:
    gone = "services/staging/gone"
    removable = Removable(places={gone: "compose gone"})
    plan, _ = planned(service("web"), under_way={gone}, recorded=(gone, *ids("web")), removable=removable)
    assert {step.resource for step in plan.steps} == ids("web")
    plan, _ = planned(service("web"), under_way=set(), recorded=(gone, *ids("web")), removable=removable)
    assert [(step.action, step.resource) for step in plan.steps][1:] == [(Action.REMOVE, gone)]


def test_nothing_is_removed_beside_a_step_of_its_environment() -> None:
    gone = "services/staging/gone"
    removable = Removable(places={gone: "compose gone"})
    recorded = (gone, *ids("web", "db"))
    plan, waiting = planned(
        service("web"), service("db"), under_way=ids("web"), recorded=recorded, removable=removable
    )
    assert (gone in waiting, {step.resource for step in plan.steps}) == (True, ids("db"))


def test_what_takes_the_place_of_something_that_runs_waits_for_it() -> None:
    old = "services/staging/old"
    removable = Removable(places={old: "compose shop"}, claims={"services/staging/new": "compose shop"})
    plan, waiting = planned(service("new"), under_way={old}, recorded=(old,), removable=removable)
    assert not plan.steps
    assert waiting == ids("new")


def test_a_release_that_is_being_made_is_waited_for() -> None:
    release = Step("releases/staging/r", Action.RELEASE, "cut: v2")
    plan, waiting = planned(service("web"), under_way={release.resource}, releases=[release])
    assert not plan.steps
    assert waiting == ids("web")


NAMES = ["a", "b", "c", "d", "e"]


@given(st.data())
def test_no_resource_has_two_steps_and_only_what_depends_on_one_waits(data: st.DataObject) -> None:
    """Each depends on some before it."""
    depends = {
        name: data.draw(st.lists(st.sampled_from(NAMES[:position]), unique=True)) if position else []
        for position, name in enumerate(NAMES)
    }
    busy = data.draw(st.sets(st.sampled_from(NAMES)))
    plan, waiting = planned(*(service(name, *depends[name]) for name in NAMES), under_way=ids(*busy))
    behind: set[str] = set()
    for name in NAMES:
        if name not in busy and any(each in busy or each in behind for each in depends[name]):
            behind.add(name)
    assert waiting == ids(*behind)
    assert {step.resource for step in plan.steps} == ids(*(set(NAMES) - busy - behind))
