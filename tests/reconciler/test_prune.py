"""What becomes of what left the spec, as a pure function: one case for each guard."""

from dataclasses import dataclass, field

import pytest

from reconciler.desired import Desired, DesiredService, DesiredSync
from reconciler.hashing import Inputs, config_hash
from reconciler.observation import Absent, Observation, Present
from reconciler.plan import Action, Plan, make_plan
from reconciler.prune import Removable, judge
from reconciler.spec.model import InvokeDeploy, Project, Service, SyncTarget

STAGING = tuple(f"services/staging/{name}" for name in ("api", "db", "web"))
PRODUCTION = tuple(f"services/production/{name}" for name in ("api", "db", "web"))
ALL = (*STAGING, *PRODUCTION, "environments/staging", "environments/production", "nodes/web-1")
INPUTS = Inputs({"p": "1"}, {})
WEB, DB, API = STAGING[2], STAGING[1], STAGING[0]


def wanted(id: str) -> DesiredService:
    _, environment, name = id.split("/")
    spec = Service(
        name=name, environment=environment, repository="r", unit="r", deploy=InvokeDeploy(task="t")
    )
    inputs = Inputs({"p": "1"}, {})
    return DesiredService(id=id, service=spec, inputs=inputs, hash=config_hash(inputs, "11111111"))


def desired(*ids: str, max_prune: float = 0.5) -> Desired:
    return Desired(
        "main@sha1:1",
        tuple(wanted(id) for id in ids if id.startswith("services/")),
        builds={},
        others=tuple(id for id in ids if not id.startswith("services/")),
        max_prune=max_prune,
    )


def without(*gone: str) -> tuple[str, ...]:
    return tuple(id for id in ALL if id not in gone)


@dataclass(frozen=True)
class Case:
    spec: tuple[str, ...]
    expected: dict[str, str] = field(default_factory=dict)
    """By id: `remove` or `forget`."""
    refused: str = ""
    recorded: tuple[str, ...] = ALL
    removable: tuple[str, ...] = (*STAGING, *PRODUCTION)
    claims: dict[str, str] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    force: bool = False
    max_prune: float = 0.5


CASES = {
    "nothing left the spec": Case(ALL),
    "a service whose driver can": Case(without(WEB), {WEB: "remove"}),
    "a service whose driver cannot": Case(without(WEB), {WEB: "forget"}, removable=()),
    "a service of which nothing is known to be there": Case(
        without(WEB), {WEB: "forget"}, removable=(DB, API)
    ),
    "a node": Case(without("nodes/web-1"), {"nodes/web-1": "forget"}),
    "an environment with its only service": Case(
        without("environments/staging", WEB),
        {"environments/staging": "forget", WEB: "remove"},
        recorded=without(API, DB),
    ),
    "all services of an environment": Case(
        without(*STAGING, "environments/staging"), refused="any of the 3 services of staging"
    ),
    "all services of an environment, forced": Case(
        without(*STAGING, "environments/staging"),
        {**dict.fromkeys(STAGING, "remove"), "environments/staging": "forget"},
        force=True,
    ),
    "all of an environment that nothing can remove": Case(
        without(*STAGING, "environments/staging"),
        dict.fromkeys([*STAGING, "environments/staging"], "forget"),
        removable=(),
    ),
    "more than max_prune": Case(
        without(WEB, DB), refused="no longer names 2 of 9 recorded resources, more than", max_prune=0.1
    ),
    "more than max_prune, forced": Case(
        without(WEB, DB), {WEB: "remove", DB: "remove"}, max_prune=0.1, force=True
    ),
    "one is always allowed": Case(without(WEB), {WEB: "remove"}, max_prune=0.0),
    "everything": Case((), refused="names none of the 6 recorded services and targets any more"),
    "everything, forced": Case((), refused="never removed all at once", force=True, max_prune=1.0),
    "every service and target, and not the rest": Case(
        ("environments/staging", "nodes/web-1"), refused="never removed all at once", force=True
    ),
    "everything, of which nothing can be removed, forced": Case(
        (), dict.fromkeys(ALL, "forget"), removable=(), force=True
    ),
    "what another service of the spec claims": Case(
        without(WEB), {WEB: "forget"}, claims={API: f"place of {WEB}"}
    ),
    "what a service claims whose spec is broken": Case(
        without(WEB, DB), {WEB: "forget"}, frozen=(DB,), claims={DB: f"place of {WEB}"}
    ),
    "a place that somebody else claims": Case(without(WEB), {WEB: "remove"}, claims={API: "elsewhere"}),
    "a service whose spec is broken": Case(without(WEB), frozen=(WEB,)),
    "what is broken counts as there": Case(without(*STAGING), {API: "remove", DB: "remove"}, frozen=(WEB,)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_leaves(name: str) -> None:
    case = CASES[name]
    places = {id: f"place of {id}" for id in case.removable if id in case.recorded}
    broken = {id: place for id, place in case.claims.items() if id in case.frozen}
    claims = {id: place for id, place in case.claims.items() if id not in case.frozen}
    pruned = judge(
        desired(*case.spec, max_prune=case.max_prune),
        case.recorded,
        Removable(places | broken, claims),
        frozen=case.frozen,
        force=case.force,
    )
    found = {one.resource: "remove" if one.removed else "forget" for one in pruned.leaving}
    assert found == case.expected
    assert (case.refused in pruned.refused) if case.refused else not pruned.refused


def test_reasons_say_what_stays_and_whose_it_is() -> None:
    known = ("services/s/a", "projects/s/p/n/t", "targets/t", "nodes/n")
    spec = desired("services/s/b", max_prune=1.0)
    told = judge(spec, known, Removable({"services/s/a": "x"}, {"services/s/b": "x"}))
    assert {one.resource: one.reason for one in told.leaving} == {
        "nodes/n": "no longer in the spec",
        "projects/s/p/n/t": "no longer in the spec; its files stay on the host",
        "services/s/a": "no longer in the spec; what it deployed stays, as services/s/b is there now",
        "targets/t": "no longer in the spec; the secrets stay there",
    }


def planned(spec: Desired, recorded: tuple[str, ...], removable: Removable, *changed: str) -> Plan:
    found: dict[str, Observation] = {
        one.id: Absent() if one.id in changed else Present(str(one.hash), one.inputs)
        for one in spec.resources
    }
    return make_plan(spec, found, recorded=recorded, removable=removable)


def test_removals_come_last_and_dependents_before_what_they_depended_on() -> None:
    removable = Removable(
        {id: id for id in (*STAGING, *PRODUCTION)}, depends_on={API: [DB], WEB: [API, "services/staging/x"]}
    )
    spec = desired(*PRODUCTION, "services/staging/new", max_prune=1.0)
    made = planned(spec, (*ALL, "services/staging/new"), removable, "services/staging/new", PRODUCTION[0])
    assert [(step.action, step.resource) for step in made.steps if step.action is not Action.FORGET] == [
        (Action.DEPLOY, PRODUCTION[0]),
        (Action.DEPLOY, "services/staging/new"),
        (Action.REMOVE, WEB),
        (Action.REMOVE, API),
        (Action.REMOVE, DB),
    ]
    after = {step.resource: step.depends_on for step in made.steps if step.action is Action.REMOVE}
    # What is to stay in the environment comes first; another environment holds up nothing.
    assert after[WEB] == ("services/staging/new",)
    assert after[API] == ("services/staging/new", WEB)
    assert after[DB] == ("services/staging/new", API)


def test_a_target_without_an_environment_waits_for_its_node_alone() -> None:
    def sync(name: str, node: str) -> DesiredSync:
        target = SyncTarget(node=node, target_path=f"/srv/{name}", strategy="mirror")
        return DesiredSync(
            id=f"projects/branch/{name}/{node}/srv+{name}",
            project=Project(id=name),
            target=target,
            inputs=INPUTS,
            hash=config_hash(INPUTS, "11111111"),
        )

    there, elsewhere = sync("new", "web-1"), sync("live", "web-2")
    gone = "projects/branch/old/web-1/srv+old"
    spec = Desired("main@sha1:1", (there, elsewhere), builds={}, max_prune=1.0)
    removable = Removable(targets={gone: ("web-1", "/srv/old")})
    made = planned(spec, (gone, there.id, elsewhere.id), removable, there.id, elsewhere.id)
    [removal] = [step for step in made.steps if step.action is Action.REMOVE]
    assert (removal.resource, removal.depends_on) == (gone, (there.id,))


def test_a_circle_of_dependents_is_still_removed() -> None:
    removable = Removable({API: API, DB: DB}, depends_on={API: [DB], DB: [API]})
    made = planned(desired(WEB, max_prune=1.0), STAGING, removable)
    assert [step.resource for step in made.steps] == [API, DB]
    assert [step.depends_on for step in made.steps] == [(), (API,)]


def test_a_refusal_is_a_finding_of_the_summary() -> None:
    made = planned(desired(), ALL, Removable({WEB: "x"}))
    assert (made.steps, [(one.resource, one.reason) for one in made.findings]) == (
        (),
        [("summary", "PruneRefused")],
    )


@pytest.mark.parametrize(
    ("path", "staying", "removed"),
    [
        ("/srv/a", (), True),
        ("/srv/a", ("web-1", "/srv/b"), True),
        ("/srv/a", ("web-1", "/srv/ab"), True),
        ("/srv/a", ("web-2", "/srv/a"), True),
        ("/srv/a", ("web-1", "/srv/a"), False),
        ("/srv/a", ("web-1", "/srv/a/b"), False),
        ("/srv/a/b", ("web-1", "/srv/a"), False),
        ("/srv/a/", ("web-1", "/srv/a"), False),
    ],
)
def test_a_target_is_removed_unless_another_is_at_its_path(
    path: str, staying: tuple[str, str] | tuple[()], removed: bool
) -> None:
    targets = {"projects/s/old/web-1/x": ("web-1", path)}
    spec = desired("projects/s/new/t", max_prune=1.0)
    if staying:
        targets["projects/s/new/t"] = staying
    pruned = judge(spec, ("projects/s/old/web-1/x", "projects/s/new/t"), Removable(targets=targets))
    [leaving] = pruned.leaving
    assert leaving.removed is removed
    assert ("projects/s/new/t is there now" in leaving.reason) is not removed


def test_a_target_whose_agent_cannot_be_asked_is_forgotten() -> None:
    [leaving] = judge(desired("nodes/n", max_prune=1.0), ("projects/s/p/n/t", "nodes/n"), Removable()).leaving
    assert (leaving.removed, leaving.reason) == (False, "no longer in the spec; its files stay on the host")
