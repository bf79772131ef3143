"""Names in git that are not UTF-8: what needs such a tree fails by its name, and everything else goes on."""

import os
from pathlib import Path

import trio

from tests.bad_world import API, DATABASE, Case, make_case
from tests.gitrepo import GitRepo
from tests.world import Ran, tree_of

BAD = os.fsdecode(b"b-\xff")

PROJECTS = """\
nodes: {{}}
projects:
  broken:
    repository: other
    branch: main
    path: site
    sync:
      ignore_patterns: ["b-*"]
      retry: {{attempts: 1, backoff: 10ms}}
      nodes: [{{node_id: web-1, target_path: "{root}/broken"}}]
  good:
    repository: app
    branch: main
    path: site
    sync: {{nodes: [{{node_id: web-1, target_path: "{root}/good"}}]}}
"""


def other_repository(case: Case) -> GitRepo:
    """One that has what the application has, released as that is."""
    other = GitRepo.create(case.world.root / "other.git")
    other.commit(dict(case.world.app.files()))
    other.tag("v1.0.0")
    return other


def two_repositories(case: Case, other: GitRepo) -> str:
    """The good spec, whose service `database` comes from the other one."""
    text = case.good.replace("environments:\n", f'  other: {{url: "{other.url}"}}\nenvironments:\n', 1)
    return text.replace("repository: app", "repository: other", 1)


def refusal(other: GitRepo, directory: str) -> str:
    return (
        f"GitRefused: {other.url}: the tree cannot be placed: '{directory}/b-\\xff' is not UTF-8; "
        "rename or remove them in git"
    )


def told_of(ran: Ran, resource: str) -> str:
    outcome = ran.document["outcomes"][resource]
    assert outcome["state"] == "failed"
    return f"{outcome['reason']}: {outcome['message']}"


async def test_a_file_below_the_path_of_a_project(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        other = other_repository(case)
        other.commit({f"site/{BAD}": "x\n"})
        root = tmp_path / "hosts" / "web-1" / "srv"
        case.commit(two_repositories(case, other) + PROJECTS.format(root=root))
        host = await case.world.add_host("web-1", case.relay)
        broken = f"projects/branch/broken/web-1/{str(root / 'broken').strip('/').replace('/', '+')}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(case.world.start_agent, host)
            ran = await case.reconcile(expect=4)
        assert told_of(ran, broken) == refusal(other, "site")
        assert case.ready(broken)[:2] == ("False", "GitRefused")
        assert tree_of(root).keys() == {"good", "good/index.html"}
        assert case.deployed() == {"api": ["v1.0.0"], "database": ["v1.0.0"]}

        ran = await case.plan("--files", "broken", expect=1)
        [target] = ran.document["targets"]
        assert f"{target['reason']}: {target['message']}" == refusal(other, "site")
        ran = await case.plan("--files", "good", expect=0)
        assert [target["state"] for target in ran.document["targets"]] == ["equal"]

        other.commit({f"site/{BAD}": None})
        await case.reconcile(expect=0)
        assert (root / "broken/index.html").exists()


async def test_a_file_among_the_paths_of_a_service(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        other = other_repository(case)
        case.commit(two_repositories(case, other))
        await case.reconcile(expect=0)
        other.commit({f"database/{BAD}": "x\n"})
        other.tag("v1.1.0")
        case.release("v1.1.0")
        planned = await case.plan(expect=0)
        assert [step["resource"] for step in planned.document["steps"]] == [API, DATABASE]
        ran = await case.reconcile(expect=4)
        assert told_of(ran, DATABASE) == refusal(other, "database")
        assert case.ready(DATABASE)[:2] == ("False", "GitRefused")
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0"]}
