"""Ends of steps whose pass was over: which of them the next pass tells as its own."""

from dataclasses import replace

from reconciler.apply import Outcome
from reconciler.back_off import keys_of
from reconciler.carried import Carried, End, ends_to_tell, outdated
from reconciler.desired import Desired, DesiredService
from reconciler.desired_model import suspended
from reconciler.hashing import Inputs, config_hash
from reconciler.observation import Setback
from reconciler.plan import Action, Finding, Plan, Step
from reconciler.spec.model import InvokeDeploy, Service
from reconciler.status.conditions import Reason
from tests.reconciler.facts import only_sync

INPUTS = Inputs({"path web/**": "p1"}, {})
HASH = config_hash(INPUTS, "1" * 8)
SERVICE = Service(
    name="web", environment="staging", repository="r", unit="r", deploy=InvokeDeploy(task="deploy")
)
WEB = SERVICE.id
STEP = Step(WEB, Action.DEPLOY, "changed: path web/**", str(HASH), ("path web/**",))
DESIRED = Desired(
    "main@sha1:1", (DesiredService(id=WEB, service=SERVICE, inputs=INPUTS, hash=HASH),), builds={}
)
NOTHING = Plan("main@sha1:1", (), ())
KEY = keys_of(replace(NOTHING, steps=(STEP,)))[WEB]
SUCCESS = Outcome("succeeded")
FAILURE = Outcome("failed", Reason.DEPLOY_FAILED, "exit code 1")


def told(
    outcome: Outcome,
    *,
    plan: Plan = NOTHING,
    step: Step = STEP,
    outcomes: frozenset[str] = frozenset(),
    left: frozenset[str] = frozenset(),
    held: bool = False,
) -> bool:
    key = keys_of(replace(NOTHING, steps=(step,)))[WEB]
    carried = Carried(ended={WEB: End(step, key, outcome, 1)})
    steps = {WEB: STEP} if held else {}
    left |= steps.keys()
    return WEB in ends_to_tell(carried, plan, DESIRED, outcomes, left, steps)


def test_a_success_is_told_where_nothing_is_left_to_do() -> None:
    assert told(SUCCESS)
    assert not told(SUCCESS, step=replace(STEP, hash="another")), "it speaks of what is not wanted any more"
    assert not told(SUCCESS, left=frozenset({WEB}))
    assert not told(SUCCESS, outcomes=frozenset({WEB})), "it was done once more since"
    frozen = replace(NOTHING, findings=(Finding(WEB, Reason.SUSPENDED, "off"),))
    assert not told(SUCCESS, plan=frozen)


def test_a_failure_is_told_where_the_same_would_be_tried_again() -> None:
    backs_off = replace(NOTHING, findings=(Finding(WEB, Reason.BACKING_OFF, "failed once"),))
    assert told(FAILURE, plan=backs_off, held=True)
    assert not told(FAILURE), "nothing is to be done to it now"
    assert not told(FAILURE, plan=backs_off, held=True, step=replace(STEP, hash="another"))
    assert not told(FAILURE, plan=backs_off, held=True, outcomes=frozenset({WEB}))


def test_what_runs_again_is_not_told() -> None:
    carried = Carried({WEB: STEP}, frozenset({2}), {WEB: End(STEP, KEY, SUCCESS, 1)})
    assert ends_to_tell(carried, NOTHING, DESIRED, (), (), {}) == {}


def test_a_transfer_of_what_is_not_wanted_any_more_is_called_off() -> None:
    sync = replace(
        only_sync(
            "projects: {site: {repository: app, branch: main, path: site,"
            " sync: {nodes: [{node_id: web-1, target_path: /srv/site}]}}}\n"
        ),
        inputs=INPUTS,
        hash=HASH,
    )
    wanted = replace(DESIRED, resources=(sync, *DESIRED.resources))

    def called_off(step: Step, desired: Desired = wanted, *, frozen: bool = False) -> dict[str, str]:
        return outdated(Carried(under_way={step.resource: step}), desired, lambda _id: frozen)

    runs = Step(sync.id, Action.SYNC, "changed", str(HASH))
    older = replace(runs, hash="v1:other")
    assert called_off(runs) == {}
    assert called_off(older) == {sync.id: f"{sync.revision} is to be there now"}
    assert called_off(older, DESIRED) == {sync.id: "it left the spec"}
    assert called_off(older, DESIRED, frozen=True) == {}, "nobody knows whether it did"
    unknown = replace(wanted, resources=(replace(sync, hash=None),))
    assert called_off(older, unknown) == {}, "nobody knows what is wanted"
    away = replace(
        sync, hash=None, setback=Setback(Reason.REPOSITORY_UNAVAILABLE, "git is away", unknown=True)
    )
    assert called_off(runs, replace(wanted, resources=(away,))) == {}
    left = replace(sync, hash=None, setback=suspended("site"))
    assert called_off(runs, replace(wanted, resources=(left,))) == {sync.id: suspended("site").message}
    assert called_off(replace(older, action=Action.REMOVE)) == {}
    assert called_off(replace(STEP, hash="another")) == {}, "a deploy goes on"
