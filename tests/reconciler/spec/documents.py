"""Helpers for the spec's tests: specs written as text, and what is wrong with them."""

from reconciler.spec.load import SPEC_FILE, Loaded, load
from reconciler.spec.model import Service, Spec

TOKENS = (
    "ed25519:EKGNL8YmSBkF9GX+PQnr+Bn5R+Ek+YCqE5nMSDZcg5A=",
    "ed25519:fJXMRZXwTkTq1XzpaBUhrH5Y7yT9VdTp7ygSUaPnKfU=",
    "ed25519:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
)

BASE = f"""\
version: 1
repositories: {{app: {{url: git@host:org/app.git}}}}
environments: {{staging: {{}}, production: {{}}}}
secret_sources:
  local: {{kind: env_file, file: .env}}
  prod: {{kind: env_file, file: prod.env, environments: [production]}}
  export: {{kind: github_actions, repo: org/devops, token: {{env: GH_PAT}}}}
nodes:
  web-1: {{labels: {{group: web}}, token_key: "{TOKENS[0]}"}}
  web-2: {{labels: {{group: web, disk: slow}}, token_key: "{TOKENS[1]}"}}
"""
"""A valid spec that cases add their own part to; its lines are 1 to 10."""


def loaded(text: str, **files: str) -> Loaded:
    """`files` are further files by name, without their `.yaml`."""
    more = {f"{name}.yaml": content.encode() for name, content in files.items()}
    return load({SPEC_FILE: text.encode(), **more})


def problems(text: str, **files: str) -> list[str]:
    return [str(problem) for problem in loaded(text, **files).problems]


def valid(text: str, **files: str) -> Spec:
    result = loaded(text, **files)
    assert result.problems == ()
    assert result.spec is not None
    return result.spec


def service(spec: Spec, id: str) -> Service:
    return next(each for each in spec.services if each.id == f"services/{id}")
