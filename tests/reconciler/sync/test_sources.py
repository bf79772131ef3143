"""What projects are synced from: one checkout and one build a commit, and nothing outside of it."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.errors import PathRefused, TransferFailed
from reconciler.deploy.context import RunContext
from reconciler.deploy.request import BuildFailed
from reconciler.desired import DesiredSync, Revision
from reconciler.errors import LookFailed, StepFailed
from reconciler.git.process import GitOptions
from reconciler.repositories import Repositories
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.sync import streamed
from reconciler.sync.lasting import LastingCheckouts
from reconciler.sync.serving import TreeSource
from reconciler.sync.sources import ProjectSources
from tests.agent.syncing import without_times
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


async def test_all_targets_share_one_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    async with sources(tmp_path, MAKE) as (found, targets):
        await found.build(targets[0])
        first = await found.tree(targets[0], whole=False)
        assert first.growing is not None
        assert first.bytes == len("made") + len("map")
        again = await found.tree(targets[0], whole=False)
        whole = await found.tree(targets[0])
        assert again is first
        assert whole.frames is (await first.whole()).frames is first.frames
        assert await found.tree(targets[0], whole=False) == whole
        built = await TreeSource.build(whole.directory, ignore=targets[0].ignore)
        assert whole == replace(without_times(built), mtime_ns=whole.mtime_ns)
        assert whole.growing is None


async def test_what_is_hashed_in_one_go_is_hashed_first(tmp_path: Path) -> None:
    async with sources(tmp_path, MAKE) as (found, targets):
        await found.build(targets[0])
        assert (await found.tree(targets[0], whole=False)).growing is None


async def test_hashing_that_failed_is_tried_again_by_who_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    async with sources(tmp_path, MAKE) as (found, targets):
        await found.build(targets[0])
        (index,) = (tmp_path / "checkouts").glob("tree-*/dist/index.html")
        growing = await found.tree(targets[0], whole=False)
        index.write_text("changed")
        with pytest.raises(LookFailed, match="changed while it was read"):
            await growing.whole()
        assert [entry.size for entry in (await found.tree(targets[0])).entries] == [7, 3]


async def test_a_pass_that_ends_ends_the_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what ended it stays what it was."""
    monkeypatch.setattr(streamed, "PORTION_FILES", 1)
    with pytest.raises(StepFailed, match="enough"):
        async with sources(tmp_path, MAKE) as (found, targets):
            await found.build(targets[0])
            growing = await found.tree(targets[0], whole=False)
            raise StepFailed("enough")
    assert list((tmp_path / "checkouts").glob("tree-*")) == []
    with pytest.raises(TransferFailed, match="nobody goes on"):
        await growing.whole()


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


PLAIN = PROJECT.replace("    path: dist\n    build: {task: build}\n", "    path: dist\n")


@dataclass
class Passes:
    """Passes over a project that builds nothing; what one leaves, another may find."""

    root: Path
    remote: GitRepo
    lasting: LastingCheckouts

    async def look(self, commit: str, project: str = PLAIN, *, doubt: bool = False) -> list[TreeSource]:
        """The trees of all targets in one pass; with `doubt` something of them was not there in the end, as
        somebody has altered it."""
        text = HEAD.replace("https://git.example/app.git", self.remote.url) + project
        spec = load_or_raise({SPEC_FILE: text.encode()})
        branches = {("app", "main"): Revision("main", commit)}
        files = commit_paths(dict.fromkeys(("dist/index.html", "other/a"), "1"))
        made = desired(project, spec=spec, branches=branches, commits={commit: files})
        repositories = Repositories(self.root / "mirrors", GitOptions(allow_local=True))
        await repositories.refresh(self.remote.url)
        context = RunContext({"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}, self.root / "homes")
        given = spec, repositories, self.root / "checkouts", context
        async with ProjectSources(*given, lasting=self.lasting) as found:
            targets = made.syncs().values()
            trees = [await found.tree(target) for target in targets]
            for target, before in zip(targets, trees, strict=True) if doubt else ():
                (before.directory / "index.html").write_text("altered")
                found.doubt(target)
                assert (await found.tree(target)).tree == before.tree
            return trees

    @property
    def checkouts(self) -> set[int]:
        """What tells one from another that took its place."""
        return {path.stat().st_ino for path in (self.root / "checkouts").glob("tree-*")}


@asynccontextmanager
async def passes_of(root: Path, lasting: LastingCheckouts) -> AsyncIterator[Passes]:
    (root / "mirrors").mkdir()
    passes = Passes(root, GitRepo.create(root / "app.git"), lasting)
    yield passes
    await lasting.close()
    assert passes.checkouts == set()


async def test_a_later_pass_finds_the_checkout_and_the_tree_of_an_earlier_one(tmp_path: Path) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        commit = passes.remote.commit({"dist/index.html": "one", "dist/x.map": "map", "other/a": "a"})
        first = await passes.look(commit)
        [made] = passes.checkouts
        again = await passes.look(commit)
        assert passes.checkouts == {made}
        assert [tree.entries for tree in again] == [tree.entries for tree in first]
        # The very same: nothing was hashed.
        assert all(now is before for now, before in zip(again, first, strict=True))
        # Another directory of the same commit is another tree of the same checkout.
        [other, _] = await passes.look(commit, PLAIN.replace("path: dist", "path: other"))
        assert passes.checkouts == {made}
        assert [entry.path for entry in other.entries] == ["a"]
        [ignoring, _] = await passes.look(
            commit, PLAIN.replace("sync:\n", 'sync:\n      ignore_patterns: ["*.html"]\n')
        )
        assert [entry.path for entry in ignoring.entries] == ["x.map"]


async def test_what_somebody_changed_in_a_checkout_is_not_taken(tmp_path: Path) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        commit = passes.remote.commit({"dist/index.html": "one", "dist/x.map": "map"})
        [first, _] = await passes.look(commit)
        (first.directory / "index.html").write_text("two")
        [again, _] = await passes.look(commit)
        assert again.tree == first.tree
        assert (again.directory / "index.html").read_text() == "one"
        assert not first.directory.exists()
        (again.directory / "x.map").unlink()
        [third, _] = await passes.look(commit)
        assert third.tree == first.tree
        assert (third.directory / "x.map").read_text() == "map"
        assert len(passes.checkouts) == 1


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [({"most": 2}, 2), ({"max_bytes": 7}, 1), ({"max_files": 3}, 1), ({"max_bytes": 4}, 0)],
)
async def test_checkouts_are_kept_within_bounds(tmp_path: Path, bounds: dict[str, int], kept: int) -> None:
    async with passes_of(tmp_path, LastingCheckouts(**bounds)) as passes:
        commit = passes.remote.commit({"dist/index.html": "new", "dist/x.map": "ap"})
        projects = [PLAIN.replace("  site:", f"  site{number}:") for number in range(3)]
        for project in projects:
            await passes.look(commit, project)
        left = passes.checkouts
        assert len(left) == kept
        for project in reversed(projects[len(projects) - kept :]):
            await passes.look(commit, project)
            assert passes.checkouts == left


async def test_a_checkout_of_another_commit_is_made_of_the_last_one(tmp_path: Path) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        commit = passes.remote.commit({"dist/index.html": "one", "dist/deep/x.map": "map", "other/a": "a"})
        [first, _] = await passes.look(commit)
        [made] = passes.checkouts
        for number in range(3):
            commit = passes.remote.commit({"dist/index.html": f"now {number}", f"dist/new{number}": "new"})
            [now, _] = await passes.look(commit)
            assert passes.checkouts == {made}
            assert (now.directory / "index.html").read_text() == f"now {number}"
            assert now.tree == (await TreeSource.build(now.directory)).tree
            # The very same: it was not hashed again.
            [before, after] = (
                next(entry for entry in tree.entries if entry.path == "deep/x.map") for tree in (first, now)
            )
            assert after is before
        again = passes.remote.commit({"dist/index.html": "one", **{f"dist/new{n}": None for n in range(3)}})
        [last, _] = await passes.look(again)
        assert last.tree == first.tree


async def test_a_checkout_in_use_is_not_made_another(tmp_path: Path) -> None:
    lasting = LastingCheckouts()
    async with passes_of(tmp_path, lasting) as passes:
        commit = passes.remote.commit({"dist/index.html": "one"})
        [first, _] = await passes.look(commit)
        held = await lasting.borrow((passes.remote.url, "site", commit))
        assert held is not None
        await passes.look(passes.remote.commit({"dist/index.html": "two"}))
        assert len(passes.checkouts) == 2
        assert (first.directory / "index.html").read_text() == "one"
        await lasting.release((passes.remote.url, "site", commit), held)


@pytest.mark.parametrize(
    "alter",
    [
        lambda tree: (tree / "index.html").write_text("altered"),
        lambda tree: (tree / "index.html").chmod(0o600),
        lambda tree: (tree / "deep").chmod(0o700),
        lambda tree: (tree.parent / ".git/index").unlink(),
        lambda tree: (tree.parent / ".git/index").write_bytes(b"damaged"),
    ],
    ids=["content", "mode", "mode of a directory", "no index", "damaged index"],
)
async def test_what_was_altered_is_made_into_nothing_else(
    tmp_path: Path, alter: Callable[[Path], object]
) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        files = {"dist/index.html": "one", "dist/deep/x": "x"}
        [first, _] = await passes.look(passes.remote.commit(files))
        alter(first.directory)
        [second, _] = await passes.look(passes.remote.commit({"other/a": "a"}))
        assert len(passes.checkouts) == 1
        assert not first.directory.exists()
        assert (second.directory / "index.html").read_text() == "one"
        assert second.tree == first.tree
        assert all(there.mode == 0o644 for there in second.found.values())


async def test_other_attributes_make_another_checkout(tmp_path: Path) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        [first, _] = await passes.look(passes.remote.commit({"dist/a.txt": "one\n"}))
        [second, _] = await passes.look(passes.remote.commit({".gitattributes": "*.txt text eol=crlf\n"}))
        assert first.directory != second.directory
        assert (second.directory / "a.txt").read_bytes() == b"one\r\n"


async def test_a_checkout_that_is_in_use_goes_with_its_last_user(tmp_path: Path) -> None:
    lasting = LastingCheckouts()
    async with passes_of(tmp_path, lasting) as passes:
        commit = passes.remote.commit({"dist/index.html": "one"})
        await passes.look(commit)
        key = passes.remote.url, "site", commit
        first, second = await lasting.borrow(key), await lasting.borrow(key)
        assert first is not None
        assert first is second
        await lasting.close()
        await lasting.release(key, first)
        assert len(passes.checkouts) == 1
        assert await lasting.borrow((*key[:2], "another")) is None
        await lasting.release(key, first)
        assert passes.checkouts == set()


async def test_what_was_not_served_as_it_was_hashed_is_left_to_nobody(tmp_path: Path) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        commit = passes.remote.commit({"dist/index.html": "one"})
        [before, *_] = await passes.look(commit, doubt=True)
        [anew] = passes.checkouts
        assert not before.directory.exists()
        [now, *_] = await passes.look(commit)
        assert passes.checkouts == {anew}
        assert now.tree == before.tree


async def test_what_a_build_is_run_in_is_left_to_nobody(tmp_path: Path) -> None:
    async with passes_of(tmp_path, LastingCheckouts()) as passes:
        commit = passes.remote.commit({"dist/index.html": "one"})
        await passes.look(commit, PROJECT)
        assert passes.checkouts == set()
