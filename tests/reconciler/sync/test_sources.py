"""What projects are synced from: one checkout and one build a commit, and nothing outside of it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.errors import PathRefused
from reconciler.deploy.context import RunContext
from reconciler.deploy.request import BuildFailed
from reconciler.desired import DesiredSync, Revision
from reconciler.errors import StepFailed
from reconciler.git.process import GitOptions
from reconciler.repositories import Repositories
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.sync.sources import ProjectSources
from tests.gitrepo import GitRepo
from tests.reconciler.facts import HEAD, commit_paths, desired

PROJECT = """\
projects:
  site:
    repository: app
    branch: main
    path: dist
    build: {task: build}
    sync:
      nodes:
        - {node_id: web-1, target_path: /srv/a}
        - {node_id: web-1, target_path: /srv/b, exclude: ["*.map"]}
"""
TASKS = """\
from pathlib import Path
from invoke import task

@task
def build(c):
    with Path({log!r}).open("a") as log:
        log.write("built\\n")
    {body}
"""
MAKE = (
    'Path("dist").mkdir(); Path("dist/index.html").write_text("made"); Path("dist/x.map").write_text("map")'
)


@asynccontextmanager
async def sources(tmp_path: Path, body: str) -> AsyncIterator[tuple[ProjectSources, list[DesiredSync]]]:
    """The targets of a project whose build does what `body` says; the log of its builds is `built`."""
    remote = GitRepo.create(tmp_path / "app.git")
    tasks = TASKS.format(log=str(tmp_path / "built"), body=body)
    commit = remote.commit({"tasks.py": tasks, "README": "read me\n"})
    text = HEAD.replace("https://git.example/app.git", remote.url) + PROJECT
    spec = load_or_raise({SPEC_FILE: text.encode()})
    made = desired(
        PROJECT,
        spec=spec,
        branches={("app", "main"): Revision("main", commit)},
        commits={commit: commit_paths()},
    )
    repositories = Repositories(tmp_path / "mirrors", GitOptions(allow_local=True))
    (tmp_path / "mirrors").mkdir()
    await repositories.refresh(remote.url)
    context = RunContext({"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}, tmp_path / "homes")
    async with ProjectSources(spec, repositories, tmp_path / "checkouts", context) as found:
        yield found, list(made.syncs().values())


async def test_all_targets_come_from_one_checkout_and_one_build(tmp_path: Path) -> None:
    async with sources(tmp_path, MAKE) as (found, targets):
        await found.build(targets[0])
        trees = [await found.tree(target) for target in targets]
        assert [[entry.path for entry in tree.entries] for tree in trees] == [
            ["index.html", "x.map"],
            ["index.html"],
        ]
        assert [tree.times for tree in trees] == [False, False]
        assert {entry.mtime_ns for tree in trees for entry in tree.entries} == {0}
        assert len(list((tmp_path / "checkouts").glob("tree-*"))) == 1
    assert (tmp_path / "built").read_text() == "built\n"
    assert list((tmp_path / "checkouts").glob("tree-*")) == []


async def test_a_build_that_fails(tmp_path: Path) -> None:
    async with sources(tmp_path, "raise SystemExit(3)") as (found, targets):
        with pytest.raises(BuildFailed, match="exit code 3"):
            await found.build(targets[0])


async def test_a_build_that_leaves_nothing(tmp_path: Path) -> None:
    async with sources(tmp_path, "pass") as (found, targets):
        await found.build(targets[0])
        with pytest.raises(StepFailed, match="`dist` does not exist after the build of main@sha1:"):
            await found.tree(targets[0])


async def test_a_link_within_the_checkout_is_followed(tmp_path: Path) -> None:
    within = 'Path("out").mkdir(); Path("out/index.html").write_text("made"); Path("dist").symlink_to("out")'
    async with sources(tmp_path, within) as (found, targets):
        await found.build(targets[0])
        assert [entry.path for entry in (await found.tree(targets[0])).entries] == ["index.html"]


async def test_a_link_out_of_the_checkout_is_not(tmp_path: Path) -> None:
    """A build may run as another user than the primary, who could read more than the build."""
    private = tmp_path / "private"
    private.mkdir()
    (private / "master.key").write_text("not for hosts\n")
    out = f'Path("dist").symlink_to({str(private)!r})'
    async with sources(tmp_path, out) as (found, targets):
        await found.build(targets[0])
        with pytest.raises(PathRefused, match="`dist` leads out of the checkout"):
            await found.tree(targets[0])
