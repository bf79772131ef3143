"""Repositories, branches and tags that are not as they should be: said clearly, and nothing is lost by it."""

import shutil
from pathlib import Path

import pytest
import trio

from tests.bad_world import API, BOTH, DATABASE, Case, checked, error, errors, make_case

NO_SUCH = "no such repository there, or our credentials do not show it"


async def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


def moved(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


async def test_a_spec_repository_that_cannot_be_reached(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        url = f"https://127.0.0.1:{await closed_port()}/spec.git"
        refused = await case.reconcile("--spec-repo", url, expect=1)
        assert error(refused).startswith(f"error: {url}: the connection was refused (")
        assert error(refused).endswith("; check that the server runs and the port is right")
        nowhere = str(case.world.root / "nowhere.git")
        missing = await case.reconcile("--spec-repo", nowhere, expect=1)
        assert error(missing).startswith(f"error: {nowhere}: {NO_SUCH} (")
        assert error(missing).endswith("; check the URL and the permissions")
        assert refused.stdout == missing.stdout == ""
        assert error(await case.plan("--spec-repo", nowhere, expect=1)) == error(missing)
        got = checked(await case.world.trueup("get", "--spec-repo", nowhere, expect=1))
        assert error(got) == error(missing)
        # One that was reached before is not worked with from memory: its newest state is unknown.
        await case.deploy_all()
        commits = case.world.status_commits()
        case.release("v1.1.0")
        away = moved(case.world.spec.path, "away.git")
        assert NO_SUCH in error(await case.reconcile(expect=1))
        moved(away, case.world.spec.path.name)
        assert case.deployed() == BOTH
        assert case.world.status_commits() == commits


@pytest.mark.parametrize("kind", ["path", "https"])
async def test_an_application_repository_that_cannot_be_reached(tmp_path: Path, kind: str) -> None:
    async with make_case(tmp_path) as case:
        other = Path(shutil.copytree(case.world.app.path, case.world.root / "other.git"))
        url = other.as_uri() if kind == "path" else f"https://127.0.0.1:{await closed_port()}/other.git"
        await check_other_repository(case, other, url)


async def check_other_repository(case: Case, other: Path, url: str) -> None:
    """`database` comes from a repository that is there or not, `api` from one that always is."""
    good = two_repositories(case, other.as_uri())
    case.commit(good)
    await case.reconcile(expect=0)
    recorded = case.status(DATABASE)
    # From now on unreachable, while a new release waits in both.
    away = moved(other, "away.git")
    case.commit(two_repositories(case, url))
    case.release("v1.1.0")
    ran = await case.reconcile(expect=4)
    assert [step["resource"] for step in ran.document["steps"]] == [API]
    assert error(ran).startswith(f"error: {DATABASE}: RepositoryUnavailable: {url}: ")
    assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0"]}
    assert case.ready(DATABASE)[:2] == ("Unknown", "RepositoryUnavailable")
    kept = case.status(DATABASE)
    for field in ("lastAppliedRevision", "configHash", "inputs", "history"):
        assert kept[field] == recorded[field]
    [finding] = (await case.plan(expect=1)).document["findings"]
    assert (finding["resource"], finding["unknown"]) == (DATABASE, True)
    # Back again, unchanged: nothing is deployed a second time.
    moved(away, other.name)
    case.commit(good)
    after = await case.reconcile(expect=0)
    assert after.document["steps"] == []
    assert case.ready(DATABASE)[0] == "True"


def two_repositories(case: Case, url: str) -> str:
    text = case.good.replace("environments:\n", f'  other: {{url: "{url}"}}\nenvironments:\n', 1)
    return text.replace("repository: app", "repository: other", 1)


async def test_no_release_yet(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.world.app.delete("refs/tags/v1.0.0")
        case.commit(case.good)
        ran = await case.reconcile(expect=4)
        assert errors(ran) == [
            f"error: {service}: AwaitingRelease: app has no release for staging yet; make one: "
            "`git tag -a v0.1.0 -m 'Release' && git push origin v0.1.0`"
            for service in (API, DATABASE)
        ]
        assert case.deployed() == {}
        assert case.ready("environments/staging")[:2] == ("False", "AwaitingRelease")
        # A tag for another environment is none for this one; the advice names the trailer then.
        case.world.app.tag("v0.1.0", trailers={"Environment": "production"})
        other = await case.reconcile(expect=4)
        assert "`git tag -a v0.2.0 -m 'Release' -m 'Environment: staging' " in errors(other)[0]
        case.world.app.tag("v0.2.0", trailers={"Environment": "staging"})
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v0.2.0"], "database": ["v0.2.0"]}


async def test_a_tag_that_moved_or_vanished_is_not_followed(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        await case.deploy_all()
        first = case.world.app.resolve("v1.0.0^{commit}")
        second = case.release("v1.0.0")
        moved = await case.reconcile(expect=4)
        assert errors(moved) == [
            f"error: {service}: TagMoved: app in staging: the tag v1.0.0 was moved from {str(first)[:12]} to "
            f"{second[:12]} after its release was recorded; put it back with `git push --force origin "
            f"{first}:refs/tags/v1.0.0`, and give the other commit a tag of its own"
            for service in (API, DATABASE)
        ]
        assert case.ready(API)[:2] == ("False", "TagMoved")
        case.world.app.delete("refs/tags/v1.0.0")
        gone = await case.reconcile(expect=4)
        assert errors(gone)[0] == (
            f"error: {API}: RevisionNotFound: app in staging: the tag v1.0.0 of the recorded release is gone "
            "from the repository; put it back from a clone that has it with `git push origin v1.0.0`, "
            f"or else with `git push origin {first}:refs/tags/v1.0.0`"
        )
        assert case.deployed() == BOTH
        # A release of its own for the other commit is what the advice asked for.
        case.world.app.tag("v1.1.0", second)
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0", "v1.1.0"]}


async def test_a_project_at_a_branch_or_a_path_that_is_not_there(tmp_path: Path) -> None:
    projects = """\
projects:
  lost: {repository: app, branch: nxt, path: site, sync: {nodes: [{node_id: web-1, target_path: /srv/a}]}}
  empty: {repository: app, branch: main, path: dist, sync: {nodes: [{node_id: web-1, target_path: /srv/b}]}}
nodes: {}
"""
    async with make_case(tmp_path) as case:
        case.commit(case.good + projects)
        await case.world.add_host("web-1", case.relay)
        ran = await case.reconcile("--wait-agents", "0s", expect=4)
        lost, empty = "projects/branch/lost/web-1/srv+a", "projects/branch/empty/web-1/srv+b"
        commit = case.world.app.resolve("main")
        assert sorted(errors(ran)) == [
            f"error: {empty}: RevisionNotFound: `dist` does not exist in main@sha1:{commit}; "
            "correct projects.empty.path",
            f"error: {lost}: RevisionNotFound: {case.world.app.url} has no branch, tag or commit 'nxt'; "
            "check the name, or push it",
        ]
        assert case.deployed() == BOTH


async def test_a_status_repository_that_cannot_be_reached(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        nowhere = str(case.world.root / "nowhere.git")
        ran = await case.reconcile(expect=1, TRUEUP_STATUS_REPO=nowhere)
        assert error(ran).startswith(f"error: {nowhere}: {NO_SUCH} (")
        assert case.deployed() == {}


async def test_local_repositories_need_to_be_allowed(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        for url in (str(case.world.spec.path), case.world.spec.url):
            ran = await case.reconcile("--spec-repo", url, expect=1, TRUEUP_ALLOW_LOCAL_REPOS="")
            assert error(ran) == (
                f"error: repository URL {url!r} is a local path, which is off by default; "
                "set TRUEUP_ALLOW_LOCAL_REPOS=1 to allow repositories on this machine"
            )
        for url in (
            "ext::touch%20here",
            "--upload-pack=touch",
            "http://127.0.0.1/x.git",
            "git://127.0.0.1/x",
        ):
            ran = await case.reconcile(expect=1, TRUEUP_SPEC_REPO=url)
            assert url in error(ran)
            assert "; " in error(ran)
        assert not (case.world.root / "here").exists()
        assert case.deployed() == {}
