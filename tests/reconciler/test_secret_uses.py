"""Who uses which source, and what a pass asks for: one list for passes, commands and the API."""

import pytest

from reconciler.errors import SettingsError
from reconciler.secret_uses import Purpose, Use, asked_environments, uses_of
from reconciler.secrets_sync import refuse_unknown
from reconciler.spec.load import SPEC_FILE, load_or_raise
from tests.reconciler.facts import HEAD

SOURCES = """\
secret_sources:
  local: {kind: env_file, file: .env}
  vault:
    kind: infisical
    project_id: p
    environment_slug: prod
    environments: [staging]
    client_id: {secret: local/ID}
    client_secret: {env: SECRET}
    fallback: [local]
  idle: {kind: env_file, file: idle.env}
  devops: {kind: github_actions, repo: org/devops, token: {env: GH_PAT}}
"""
TEXT = """\
services:
  web:
    repository: app
    secrets: [{source: vault, keys: [A, B], rename: {B: C}}]
    deploy: {kind: invoke, task: t}
    environments: [staging]
projects:
  site:
    repository: app
    branch: main
    sync:
      nodes: [{node_id: web-1, target_path: /srv/site}]
      files: [{path: .env, format: dotenv, secrets: [local]}]
secret_targets:
  billing: {kind: github_actions, repo: org/billing, token: {env: GH_PAT}, from: vault, keys: [A]}
  pulled: {kind: github_actions, repo: org/pulled, token: {env: GH_PAT}, from: devops, keys: [X]}
"""
HEADER = HEAD.replace("secret_sources: {local: {kind: env_file, file: .env}}\n", SOURCES)


def test_each_use_names_its_keys_and_what_for() -> None:
    spec = load_or_raise({SPEC_FILE: (HEADER + TEXT).encode()})
    assert list(uses_of(spec)) == [
        Use("vault", "staging", "services/staging/web", Purpose.DEPLOY, ("A", "B")),
        Use("local", "", "projects/branch/site", Purpose.RENDER, (), ".env"),
        Use("vault", "staging", "targets/billing", Purpose.PUSH, ("A",)),
        Use("devops", "", "targets/pulled", Purpose.EXPORT, ("X",)),
        Use("local", "", "secrets/vault", Purpose.CREDENTIAL, ("ID",)),
        Use("local", "", "secrets/vault", Purpose.FALLBACK),
    ]
    assert asked_environments(spec) == {"local": ("",), "vault": ("staging",), "idle": (), "devops": ()}


def test_an_unknown_source_is_answered_with_a_near_one() -> None:
    refuse_unknown("vault", ["vault", "local"])
    with pytest.raises(SettingsError, match="did you mean vault"):
        refuse_unknown("valt", ["vault", "local"])
