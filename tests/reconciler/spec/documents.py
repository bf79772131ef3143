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

OK = "repository: app, deploy: {kind: manual}, environments: [staging]"
"""What a service needs at least, as it stands between the braces of a map."""


def loaded(text: str, **files: str) -> Loaded:
    """`files` are further files by name, without their `.yaml`."""
    more = {f"{name}.yaml": content.encode() for name, content in files.items()}
    return load({SPEC_FILE: text.encode(), **more})


def problems(text: str, **files: str) -> list[str]:
    return [str(problem) for problem in loaded(text, **files).problems]


def added(text: str) -> list[str]:
    """The problems of a part that follows `BASE`, without their places."""
    return [each.partition(": ")[2] for each in problems(BASE + text)]


def check_freezes_alone(part: str, expected: str) -> None:
    """One resource, in a file of its own, has this one problem; all else of the spec stays in use."""
    section = part.partition(":")[0]
    name = part.split("\n  ")[1].partition(":")[0]
    main = BASE.replace("version: 1\n", "version: 1\ninclude: [part.yaml]\n", 1)
    result = loaded(main, part="#\n" * 10 + part + "\n")
    [problem] = result.problems
    assert expected in str(problem)
    assert problem.file == "part.yaml"
    assert problem.resource == f"{section}/{name}"
    assert list(result.frozen) == [f"{section}/{name}"]
    assert result.spec is not None
    assert set(result.spec.environments) == {"staging", "production"}
    assert set(result.spec.nodes) == {"web-1", "web-2"}
    assert len(result.spec.secret_sources) == 3


def valid(text: str, **files: str) -> Spec:
    result = loaded(text, **files)
    assert result.problems == ()
    assert result.spec is not None
    return result.spec


def service(spec: Spec, id: str) -> Service:
    return next(each for each in spec.services if each.id == f"services/{id}")
