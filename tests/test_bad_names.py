"""Names in git that are not UTF-8: what needs such a tree fails by its name, and everything else goes on."""

import os
from pathlib import Path

import pytest
import trio

from tests.bad_world import API, DATABASE, Case, make_case
from tests.gitrepo import GitRepo
from tests.serving import serving
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


async def test_a_tag_whose_message_is_not_text(tmp_path: Path) -> None:
    """A pass records who asked for the release of a tag that another pass made."""
    async with make_case(tmp_path) as case:
        case.head = case.head.replace("release: {from: main, cut: external}", "release: {from: main}")
        asked = {"Environment": "staging", "Triggered-By": os.fsdecode(b"x\xff")}
        case.world.app.tag("v1.0.0", trailers=asked)
        case.commit(case.good)
        await case.reconcile(expect=0)
        recorded = case.status("environments/staging")["units"]["app"]["release"]
        assert (recorded["tag"], recorded["triggeredBy"]) == ("v1.0.0", "x\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("content", ["servces: {}\n", "7\n"])
async def test_a_file_of_the_spec(tmp_path: Path, content: str) -> None:
    async with make_case(tmp_path) as case:
        included = f"include: ['parts/*.yaml']\n{case.good}"
        case.world.commit_spec(included, {f"parts/{BAD}.yaml": "services: {}\n"})
        await case.reconcile(expect=0)
        case.world.commit_spec(included, {f"parts/{BAD}.yaml": content})
        async with serving(case.world, options=["-v"]) as primary:
            await primary.looked()
            answered = await primary.ask_locally("GET", "/api/plan")
        assert answered.status_code == 200
        assert answered.json()["problems"][0].startswith("parts/b-\\xff.yaml:")
