# ruff: noqa: E501 - the design's own lines
"""The spec of the design document, as it stands there: it is valid, and every value in it counts.

Two placeholders are filled in: the node's token, and the project that an `agent` deploy belongs to.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.spec.base_parts import plain
from reconciler.spec.load import SPEC_FILE, Loaded, load
from reconciler.spec.model import AgentDeploy, SyncTarget, TargetKey
from reconciler.spec.yaml_reader import Budget, YamlFile, read_yaml
from tests.reconciler.spec.documents import TOKENS

DESIGN = """\
# yaml-language-server: $schema=./schema/spec.v1.schema.json
version: 1
include: [services/*.yaml]
limits: {max_parallel_steps: 8, max_parallel_tasks: 16, max_prune: 50%}
shared_paths: {infra: ["libs/**"]}        # a change here concerns every service of that repository

repositories:
  infra:
    url: git@github.com:org/infra.git
    branch: main
    verify: {signatures: none}            # none | tag | commit, with allowed_signers
    units: {}                             # {platform: {tag_prefix: "platform/", paths: ["platform/**"]}}; none: the repository is the unit
  project-a: {url: git@github.com:org/project-a.git, branch: main}

secret_sources:
  my-app-prod:
    kind: infisical               # infisical | env_file | environ | age | sops; github_actions only as a target's `from`
    enabled: true                 # false: skipped, its fallback serves
    environments: [production]    # which environments it may serve; none named: all
    host: https://app.infisical.com
    project_id: 65abc123def456
    environment_slug: prod
    secret_path: /
    recursive: false
    client_id: {env: INFISICAL_CLIENT_ID}
    client_secret: {env: INFISICAL_CLIENT_SECRET}
    cache_ttl: 5m                 # 0s (no cache) to 3600s
    refresh_interval: 5m          # 0s: none; due at min(this, 0.8 x cache_ttl), so that the cache stays warm
    max_stale: 24h                # how long a stale value may still serve
    fallback: [local]             # further sources, in order
  local: {kind: env_file, file: .env}
  shared: {kind: github_actions, repo: org/devops, token: {env: GH_PAT}, export_event: export-secret, org_fallback: true}

secret_targets:                   # push into other systems
  billing:
    kind: github_actions
    repo: org/billing-backend
    environment: null             # or a GitHub environment; or org: with explicit visibility
    from: my-app-prod             # or shared (export by dispatch)
    keys: [POSTGRES_PASSWORD, {key: REDIS_URL, name: CACHE_URL}]
    groups: [[DB_USER, DB_PASSWORD]]      # converge together; GroupIncomplete meanwhile
    prune: owned                  # never | owned
    timeout: 30s

environments:
  staging:
    release: {from: main, bump: patch, cut: reconciler}     # reconciler | external (a workflow makes the tags)
    spec_from: head               # head | release
  production:
    release: {promote_from: staging, bump: minor, approval: manual, soak: 1h}
    spec_from: release            # services and projects as the released spec revision has them
    windows: [{allow: "Mon-Thu 09:00-17:00", timezone: Europe/Berlin}]
    on_failure: rollback          # rollback | hold | continue

services:
  postgres:
    repository: infra
    paths: ["platform/01.postgres/**"]
    secrets: [local]                      # a source, or {source: my-app-prod, keys: [DB_URL], prefix: "", rename: {}}; the last one wins
    env: {LOG_LEVEL: info}
    precedence: [env, secrets, environ]   # strongest first
    environ: []                           # names of the primary's own variables that may pass, none by default
    deploy: {kind: invoke, task: postgres.sync}
    health: {http: "https://db.example/health", timeout: 60s, interval: 2s}
    depends_on: []                        # services, or project/NAME
    suspend: false
    environments:                         # a list, or a map of overrides of anything above
      staging: {env: {LOG_LEVEL: debug}}
      production: {secrets: [my-app-prod], deploy: {kind: dokploy, compose_id: abc, server: https://dokploy.example, api_key: {env: DOKPLOY_KEY}}}
  web:
    repository: infra
    paths: ["web/**"]
    deploy: {kind: agent, project: project-a, command: compose-up, on_failure: stop}     # or compose: docker compose on the primary's own host
    environments: [production]
  bootstrap: {repository: infra, paths: ["bootstrap/**"], environments: [production], deploy: {kind: manual}}   # reported, never applied

nodes:
  web-1: {name: Web 1, labels: {group: web}, token_key: "ed25519:EKGNL8YmSBkF9GX+PQnr+Bn5R+Ek+YCqE5nMSDZcg5A=", fingerprint: null}   # public half of the node's token; optional pin

projects:
  project-a:
    name: Project A
    repository: project-a         # or source: {directory: /srv/build/project-a, watch: true} on the primary
    environment: production       # its unit's release there; or branch: main
    path: dist                    # directory inside the checkout
    build: {task: build, timeout: 10m}
    sync:
      enabled: true
      driver: agent
      strategy: mirror            # mirror | overlay | release (atomic switch, keep: N)
      max_parallel_nodes: 2
      ignore_defaults: true       # .git, runtime, tmp
      ignore_patterns: ["node_modules/**", "*.log"]
      ignore_file: sync.ignore
      ignore_permissions: true
      delete_foreign: false       # mirror deletes what trueup put there; true: everything else too
      max_delete: 50%
      on_local_edit: overwrite    # overwrite | keep | backup
      on_drift: heal              # heal | report
      on_unreachable: skip        # skip the node | block what depends on this project
      durability: commit          # none | commit | paced
      bandwidth: 50MiB/s
      retry: {attempts: 5, backoff: 1s, max_backoff: 5m}
      nodes:
        - {node_id: web-1, target_path: /srv/project-a, strategy: mirror}
        - {labels: {group: web}, target_path: /srv/project-b, include: ["dist/**"], exclude: [".git/**"]}    # node_id wins where both match
      files:                      # rendered in memory, reserved paths in the target: never deleted, never compared with the tree
        - {path: .env, format: dotenv, mode: "0600", owner: app, secrets: [my-app-prod]}
        - {path: app.toml, template: deploy/app.toml.j2, mode: "0640", secrets: [my-app-prod]}
      after: [restart-web]        # names of commands that the node's own configuration allows

moved: [{from: projects/old, to: projects/project-a}]      # a rename is not a delete
notifications: [{url: {env: NOTIFY_URL}, on: [failed, recovered, degraded, awaiting_approval]}]    # apprise URLs
"""

OTHER_VALUES: tuple[Any, ...] = (
    *("7s", "7%", "7MiB/s", "0777", "OTHER", "/other", "local", "infra", "project-a", "staging"),
    *("patch", "major", "external", "none", "head", "release", "hold", "never", "report", "block", "json"),
    *("overlay", "keep", "paced", "continue", "daily 00:00-01:00", "Asia/Tokyo", "projects/x"),
    *("https://other.example", "services/*", TOKENS[1], "f" * 64, 7, True, False),
)
TIED = {
    "version",
    "include.0",
    "repositories.infra.verify.signatures",
    "environments.production.release.promote_from",
    "services.web.deploy.project",
    "services.web.environments.0",
    "projects.project-a.environment",
    "projects.project-a.sync.strategy",
    "projects.project-a.sync.nodes.0.node_id",
    "projects.project-a.sync.nodes.1.labels.group",
    "projects.project-a.sync.nodes.1.target_path",
    "projects.project-a.sync.nodes.1.include.0",
    "projects.project-a.sync.nodes.1.exclude.0",
    "moved.0.to",
}
"""Values that cannot change alone, or that others override here: the test of them is one for all."""


def loaded(document: object) -> Loaded:
    return load({SPEC_FILE: json.dumps(document).encode(), "services/none.yaml": b""})


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, (*path, index))
    else:
        yield path


def with_other(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """A copy of the document in which `path` has `value`."""
    if not path:
        return value
    copied: Any = dict(document) if isinstance(document, dict) else list(document)
    below = document.get(path[0]) if isinstance(document, dict) else document[path[0]]
    copied[path[0]] = with_other(below, path[1:], value)
    return copied


def without(document: Any, path: tuple[Any, ...]) -> Any:
    """A copy of the document that lacks the item of a list at `path`."""
    items = document
    for step in path[:-1]:
        items = items[step]
    return with_other(document, path[:-1], [*items[: path[-1]], *items[path[-1] + 1 :]])


def document() -> Any:
    read = read_yaml(SPEC_FILE, DESIGN.encode(), Budget())
    assert isinstance(read, YamlFile)
    return plain(read.data)


DOCUMENT: Any = document()


def name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def is_told_elsewhere(path: tuple[Any, ...]) -> bool:
    return name(path) in TIED or path[-1] in ("kind", "driver")


LEAVES = [path for path in leaves(DOCUMENT) if not is_told_elsewhere(path)]


def test_it_is_valid() -> None:
    found = load({SPEC_FILE: DESIGN.encode(), "services/none.yaml": b""})
    assert found.problems == ()
    assert found.spec is not None
    assert [each.id for each in found.spec.services] == [
        "services/production/bootstrap",
        "services/production/postgres",
        "services/production/web",
        "services/staging/postgres",
    ]


def variations(path: tuple[Any, ...]) -> Iterator[Any]:
    """The document with another value at the path, or without it where it is an item of a list."""
    value: Any = DOCUMENT
    for step in path:
        value = value[step]
    if isinstance(path[-1], int):
        yield without(DOCUMENT, path)
    for other in (f"{value}x", *OTHER_VALUES):
        yield with_other(DOCUMENT, path, other)


@pytest.mark.parametrize("path", LEAVES, ids=name)
def test_every_value_reaches_the_model(path: tuple[Any, ...]) -> None:
    written = loaded(DOCUMENT)
    assert written.spec is not None
    for document in variations(path):
        changed = loaded(document)
        if not changed.problems and changed.spec is not None and changed.spec.hash != written.spec.hash:
            return
    pytest.fail("no other valid value makes a difference")


def test_the_values_that_are_tied_to_others_reach_the_model() -> None:
    spec = loaded(DOCUMENT).spec
    assert spec is not None
    assert spec.repositories["infra"].verify.signatures == "none"
    assert spec.environments["production"].release.promote_from == "staging"
    web = next(each for each in spec.services if each.name == "web")
    assert web.environment == "production"
    assert web.deploy == AgentDeploy(project="project-a", command="compose-up", on_failure="stop")
    assert web.depends_on == ("projects/production/project-a",)
    [target] = spec.projects["project-a"].sync.targets
    assert (target.node, target.target_path, target.strategy) == ("web-1", "/srv/project-a", "mirror")
    assert spec.moved[0].new == "projects/project-a"
    # A second node of the group is only met by the entry with labels, and takes the project's strategy.
    more = with_other(DOCUMENT, ("nodes", "web-2"), {"labels": {"group": "web"}, "token_key": TOKENS[1]})
    both = loaded(with_other(more, ("projects", "project-a", "sync", "strategy"), "overlay")).spec
    assert both is not None
    assert both.projects["project-a"].sync.targets == (
        SyncTarget(node="web-1", target_path="/srv/project-a", strategy="mirror"),
        SyncTarget(
            node="web-2",
            target_path="/srv/project-b",
            strategy="overlay",
            include=("dist/**",),
            exclude=(".git/**",),
        ),
    )


def test_a_member_of_a_group_is_pushed_without_being_listed() -> None:
    spec = loaded(DOCUMENT).spec
    assert spec is not None
    assert spec.secret_targets["billing"].keys == (
        TargetKey(key="POSTGRES_PASSWORD", name="POSTGRES_PASSWORD"),
        TargetKey(key="REDIS_URL", name="CACHE_URL"),
        TargetKey(key="DB_USER", name="DB_USER"),
        TargetKey(key="DB_PASSWORD", name="DB_PASSWORD"),
    )
