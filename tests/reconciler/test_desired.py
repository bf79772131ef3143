"""What a spec comes to mean for each resource, given everything that was looked up."""

import pytest

from reconciler.desired import DesiredSync
from reconciler.hashing import changed_inputs
from reconciler.observation import Absent, Setback
from reconciler.plan import Action, make_plan
from reconciler.secrets.values import Secret
from reconciler.status.conditions import Reason
from tests.canaries import canary
from tests.reconciler.facts import (
    COMMIT,
    FILES,
    commit_paths,
    desired,
    facts,
    only_service,
    only_sync,
    secret,
)

WEB = """\
services:
  web:
    repository: app
    paths: ["web/**"]
    secrets: [local]
    env: {LOG_LEVEL: info}
    deploy: {kind: invoke, task: deploy}
    environments: [staging]
"""
SITE = """\
projects:
  site:
    repository: app
    branch: main
    path: site
    sync: {nodes: [{node_id: web-1, target_path: /srv/site}]}
"""
SITE_ID = "projects/branch/site/web-1/srv+site"
DOWN = Setback(Reason.REPOSITORY_UNAVAILABLE, "it is down", unknown=True)


def test_a_service_is_made_of_its_paths_variables_and_driver() -> None:
    web = only_service(WEB)
    assert (web.id, web.setback) == ("services/staging/web", None)
    assert sorted(web.inputs.public) == ["deploy", "env LOG_LEVEL", "path web/**"]
    assert sorted(web.inputs.keyed) == ["DB_URL"]
    assert web.merged.plain() == {"DB_URL": "the url", "LOG_LEVEL": "info"}


@pytest.mark.parametrize(
    ("changes", "text", "changed"),
    [
        ({}, WEB.replace("info", "debug"), {"env LOG_LEVEL"}),
        ({}, WEB.replace("task: deploy", "task: other"), {"deploy"}),
        ({"commits": {COMMIT: commit_paths({**FILES, "web/new": "ff" * 20})}}, WEB, {"path web/**"}),
        ({"commits": {COMMIT: commit_paths({**FILES, "api/new": "ff" * 20})}}, WEB, set()),
        ({"secrets": {("local", "staging"): {"DB_URL": secret("DB_URL", "another")}}}, WEB, {"DB_URL"}),
    ],
)
def test_only_what_changed_changes(changes: dict[str, object], text: str, changed: set[str]) -> None:
    old, new = only_service(WEB).inputs, only_service(text, **changes).inputs
    names = old.public.keys() | old.keyed.keys()
    assert {
        name
        for name in names
        if (old.public.get(name), old.keyed.get(name)) != (new.public.get(name), new.keyed.get(name))
    } == changed


def test_a_value_shows_in_no_input_and_no_repr() -> None:
    value = canary("desired")
    web = only_service(WEB, secrets={("local", "staging"): {"DB_URL": secret("DB_URL", value)}})
    assert value not in repr(web)
    assert value not in str(web.hash) + str(web.inputs)


def test_the_same_value_has_another_fingerprint_in_another_resource() -> None:
    both = desired(WEB + WEB.removeprefix("services:\n").replace("  web:", "  api:", 1)).services()
    assert len({service.inputs.keyed["DB_URL"] for service in both.values()}) == 2


def test_stale_and_fallback_values_are_soft() -> None:
    for mark in ({"is_stale": True}, {"is_fallback": True}):
        values = {"DB_URL": secret("DB_URL", "old", **mark)}
        assert only_service(WEB, secrets={("local", "staging"): values}).soft_inputs == {"DB_URL"}


def test_the_primarys_own_variables_are_keyed_and_masked() -> None:
    text = WEB.replace("secrets: [local]", "environ: [TOKEN, UNSET]")
    web = only_service(text, environ={"TOKEN": Secret("from the environment")})
    assert sorted(web.inputs.keyed) == ["TOKEN"]
    assert web.passed_on == (Secret("from the environment"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"releases": {("app", "staging"): DOWN}},
        {"commits": {COMMIT: DOWN}},
        {"secrets": {("local", "staging"): DOWN}},
    ],
)
def test_what_could_not_be_looked_up_is_a_setback(changes: dict[str, object]) -> None:
    web = only_service(WEB, **changes)
    assert (web.setback, web.hash) == (DOWN, None)


def test_a_setback_concerns_only_the_resources_that_need_the_thing() -> None:
    text = WEB + "  api: {repository: app, deploy: {kind: invoke, task: t}, environments: [staging]}\n"
    services = desired(text, secrets={("local", "staging"): DOWN}).services()
    assert {id: service.setback for id, service in services.items()} == {
        "services/staging/api": None,
        "services/staging/web": DOWN,
    }


@pytest.mark.parametrize(
    ("text", "reason", "blocks"),
    [
        (WEB + "    suspend: true\n", Reason.SUSPENDED, False),
        (WEB.replace("{kind: invoke, task: deploy}", "{kind: manual}"), Reason.MANUAL, False),
        (WEB.replace("secrets: [local]", "secrets: [{source: local, keys: [NO]}]"), "SecretNotFound", True),
    ],
)
def test_a_service_that_is_not_to_be_deployed(text: str, reason: str, blocks: bool) -> None:
    setback = only_service(text).setback
    assert setback is not None
    assert (setback.reason, setback.blocks, setback.unknown) == (reason, blocks, False)


def test_a_target_is_made_of_its_tree_its_rules_and_its_files() -> None:
    rules = "files: [{path: .env, format: dotenv, secrets: [local]}], after: [reload], "
    site = only_sync(SITE.replace("sync: {", "sync: {" + rules))
    assert (site.id, site.setback) == (SITE_ID, None)
    assert sorted(site.inputs.public) == ["after", "file .env", "path site", "rules", "target"]
    assert sorted(site.inputs.keyed) == [".env DB_URL"]
    assert site.ignore == (".git", "runtime/", "tmp/")
    assert "the url" not in repr(site)


@pytest.mark.parametrize("switch", ["    suspend: true\n", "      enabled: false\n"])
def test_a_project_that_is_off_keeps_its_place(switch: str) -> None:
    text = SITE.replace("    sync: {nodes: [{node_id: web-1, target_path: /srv/site}]}\n", "")
    if "enabled" in switch:
        text += "    sync:\n" + switch + "      nodes: [{node_id: web-1, target_path: /srv/site}]\n"
    else:
        text += "    sync: {nodes: [{node_id: web-1, target_path: /srv/site}]}\n" + switch
    made = desired(text)
    [site] = made.syncs().values()
    assert site.setback is not None
    assert (site.setback.reason, site.setback.blocks) == (Reason.SUSPENDED, False)
    # Its record is not forgotten, and nothing is built or synced.
    plan = make_plan(made, {SITE_ID: Absent()}, recorded=[SITE_ID])
    assert plan.steps == ()


def test_a_directory_that_is_not_in_the_commit() -> None:
    site = only_sync(SITE.replace("path: site", "path: dist"))
    assert site.setback is not None
    assert site.setback.message.startswith("`dist` does not exist in main@sha1:")


TWO_TARGETS = """\
projects:
  site:
    repository: app
    environment: staging
    path: dist
    build: {task: build}
    sync:
      nodes: [{node_id: web-1, target_path: /srv/a}, {node_id: web-1, target_path: /srv/b}]
"""


def test_targets_wait_for_their_build_and_dependents_for_all_targets() -> None:
    made = desired(WEB + "    depends_on: [project/site]\n" + TWO_TARGETS)
    targets = [f"projects/staging/site/web-1/srv+{name}" for name in "ab"]
    assert {id: sync.depends_on for id, sync in made.syncs().items()} == dict.fromkeys(
        targets, ("projects/staging/site",)
    )
    assert made.services()["services/staging/web"].depends_on == tuple(targets)
    plan = make_plan(made, {resource.id: Absent() for resource in made.resources}, recorded=())
    assert [step.action for step in plan.steps] == [Action.BUILD, Action.SYNC, Action.SYNC, Action.DEPLOY]


def test_a_project_that_waits_for_another_waits_for_its_targets() -> None:
    other = SITE.replace("  site:", "  docs:").replace("/srv/site", "/srv/docs").removeprefix("projects:\n")
    made = desired(SITE + other + "    depends_on: [project/site]\n")
    assert made.syncs()["projects/branch/docs/web-1/srv+docs"].depends_on == (SITE_ID,)


def test_a_build_may_read_anything_of_its_checkout() -> None:
    def digest_of(files: dict[str, str]) -> str:
        made = desired(TWO_TARGETS, commits={COMMIT: commit_paths(files)})
        return next(iter(made.syncs().values())).inputs.public["path dist"]

    assert digest_of(FILES) != digest_of({**FILES, "elsewhere": "ff" * 20})


def test_ignore_files_are_rules() -> None:
    text = SITE.replace("sync: {", "sync: {ignore_file: sync.ignore, ")

    def ignore(content: str | Setback | None) -> DesiredSync:
        return only_sync(text, ignore_files={(COMMIT, "site/sync.ignore"): content})

    assert ignore("*.log\n").ignore[-1] == "*.log"
    assert ignore("*.log\n").inputs.public["rules"] != ignore("").inputs.public["rules"]
    assert ignore(DOWN).setback == DOWN
    missing = ignore(None).setback
    assert missing is not None
    assert missing.reason == Reason.REVISION_NOT_FOUND


def test_a_template_is_an_input_of_what_is_made_with_it() -> None:
    """A plan names it; its text is public, as it stands in git."""
    own = "{path: app.toml, template: deploy/app.j2, secrets: [local]}"
    other = "{path: .env, env: {A: b}, format: dotenv}"
    text = SITE.replace("sync: {", f"sync: {{files: [{own}, {other}], ")

    def made(template: str | Setback | None) -> DesiredSync:
        return only_sync(text, templates={(COMMIT, "deploy/app.j2"): template})

    first, second = made("url = {{ DB_URL|tojson }}\n"), made("other = {{ DB_URL|tojson }}\n")
    assert [file.content for file in first.rendered] == [b'url = "the url"\n', b"A=b\n"]
    assert changed_inputs(first.inputs.public, second.inputs.public) == ("template deploy/app.j2",)
    assert first.inputs.keyed == second.inputs.keyed
    assert sorted(first.inputs.keyed) == ["app.toml DB_URL"]
    assert "the url" not in repr(first)
    assert made(DOWN).setback == DOWN
    assert made(None).setback == Setback(
        Reason.REVISION_NOT_FOUND,
        f"`deploy/app.j2` does not exist in main@sha1:{COMMIT}; correct the `template` of app.toml, which is "
        "named from the root of the repository",
    )
    assert made("a\n{{ DB_ULR }}").setback == Setback(
        Reason.TEMPLATE_INVALID,
        "deploy/app.j2:2: `DB_ULR` is not defined; names near it: DB_URL; add it to `secrets` or `env` of "
        "this file, or write `|default('…')` behind it",
    )


def test_ids_of_everything_that_the_spec_names() -> None:
    assert desired(WEB + SITE).ids == {
        "environments/staging",
        "nodes/web-1",
        "secrets/local",
        "services/staging/web",
        SITE_ID,
    }


def test_the_same_facts_give_the_same_hashes() -> None:
    assert only_service(WEB).hash == only_service(WEB).hash
    assert only_service(WEB, key_id="22222222").inputs == only_service(WEB).inputs
    assert str(only_service(WEB).hash).startswith("v1:11111111:")
    assert facts(WEB).spec_revision in desired(WEB).spec_revision
