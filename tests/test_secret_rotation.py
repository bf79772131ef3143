"""A secret changes in Infisical: exactly what uses that key is deployed again, and the plan names the key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_world import Case, make_case
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.vault import vault, vault_environment

SPEC = """\
{vault}
services:
  plain:
    repository: app
    paths: ["database/**"]
    secrets: [{{source: vault, keys: [DB_PASSWORD]}}]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
  prefixed:
    repository: app
    paths: ["api/**"]
    secrets: [{{source: vault, keys: [API_KEY], prefix: APP_}}]
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
  renamed:
    repository: app
    paths: ["api/**"]
    secrets:
      - source: vault
        keys: [DB_USER, mixed-Case]
        rename: {{DB_USER: POSTGRES_USER, mixed-Case: TOKEN}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [staging]
"""


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        running.secrets[running.project, "staging", "/"] = {
            key: canary(f"first-{key}")
            for key in ("DB_PASSWORD", "API_KEY", "DB_USER", "mixed-Case", "NOBODY_S")
        }
        yield running


async def changes(case: Case) -> list[tuple[str, str]]:
    """The steps of a plan with their reasons; then a pass takes them, and nothing is left to do."""
    planned = await case.plan(expect=0)
    steps = [(step["resource"].rpartition("/")[2], step["reason"]) for step in planned.document["steps"]]
    before = {name: len(tags) for name, tags in case.deployed().items()}
    done = await case.reconcile(expect=0)
    after = {name: len(tags) for name, tags in case.deployed().items()}
    assert {name for name in after if after[name] != before[name]} == {name for name, _ in steps}
    assert (await case.plan("--detailed-exitcode", expect=0)).document["steps"] == []
    for ran in (planned, done):
        assert canary("second") not in ran.stdout + ran.stderr
    return steps


async def test_a_changed_secret_deploys_exactly_what_uses_its_key(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    async with make_case(tmp_path) as case:
        case.world.environment |= vault_environment(double)
        case.commit(case.head + SPEC.format(vault=vault(double)))
        await case.reconcile(expect=0)
        assert set(case.deployed()) == {"plain", "prefixed", "renamed"}
        stored = double.secrets[double.project, "staging", "/"]
        stored["DB_PASSWORD"] = canary("second")
        assert await changes(case) == [("plain", "changed: secret DB_PASSWORD")]
        stored["API_KEY"] = canary("second")
        assert await changes(case) == [("prefixed", "changed: secret APP_API_KEY (key API_KEY)")]
        stored |= {"DB_USER": canary("second"), "mixed-Case": canary("second")}
        assert await changes(case) == [
            ("renamed", "changed: secret POSTGRES_USER (key DB_USER), secret TOKEN (key mixed-Case)")
        ]
        stored |= {"NOBODY_S": canary("second"), "NEW": canary("second")}
        assert await changes(case) == []
