"""The plan as a pure function: what is found against what is wanted."""

from dataclasses import replace

import pytest

from reconciler.desired import Desired, DesiredService, DesiredSync
from reconciler.hashing import Inputs, config_hash
from reconciler.observation import Absent, Observation, Present, Setback, Unknown
from reconciler.plan import Action, Plan, make_plan
from reconciler.spec.model import InvokeDeploy, Project, Service, SyncTarget
from reconciler.status.conditions import Reason

KEY = "11111111"
INPUTS = Inputs({"path web/**": "p1", "env LOG": "e1"}, {"DB_URL": "s1"})


def service(name: str, inputs: Inputs = INPUTS, **changes: object) -> DesiredService:
    spec = Service(
        name=name, environment="staging", repository="r", unit="r", deploy=InvokeDeploy(task="deploy")
    )
    resource = DesiredService(id=spec.id, service=spec, inputs=inputs, hash=config_hash(inputs, KEY))
    return replace(resource, **changes)  # type: ignore[arg-type]


def present(inputs: Inputs = INPUTS, key: str = KEY, drift: str = "") -> Present:
    return Present(str(config_hash(inputs, key)), inputs, drift)


def plan(*resources: DesiredService, found: dict[str, Observation] | None = None, **options: object) -> Plan:
    desired = Desired("main@sha1:1", resources, builds={})
    options = {"recorded": (), **options}
    absent: dict[str, Observation] = {resource.id: Absent() for resource in resources}
    return make_plan(desired, absent | (found or {}), **options)  # type: ignore[arg-type]


WEB = "services/staging/web"


def test_what_was_never_applied_is_applied() -> None:
    [step] = plan(service("web"), found={WEB: Absent()}).steps
    assert (step.action, step.reason) == (Action.DEPLOY, "not applied yet")
    assert step.hash == str(config_hash(INPUTS, KEY))


def test_what_is_as_wanted_needs_nothing() -> None:
    made = plan(service("web"), found={WEB: present()})
    assert (made.steps, made.findings) == ((), ())


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (Inputs({**INPUTS.public, "path web/**": "p2"}, INPUTS.keyed), ("path web/**",)),
        (Inputs({"path web/**": "p1"}, INPUTS.keyed), ("env LOG",)),
        (Inputs(INPUTS.public, {"DB_URL": "s2"}), ("secret DB_URL",)),
        (Inputs(INPUTS.public, {}), ("secret DB_URL",)),
        (Inputs({**INPUTS.public, "env NEW": "x"}, {"DB_URL": "s2"}), ("env NEW", "secret DB_URL")),
    ],
)
def test_a_step_names_what_changed(wanted: Inputs, changes: tuple[str, ...]) -> None:
    [step] = plan(service("web", wanted), found={WEB: present()}).steps
    assert step.changes == changes
    assert step.reason == "changed: " + ", ".join(changes)


def test_a_stale_value_alone_causes_no_step() -> None:
    wanted = service("web", Inputs(INPUTS.public, {"DB_URL": "s2"}), soft_inputs=frozenset({"DB_URL"}))
    assert plan(wanted, found={WEB: present()}).steps == ()


def test_a_stale_value_goes_along_with_another_change() -> None:
    inputs = Inputs({**INPUTS.public, "env LOG": "e2"}, {"DB_URL": "s2"})
    [step] = plan(service("web", inputs, soft_inputs=frozenset({"DB_URL"})), found={WEB: present()}).steps
    assert step.changes == ("env LOG",)


def test_a_key_that_a_fallback_does_not_have_causes_no_step() -> None:
    wanted = service("web", Inputs(INPUTS.public, {}), degraded=True)
    assert plan(wanted, found={WEB: present()}).steps == ()


def test_a_key_that_only_a_fallback_has_causes_no_step() -> None:
    inputs = Inputs(INPUTS.public, {**INPUTS.keyed, "EXTRA": "s9"})
    wanted = service("web", inputs, degraded=True, soft_inputs=frozenset({"EXTRA"}))
    assert plan(wanted, found={WEB: present()}).steps == ()


def test_could_not_look_is_not_absent() -> None:
    made = plan(service("web"), found={WEB: Unknown(Reason.AGENT_UNREACHABLE, "gone")})
    assert made.steps == ()
    assert made.has_unknown
    assert made.findings[0].message == "gone"


def test_another_master_key_alone_adopts_the_new_fingerprints() -> None:
    wanted = service("web", Inputs(INPUTS.public, {"DB_URL": "of the new key"}))
    [step] = plan(wanted, found={WEB: present(key="22222222")}).steps
    assert step.action is Action.ADOPT


def test_another_master_key_does_not_hide_a_change() -> None:
    wanted = service("web", Inputs({**INPUTS.public, "env LOG": "e2"}, {"DB_URL": "of the new key"}))
    [step] = plan(wanted, found={WEB: present(key="22222222")}).steps
    assert (step.action, step.changes[0]) == (Action.DEPLOY, "env LOG")


def test_a_hash_of_another_version_with_equal_inputs_is_adopted() -> None:
    [step] = plan(service("web"), found={WEB: Present("v0:whatever", INPUTS)}).steps
    assert step.action is Action.ADOPT


def test_drift_is_healed_or_only_reported() -> None:
    found: dict[str, Observation] = {WEB: present(drift="files differ")}
    [step] = plan(service("web"), found=found).steps
    assert step.reason == "drift: files differ"
    reported = plan(service("web", heals_drift=False), found=found)
    assert reported.steps == ()
    assert reported.findings[0].reason == Reason.DRIFT_DETECTED


def test_a_setback_is_reported_and_planned_around() -> None:
    setback = Setback(Reason.SECRET_FETCH_FAILED, "the source is down", unknown=True)
    made = plan(service("web", setback=setback), service("api"), found={WEB: present()})
    assert [step.resource for step in made.steps] == ["services/staging/api"]
    assert made.has_unknown


def test_steps_stand_after_what_they_depend_on() -> None:
    made = plan(
        service("a", depends_on=("services/staging/z",)),
        service("m"),
        service("z", depends_on=("services/staging/m",)),
    )
    assert [step.resource[-1] for step in made.steps] == ["m", "z", "a"]


def test_what_left_the_spec_is_forgotten_but_not_what_is_frozen() -> None:
    made = plan(
        service("web"),
        service("api"),
        recorded=[WEB, "services/staging/api", "services/staging/gone", "services/staging/broken"],
        frozen=["services/staging/broken"],
    )
    forgotten = [(step.resource, step.reason) for step in made.steps if step.action is Action.FORGET]
    assert forgotten == [("services/staging/gone", "no longer in the spec; what it deployed stays")]


def test_an_empty_spec_forgets_nothing() -> None:
    recorded = [f"services/staging/s{number}" for number in range(10)]
    made = plan(recorded=recorded)
    assert made.steps == ()
    assert made.findings[0].reason == Reason.PRUNE_REFUSED


def test_forced_resources_get_a_step() -> None:
    [step] = plan(service("web"), found={WEB: present()}, forced=[WEB]).steps
    assert step.reason == "forced"


@pytest.mark.parametrize(
    "found",
    [present(key="22222222"), present(drift="files differ")],
)
def test_force_acts_where_the_plan_would_only_record_or_report(found: Observation) -> None:
    [step] = plan(service("web", heals_drift=False), found={WEB: found}, forced=[WEB]).steps
    assert (step.action, step.reason) == (Action.DEPLOY, "forced")


def test_force_looks_past_nothing() -> None:
    unknown: dict[str, Observation] = {WEB: Unknown(Reason.AGENT_UNREACHABLE, "gone")}
    assert plan(service("web"), found=unknown, forced=[WEB]).steps == ()
    setback = Setback(Reason.SUSPENDED, "off", blocks=False)
    assert plan(service("web", setback=setback), found={WEB: present()}, forced=[WEB]).steps == ()


def test_what_is_adopted_is_marked_and_not_deployed() -> None:
    for found in (Absent("another tool did it"), present(drift="files differ")):
        [step] = plan(service("web"), found={WEB: found}, adopted=[WEB], forced=[WEB]).steps
        assert (step.action, step.reason, step.changes) == (Action.ADOPT, "taken over as it is", ())
        assert step.hash == str(service("web").hash)
    # What is in order, unknown or set back is left alone.
    assert plan(service("web"), found={WEB: present()}, adopted=[WEB]).steps == ()
    unknown: dict[str, Observation] = {WEB: Unknown(Reason.DOKPLOY_UNAVAILABLE, "away")}
    assert plan(service("web"), found=unknown, adopted=[WEB]).steps == ()
    setback = Setback(Reason.SUSPENDED, "off", blocks=False)
    assert plan(service("web", setback=setback), found={WEB: Absent()}, adopted=[WEB]).steps == ()


def test_a_step_waits_through_what_is_in_order() -> None:
    resources = (
        service("web", depends_on=("services/staging/api",)),
        service("api", depends_on=("services/staging/off",)),
        service(
            "off", setback=Setback(Reason.SUSPENDED, "", blocks=False), depends_on=("services/staging/db",)
        ),
        service("db"),
    )
    made = plan(*resources, found={"services/staging/api": present()})
    assert {step.resource[17:]: step.depends_on for step in made.steps} == {
        "db": (),
        "web": ("services/staging/db",),
    }


def test_what_blocks_is_waited_for_and_what_is_done_is_not() -> None:
    down = Setback(Reason.SECRET_FETCH_FAILED, "down", unknown=True)
    needs = ("services/staging/db", "services/staging/api")
    made = plan(
        service("web", depends_on=needs),
        service("db", setback=down),
        service("api"),
        found={"services/staging/api": present()},
    )
    [step] = made.steps
    assert step.depends_on == ("services/staging/db",)


@pytest.mark.parametrize(
    ("reason", "skips", "blocks"),
    [
        (Reason.AGENT_UNREACHABLE, True, False),
        (Reason.AWAITING_PAIRING, True, False),
        (Reason.AGENT_UNREACHABLE, False, True),
        # The host is there and its target could not be looked at: that is no host to be skipped.
        (Reason.OBSERVATION_FAILED, True, True),
    ],
)
def test_only_a_host_that_is_away_is_skipped(reason: Reason, skips: bool, blocks: bool) -> None:
    made = plan(service("web", may_be_unreachable=skips), found={WEB: Unknown(reason, "")})
    assert (made.findings[0].blocks, made.has_unknown) == (blocks, True)


def test_one_build_for_all_targets_of_a_project() -> None:
    syncs = tuple(
        DesiredSync(
            id=f"projects/branch/site/{node}/srv",
            project=Project(id="site"),
            target=SyncTarget(node=node, target_path="/srv", strategy="mirror"),
            inputs=INPUTS,
            hash=config_hash(INPUTS, KEY),
            depends_on=("projects/branch/site",),
        )
        for node in ("one", "two")
    )
    desired = Desired("r", syncs, builds={sync.id: "projects/branch/site" for sync in syncs})
    made = make_plan(desired, {sync.id: Absent() for sync in syncs}, recorded=())
    assert [step.action for step in made.steps] == [Action.BUILD, Action.SYNC, Action.SYNC]
    found = {sync.id: present() for sync in syncs}
    assert make_plan(desired, found, recorded=()).steps == ()
