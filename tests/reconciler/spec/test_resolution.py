# ruff: noqa: E501 - tables of documents and of what they come to
"""What a valid spec comes to mean: overrides, defaults, labels, units, the hash."""

import pytest

from reconciler.spec.model import (
    AgentDeploy,
    ComposeDeploy,
    DokployDeploy,
    EnvCredential,
    GithubActionsSettings,
    InvokeDeploy,
    ManualDeploy,
    Move,
    Precedence,
    SecretCredential,
    SecretUse,
    SyncTarget,
)
from tests.reconciler.spec.documents import BASE, TOKENS, loaded, service, valid


def with_service(body: str) -> str:
    return (
        BASE
        + "services:\n  web:\n    repository: app\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
    )


def test_an_empty_spec_has_the_models_defaults() -> None:
    spec = valid("version: 1\n")
    assert spec.limits.max_parallel_steps == 8
    assert spec.limits.max_prune == 0.5
    assert spec.services == ()
    assert len(spec.hash) == 64


def test_sections_whose_entries_are_all_comments_are_empty() -> None:
    spec = valid("version: 1\nservices:\n#  web: {}\nnodes:\nlimits:\ninclude:\nmoved:\n")
    assert spec.services == ()
    assert spec.limits.max_parallel_tasks == 16


def test_a_service_stands_once_for_each_environment_in_order_of_ids() -> None:
    spec = valid(with_service("deploy: {kind: manual}\nenvironments: [staging, production]"))
    assert [each.id for each in spec.services] == ["services/production/web", "services/staging/web"]
    assert spec.services[0].unit == "app"
    assert spec.services[0].precedence == (Precedence.ENV, Precedence.SECRETS, Precedence.ENVIRON)


def test_overrides_merge_maps_and_replace_the_rest() -> None:
    spec = valid(
        with_service(
            """paths: [a, b]
secrets: [local]
env: {LOG_LEVEL: info, PORT: 80, GONE: x}
suspend: true
deploy: {kind: invoke, task: up, timeout: 5m}
health: {http: "https://x/health", timeout: 10s}
environments:
  staging:
    env: {LOG_LEVEL: debug, EXTRA: 1, GONE: null}
    deploy: {timeout: 90s}
    health: {interval: 500ms}
    paths: [c]
    suspend: false
  production:
    secrets: [prod]
    deploy: {kind: compose, file: prod.yaml}
    health: {tcp: "x:1"}
    paths: null"""
        )
    )
    staging, production = service(spec, "staging/web"), service(spec, "production/web")
    assert staging.env == {"LOG_LEVEL": "debug", "PORT": "80", "EXTRA": "1"}
    assert staging.deploy == InvokeDeploy(task="up", timeout=90.0)
    assert staging.health is not None
    assert (staging.health.http, staging.health.timeout, staging.health.interval) == (
        "https://x/health",
        10,
        0.5,
    )
    assert staging.paths == ("c",)
    assert not staging.suspend
    assert staging.secrets == (SecretUse(source="local"),)
    assert production.env == {"LOG_LEVEL": "info", "PORT": "80", "GONE": "x"}
    assert production.deploy == ComposeDeploy(file="prod.yaml")
    assert production.health is not None
    assert (production.health.http, production.health.tcp, production.health.timeout) == (None, "x:1", 10)
    assert production.paths == ()
    assert production.secrets == (SecretUse(source="prod"),)


def test_null_takes_a_health_check_away() -> None:
    body = 'deploy: {kind: manual}\nhealth: "tcp://db:5432"\nenvironments: {staging: {health: null}, production: }'
    spec = valid(with_service(body))
    assert service(spec, "staging/web").health is None
    health = service(spec, "production/web").health
    assert health is not None
    assert health.tcp == "db:5432"


def test_a_deploy_may_stand_in_the_environments_alone() -> None:
    body = (
        "environments:\n  staging: {deploy: {kind: manual}}\n"
        "  production: {deploy: {kind: dokploy, server: 'https://d', compose_id: a, api_key: {env: K}}}"
    )
    spec = valid(with_service(body))
    assert service(spec, "staging/web").deploy == ManualDeploy()
    assert service(spec, "production/web").deploy == DokployDeploy(
        server="https://d", compose_id="a", api_key=EnvCredential(name="K")
    )


def test_values_of_env_are_the_text_as_written() -> None:
    written = {
        "A": "012",
        "B": "1.50",
        "C": "yes",
        "D": "True",
        "E": "0x10",
        "F": "2024-01-01",
        "G": "1:30",
        "H": "-0",
        "I": "9" * 30,
        "J": "1e5",
    }
    body = "\n".join(["deploy: {kind: manual}", "environments: [staging]", "env:"])
    body += "".join(f"\n  {key}: {value}" for key, value in written.items())
    assert service(valid(with_service(body)), "staging/web").env == written


def test_dependencies_become_ids_and_a_deploy_by_agent_waits_for_its_project() -> None:
    text = BASE + (
        "services:\n"
        "  db: {repository: app, deploy: {kind: manual}, environments: [staging]}\n"
        "  web: {repository: app, deploy: {kind: agent, project: site, command: up}, environments: [staging], "
        "depends_on: [db, project/assets]}\n"
        "projects:\n"
        "  site: {repository: app, environment: staging, depends_on: [db], sync: {}}\n"
        "  assets: {repository: app, branch: main, sync: {}}\n"
    )
    spec = valid(text)
    web = service(spec, "staging/web")
    assert web.depends_on == ("services/staging/db", "projects/branch/assets", "projects/staging/site")
    assert web.deploy == AgentDeploy(project="site", command="up")
    assert spec.projects["site"].depends_on == ("services/staging/db",)
    assert (spec.projects["site"].scope, spec.projects["assets"].scope) == ("staging", "branch")
    assert (spec.projects["site"].unit, spec.projects["assets"].unit) == ("app", None)


# --- units -------------------------------------------------------------------------------------

UNITS = BASE.replace(
    "{url: git@host:org/app.git}",
    '{url: "git@h:x", units: {platform: {tag_prefix: "p-", paths: ["platform/**"]}, web: {paths: ["web/**", "*.css"]}}}',
)


@pytest.mark.parametrize(
    ("body", "unit"),
    [
        ('paths: ["platform/01.db/**"]', "app/platform"),
        ('paths: ["web/**", "web/a/*.js"]', "app/web"),
        ("paths: [style.css]", "app/web"),
        ('paths: ["web/**", "!platform/**"]', "app/web"),
        ("unit: web", "app/web"),
        ('paths: ["web/**", "platform/**"]', None),
        ('paths: ["docs/**"]', None),
        ("suspend: false", None),
        ("unit: wep", None),
    ],
)
def test_the_unit_follows_from_the_paths_or_is_named(body: str, unit: str | None) -> None:
    text = with_service("deploy: {kind: manual}\nenvironments: [staging]\n" + body)
    result = loaded(UNITS + text.removeprefix(BASE))
    if unit is None:
        [problem] = result.problems
        assert "unit" in problem.message
        assert result.frozen.keys() == {"services/web"}
    else:
        assert result.problems == ()
        assert result.spec is not None
        assert result.spec.services[0].unit == unit


def test_units_have_full_names_and_prefixes() -> None:
    spec = valid(UNITS)
    assert {name: unit.tag_prefix for name, unit in spec.units.items()} == {
        "app/platform": "p-",
        "app/web": "web/",
    }
    assert valid(BASE).units["app"].tag_prefix == ""


def test_shared_paths_are_those_of_each_service_of_the_repository() -> None:
    text = with_service("deploy: {kind: manual}\nenvironments: [staging, production]")
    spec = valid(text + "shared_paths: {app: [libs/**]}\n")
    assert [each.shared_paths for each in spec.services] == [("libs/**",)] * 2


@pytest.mark.parametrize(("written", "soak"), [("", None), (", soak: 0s", 0.0), (", soak: 1h", 3600.0)])
def test_without_a_soak_nothing_is_promoted_by_itself(written: str, soak: float | None) -> None:
    text = BASE.replace("production: {}}", f"production: {{release: {{promote_from: staging{written}}}}}}}")
    assert valid(text).environments["production"].release.soak == soak


def test_an_approval_can_be_asked_for_where_releases_are_cut_too() -> None:
    text = BASE.replace("staging: {}", "staging: {release: {from: main, approval: manual}}")
    assert valid(text).environments["staging"].release.approval == "manual"


# --- projects ----------------------------------------------------------------------------------


def test_labels_become_nodes_and_a_node_named_by_id_is_left_to_that_entry() -> None:
    text = BASE + (
        f'  web-3: {{labels: {{group: db}}, token_key: "{TOKENS[2]}"}}\n'
        "projects:\n  site:\n    repository: app\n    branch: main\n    sync:\n      strategy: overlay\n      keep: 7\n"
        "      nodes:\n"
        "        - {labels: {group: web}, target_path: /srv/b, include: [a], exclude: [b]}\n"
        "        - {node_id: web-1, target_path: /srv/a, strategy: release, keep: 2}\n"
        "        - {labels: {group: none}, target_path: /srv/c}\n"
    )
    assert valid(text).projects["site"].sync.targets == (
        SyncTarget(
            node="web-2", target_path="/srv/b", strategy="overlay", keep=7, include=("a",), exclude=("b",)
        ),
        SyncTarget(node="web-1", target_path="/srv/a", strategy="release", keep=2),
    )


def test_numbers_of_a_sync_have_their_units() -> None:
    text = BASE + (
        "projects:\n  site: {repository: app, branch: main, build: make, sync: {bandwidth: 1.5MiB/s, max_delete: 12.5%, "
        "retry: {backoff: 250ms, max_backoff: 1h30m}, files: [{path: a, format: json, mode: '0640'}], after: [x]}}\n"
    )
    project = valid(text).projects["site"]
    assert project.sync.bandwidth == 1.5 * 2**20
    assert project.sync.max_delete == 0.125
    assert (project.sync.retry.backoff, project.sync.retry.max_backoff) == (0.25, 5400.0)
    assert project.files[0].mode == 0o640
    assert project.after == ("x",)
    assert project.build is not None
    assert (project.build.task, project.build.timeout) == ("make", 600.0)


def test_sources_targets_and_the_rest_are_whole() -> None:
    text = BASE + (
        "secret_targets:\n  t: {kind: github_actions, repo: o/r, from: export, keys: [A, {key: b, name: B}]}\n"
        "notifications: [{url: {secret: local/URL}}]\n"
        "moved: [{from: nodes/old, to: nodes/web-1}]\n"
    )
    spec = valid(text)
    export = spec.secret_sources["export"]
    assert export.settings == GithubActionsSettings(repo="org/devops", token=EnvCredential(name="GH_PAT"))
    assert (export.kind, export.cache_ttl, export.max_stale) == ("github_actions", 300.0, 86400.0)
    assert [(key.key, key.name) for key in spec.secret_targets["t"].keys] == [("A", "A"), ("b", "B")]
    assert spec.secret_targets["t"].source == "export"
    assert spec.notifications[0].url == SecretCredential(source="local", key="URL")
    assert spec.moved == (Move(old="nodes/old", new="nodes/web-1"),)


# --- the hash ----------------------------------------------------------------------------------


def test_the_hash_is_of_the_meaning() -> None:
    plain = with_service("deploy: {kind: compose, timeout: 90s}\nenvironments: [staging]")
    same = (
        plain.replace("90s", "1m30s").replace("[staging]", "{staging: {}}")
        + "# a remark\nlimits: {max_prune: 50%}\n"
    )
    other = plain.replace("90s", "91s")
    assert valid(plain).hash == valid(same).hash
    assert valid(plain).hash != valid(other).hash
