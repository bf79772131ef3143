"""What a request concerns, and the part of a plan that is applied for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired import Desired, Revision, make_desired
from reconciler.observation import Absent
from reconciler.pass_requests import PassRequest, request_for
from reconciler.plan import Action, Plan, Step, make_plan
from reconciler.scope import meant, scope_of, within
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from tests.reconciler.facts import COMMIT, TOKEN_KEY, facts

SPEC = f"""\
version: 1
repositories:
  app: {{url: "https://git.example/org/app.git"}}
  other: {{url: "https://git.example/org/other.git"}}
  hidden: {{url: "https://git.example/org/hidden.git"}}
environments:
  staging: {{release: {{cut: external}}}}
  production: {{release: {{cut: external}}}}
secret_sources:
  local: {{kind: env_file, file: .env, fallback: [sealed]}}
  sealed: {{kind: sops, file: a.yaml, repository: hidden}}
nodes:
  web-1: {{token_key: "{TOKEN_KEY}"}}
  web-2: {{token_key: "{TOKEN_KEY.replace("AA=", "AE=")}"}}
services:
  db: {{repository: app, deploy: {{kind: invoke, task: t}}, environments: [staging, production]}}
  api:
    repository: app
    secrets: [local]
    depends_on: [db]
    deploy: {{kind: invoke, task: t}}
    environments: [staging, production]
  front: {{repository: other, depends_on: [api], deploy: {{kind: invoke, task: t}}, environments: [staging]}}
  page:
    repository: app
    deploy: {{kind: agent, project: site, command: up}}
    environments: [staging]
projects:
  site:
    repository: app
    environment: staging
    build: {{task: b}}
    sync:
      nodes: [{{node_id: web-1, target_path: /srv/site}}, {{node_id: web-2, target_path: /srv/site}}]
"""
DB, API, FRONT, PAGE = (f"services/staging/{name}" for name in ("db", "api", "front", "page"))
BUILD = "projects/staging/site"
SITE_1, SITE_2 = f"{BUILD}/web-1/srv+site", f"{BUILD}/web-2/srv+site"
PRODUCTION = {"services/production/db", "services/production/api"}
EVERY = {DB, API, FRONT, PAGE, BUILD, SITE_1, SITE_2, *PRODUCTION}


def world() -> tuple[Spec, Desired, Plan]:
    """Nothing of the spec was ever applied."""
    spec = load_or_raise({SPEC_FILE: SPEC.encode()})
    known = facts(
        "",
        spec=spec,
        releases={(unit, env): Revision("v1", COMMIT) for unit in spec.units for env in spec.environments},
        secrets={("local", env): {} for env in spec.environments},
    )
    desired = make_desired(known)
    found = {resource.id: Absent() for resource in desired.resources}
    return spec, desired, make_plan(desired, found, recorded=())


SPEC_OF_IT, DESIRED, PLAN = world()


def applied(request: PassRequest) -> set[str]:
    scope = scope_of(request, SPEC_OF_IT, DESIRED)
    plan, left = within(PLAN, scope, DESIRED)
    steps = {step.resource for step in plan.steps}
    assert plan.findings == PLAN.findings
    assert steps | left == EVERY, "nothing goes unsaid"
    assert not steps & left
    return steps


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (request_for(), EVERY),
        (request_for([DB]), {DB}),
        (request_for([API]), {API, DB}),
        (request_for([FRONT]), {FRONT, API, DB}),
        (request_for(["services/db"]), {DB, "services/production/db"}),
        (request_for(environments=["production"]), PRODUCTION),
        (request_for(["environments/production"]), PRODUCTION),
        (request_for(forced=["services/production/db"]), {"services/production/db"}),
        # What works with the files that are synced comes along.
        (request_for([SITE_1]), {SITE_1, SITE_2, BUILD, PAGE}),
        (request_for(["projects/site"]), {SITE_1, SITE_2, BUILD, PAGE}),
        (request_for(["projects/staging/site"]), {SITE_1, SITE_2, BUILD, PAGE}),
        (request_for(["nodes/web-1"]), {SITE_1, SITE_2, BUILD, PAGE}),
        (request_for(["repositories/other"]), {FRONT, API, DB}),
        (request_for(["repositories/app"]), EVERY - {FRONT}),
        # The file of a source lies there, to which another one falls back.
        (request_for(["repositories/hidden"]), {API, DB, *PRODUCTION}),
        (request_for(["secrets/sealed"]), {API, DB, *PRODUCTION}),
        (request_for(["services/nothing"]), set()),
        (request_for(["services/web"], ["production"], ["services/staging/db"]), {DB, *PRODUCTION}),
    ],
)
def test_what_a_request_concerns(request_: PassRequest, expected: set[str]) -> None:
    assert applied(request_) == expected


NAMES = st.frozensets(st.sampled_from([DB, API, "projects/site", "nodes/web-2", "repositories/other", "x/y"]))
REQUESTS = st.builds(
    PassRequest, st.booleans(), NAMES, st.frozensets(st.sampled_from(["staging", "production"])), NAMES
)


@given(REQUESTS, REQUESTS)
def test_no_request_loses_by_another(one: PassRequest, two: PassRequest) -> None:
    assert applied(one | two) >= applied(one) | applied(two)


@given(REQUESTS)
def test_a_step_never_goes_before_what_it_depends_on(request_: PassRequest) -> None:
    steps = applied(request_)
    assert all(set(step.depends_on) <= steps for step in PLAN.steps if step.resource in steps)


def test_what_waits_for_a_release_that_is_left_out_is_left_as_it_is() -> None:
    """Also where nothing is to be deployed: it does not run that release before its tag is there."""
    release = Step("releases/staging/app", Action.RELEASE, "cut: v2")
    plan = Plan("main", (release,), ())
    scope = scope_of(request_for(environments=["production"]), SPEC_OF_IT, DESIRED)
    scoped, left = within(plan, scope, DESIRED)
    assert scoped.steps == ()
    assert left == {"releases/staging/app", DB, API, PAGE, SITE_1, SITE_2}
    everything = scope_of(request_for(["repositories/app"]), SPEC_OF_IT, DESIRED)
    assert within(plan, everything, DESIRED) == (plan, frozenset())


def test_names_mean_resources() -> None:
    assert meant(["services/db"], DESIRED) == {DB, "services/production/db"}
    assert meant([SITE_1, "repositories/app", "nodes/web-1"], DESIRED) == {SITE_1}
    assert meant(["services/staging", "services/sta"], DESIRED) == set()
