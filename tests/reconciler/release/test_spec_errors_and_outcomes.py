"""A service that the spec has an error in runs no release, and so lets none count as one that succeeded."""

from datetime import UTC, datetime

from reconciler.release.rules import proven
from tests.golden_world import GoldenWorld, oid

SPEC = """\
version: 1
repositories: {app: {url: "https://git.example/app.git"}}
environments:
  staging: {release: {from: main}}
services:
  api: {repository: app, paths: ["api/**"], deploy: {kind: invoke, task: api}, environments: [staging]}
  web: {repository: app, paths: ["web/**"], deploy: {kind: invoke, task: web}, environments: [staging]}
"""


async def test_a_release_has_not_succeeded_while_one_of_its_services_has_an_error() -> None:
    world = GoldenWorld(now=datetime(2026, 3, 2, 10, tzinfo=UTC))
    world.set_spec(SPEC, "spec-1")
    world.commit("one", None, {"web/a": "1", "api/a": "1"})
    world.branches["main"] = "one"
    await world.plan().apply({})
    assert proven(world.recorded.environments["environments/staging"].units["app"].release)

    world.specs[oid("spec-2")] = SPEC.replace("task: api", "tusk: api").encode()
    world.spec_commit = oid("spec-2")
    world.commit("two", "one", {"web/a": "2", "api/a": "2"})
    world.branches["main"] = "two"
    await world.plan().apply({})
    release = world.recorded.environments["environments/staging"].units["app"].release
    assert (release.commit, release.outcome) == (oid("two"), "")

    world.set_spec(SPEC, "spec-3")
    await world.plan().apply({})
    assert proven(world.recorded.environments["environments/staging"].units["app"].release)
