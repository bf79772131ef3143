"""Mirrors of real repositories: what a refresh costs and brings, and what is read from them."""

from pathlib import Path

import pytest

from reconciler.errors import GitRefused, GitUnavailable, UnknownRevision
from reconciler.git.mirror import Mirror
from reconciler.git.objects import LEASE_REF
from tests.gitrepo import EPOCH, Executable, GitRepo, Link, Submodule
from tests.reconciler.git.conftest import Calls

PULL = "refs/pull/1/head"


def commands(calls: list[list[str]]) -> list[str]:
    return [call[0] for call in calls]


async def test_the_first_refresh_makes_a_whole_bare_mirror(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    lease = remote.commit({"lease": "1"}, branch=LEASE_REF, root=True)
    remote.commit({"p": "1"}, branch=PULL, root=True)
    tag = remote.tag("v1", first)
    refs = await mirror.refresh()
    assert refs.heads == {"main": second}
    assert refs.tags == {"v1": first}
    assert refs.all == {ref: oid for ref, oid in remote.refs().items() if ref not in (LEASE_REF, PULL)}
    assert mirror.lease == lease
    assert refs.all["refs/tags/v1"] == tag
    here = GitRepo(mirror.path)
    assert here.log() == [second, first]
    assert not (mirror.path / "shallow").exists()
    assert not (mirror.path / "FETCH_HEAD").exists()
    assert sorted(path.name for path in mirror.path.parent.iterdir()) == ["mirror.git", "mirror.git.lock"]


async def test_nothing_moved_costs_one_ls_remote(remote: GitRepo, mirror: Mirror, git_calls: Calls) -> None:
    remote.commit({"a": "1"})
    remote.tag("v1")
    before = await mirror.refresh()
    git_calls()
    assert await mirror.refresh() == before
    assert commands(git_calls()) == ["ls-remote"]
    # Another process finds the mirror as it is: it reads the local refs once and fetches nothing.
    again = Mirror(mirror.url, mirror.path, allow_local=True)
    assert await again.refresh() == before
    assert commands(git_calls()) == ["ls-remote", "for-each-ref"]


async def test_a_lease_that_is_renewed_costs_no_fetch(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    remote.commit({"a": "1"})
    before = await mirror.refresh()
    assert mirror.lease is None
    for beat in ("1", "2"):
        lease = remote.commit({"beat": beat}, branch=LEASE_REF, root=True)
        git_calls()
        assert await mirror.refresh() == before
        assert commands(git_calls()) == ["ls-remote"]
        assert mirror.lease == lease


async def test_a_move_costs_one_fetch_and_brings_it(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    remote.commit({"a": "1"})
    await mirror.refresh()
    second = remote.commit({"a": "2"})
    git_calls()
    refs = await mirror.refresh()
    assert refs.heads == {"main": second}
    assert commands(git_calls()).count("fetch") == 1
    assert await mirror.read_file(second, "a", max_size=9) == b"2"


async def test_arguments_are_closed_by_a_double_dash(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    tree = await mirror.write_tree(commit, {"a": b"2"})
    await mirror.push("refs/heads/x", await mirror.write_commit(tree, [commit], "m"), expected=None)
    with_url = [call for call in git_calls() if mirror.url in call]
    assert commands(with_url) == ["ls-remote", "fetch", "push"]
    for call in with_url:
        assert call.index("--") < call.index(mirror.url)


@pytest.mark.parametrize(
    "url", ["--upload-pack=touch owned", "-u", "ext::sh -c id", "/srv/x", "file:///srv/x"]
)
async def test_a_refused_url_starts_no_process(url: str, tmp_path: Path, git_calls: Calls) -> None:
    with pytest.raises(GitRefused):
        Mirror(url, tmp_path / "m")
    assert git_calls() == []


@pytest.mark.parametrize("name", ["--upload-pack=x", "-h", "a..b", "main^{/x}", "main:a", "@{u}", "0" * 40])
async def test_an_odd_revision_is_unknown_and_never_reaches_git(
    name: str, remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    remote.commit({"a": "1"})
    await mirror.refresh()
    git_calls()
    with pytest.raises(UnknownRevision):
        await mirror.commit_of(name)
    with pytest.raises(UnknownRevision):
        await mirror.tree(name)
    with pytest.raises(UnknownRevision):
        await mirror.commit_object(name)
    with pytest.raises(UnknownRevision):
        await mirror.is_ancestor(name, name)
    assert name == "0" * 40 or not [call for call in git_calls() if name in call]


async def test_an_empty_repository_is_fine_and_fills_later(remote: GitRepo, mirror: Mirror) -> None:
    assert (await mirror.refresh()).all == {}
    with pytest.raises(UnknownRevision):
        await mirror.commit_of("main")
    commit = remote.commit({"a": "1"})
    assert (await mirror.refresh()).heads == {"main": commit}


async def test_nothing_fetched_yet_is_not_an_empty_repository(mirror: Mirror) -> None:
    with pytest.raises(GitUnavailable, match="not been fetched"):
        await mirror.refs()
    with pytest.raises(GitUnavailable, match="not been fetched"):
        await mirror.tree("a" * 40)


async def test_a_missing_remote_leaves_what_is_here(remote: GitRepo, mirror: Mirror) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    remote.path.rename(remote.path.with_name("gone"))
    with pytest.raises(GitUnavailable, match="no such repository"):
        await mirror.refresh()
    assert await mirror.commit_of("main") == commit


async def test_removed_and_renamed_refs_are_pruned(remote: GitRepo, mirror: Mirror) -> None:
    commit = remote.commit({"a": "1"}, branch="a")
    remote.tag("v1", commit)
    await mirror.refresh()
    remote.delete("a")
    remote.delete("refs/tags/v1")
    below = remote.commit({"a": "1"}, branch="a/b")  # where a branch was, a directory is now
    refs = await mirror.refresh()
    assert (refs.heads, refs.tags) == ({"a/b": below}, {})


async def test_a_force_push_is_followed_and_reported(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    remote.commit({"b": "1"}, branch="forward", start=first)
    assert (await mirror.refresh()).rewound == ()
    rewritten = remote.commit({"a": "3"}, start=first)
    remote.commit({"b": "2"}, branch="forward")
    refs = await mirror.refresh()
    assert refs.heads["main"] == rewritten
    assert refs.rewound == ("main",)
    assert await mirror.read_file(second, "a", max_size=9) == b"2"  # what was current can still be looked at
    assert (await mirror.refresh()).rewound == ()
    unrelated = remote.commit({"z": "1"}, root=True)
    assert (await mirror.refresh()).rewound == ("main",)
    assert not await mirror.is_ancestor(rewritten, unrelated)


async def test_moved_tags_follow_the_remote(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    remote.tag("v1", first, trailers={"Environment": "staging"})
    assert (await mirror.refresh()).tags == {"v1": first}
    remote.tag("v1", second, trailers={"Environment": "production"})
    assert (await mirror.refresh()).tags == {"v1": second}
    assert [(tag.commit, dict(tag.trailers)) for tag in await mirror.tags()] == [
        (second, {"Environment": "production"})
    ]


async def test_tags_of_every_form(remote: GitRepo, mirror: Mirror, git_calls: Calls) -> None:
    commit = remote.commit({"a": "1"}, message="Subject\n\nEnvironment: not-a-tags\n")
    remote.tag("light", message=None)
    remote.tag("plain", message="Release")
    remote.tag("platform/v1", trailers={"Environment": "staging", "Unit": "platform"})
    remote.tag("nested", remote.resolve("refs/tags/platform/v1"), trailers={"Outer": "yes"})
    remote.tag("deeper", remote.resolve("refs/tags/nested"))
    blob = remote.resolve(f"{commit}:a")
    remote.git("update-ref", "refs/tags/of-a-blob", str(blob))
    signature = "-----BEGIN PGP SIGNATURE-----\n\niQ\n=x\n-----END PGP SIGNATURE-----"
    remote.tag("signed", message=f"Release\n\nEnvironment: production\n{signature}")
    refs = await mirror.refresh()
    git_calls()
    tags = {tag.name: tag for tag in await mirror.tags()}
    assert git_calls() == []  # they came with the refs
    assert set(tags) == {"light", "plain", "platform/v1", "nested", "deeper", "signed"}
    assert {tag.commit for tag in tags.values()} == {commit}
    assert refs.tags == dict.fromkeys(tags, commit)
    assert not tags["light"].annotated and dict(tags["light"].trailers) == {}
    assert tags["plain"].annotated and dict(tags["plain"].trailers) == {}
    assert dict(tags["platform/v1"].trailers) == {"Environment": "staging", "Unit": "platform"}
    assert dict(tags["nested"].trailers) == {"Outer": "yes"}
    assert dict(tags["signed"].trailers) == {"Environment": "production"}


async def test_revisions_are_found_by_branch_tag_ref_and_id(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    remote.tag("v1", first)
    remote.tag("main", first)  # a branch's name wins
    await mirror.refresh()
    for revision, commit in {
        "main": second,
        "v1": first,
        "refs/tags/v1": first,
        "refs/tags/main": first,
        "refs/heads/main": second,
        first: first,
        first[:10]: first,
    }.items():
        assert await mirror.commit_of(revision) == commit
    tree = str(remote.resolve(f"{first}^{{tree}}"))
    for unknown in ("v2", tree, tree[:10], "abcdef0", "heads/main"):
        with pytest.raises(UnknownRevision, match=unknown):
            await mirror.commit_of(unknown)


async def test_files_are_read_with_their_size_checked_first(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    commit = remote.commit(
        {
            "a": b"\x00\xff\n",
            "d/big": b"x" * 5_000_000,
            "run": Executable("#!"),
            "l": Link("a"),
            "s": Submodule("1" * 40),
        }
    )
    await mirror.refresh()
    assert await mirror.read_file(commit, "a", max_size=3) == b"\x00\xff\n"
    assert await mirror.read_files(commit, ["a", "run", "none", "d", "s"], max_size=9) == {
        "a": b"\x00\xff\n",
        "run": b"#!",
    }
    for absent in ("none", "d", "s", "", "/a", "../a", "a/", "./a"):
        assert await mirror.read_file(commit, absent, max_size=9) is None
    git_calls()
    with pytest.raises(GitRefused, match="5000000 bytes"):
        await mirror.read_file(commit, "d/big", max_size=4_999_999)
    with pytest.raises(GitRefused, match="symbolic link"):
        await mirror.read_file(commit, "l", max_size=9)
    assert git_calls() == []


async def test_a_large_tree_is_listed_once_and_read_through_one_process(
    remote: GitRepo, mirror: Mirror, git_calls: Calls
) -> None:
    files = {f"d{n % 97}/f{n}": f"{n}\n" for n in range(20_000)}
    commit = remote.commit(files)
    await mirror.refresh()
    git_calls()
    entries = await mirror.tree(commit)
    assert [entry.path for entry in entries] == sorted(files)
    assert sum(entry.size for entry in entries) == sum(map(len, files.values()))
    assert await mirror.tree(commit) is entries
    assert commands(git_calls()) == ["ls-tree"]
    contents = await mirror.read_files(commit, list(files), max_size=100)
    assert contents == {path: text.encode() for path, text in files.items()}
    assert commands(git_calls()) == ["cat-file"]


async def test_a_commit_is_read_whole(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"}, message="Größer\n\nbody\n\nKey: value\n")
    await mirror.refresh()
    commit = await mirror.commit_object(second)
    assert (commit.oid, commit.parents) == (second, (first,))
    assert commit.tree == remote.resolve(f"{second}^{{tree}}")
    assert commit.message == "Größer\n\nbody\n\nKey: value\n"
    assert commit.author == "Test Author <author@example.org>"
    assert commit.time == EPOCH + 120


async def test_ancestry(remote: GitRepo, mirror: Mirror) -> None:
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    side = remote.commit({"a": "3"}, branch="side", start=first)
    await mirror.refresh()
    assert await mirror.is_ancestor(first, second)
    assert await mirror.is_ancestor(first, first)
    assert not await mirror.is_ancestor(second, first)
    assert not await mirror.is_ancestor(side, second)
    with pytest.raises(UnknownRevision):
        await mirror.is_ancestor("a" * 40, second)
