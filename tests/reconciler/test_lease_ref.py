"""The lease in a real repository: races, answers that were lost, foreign keys, what it costs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from reconciler.errors import GitRefused, GitUnavailable, KeyMismatch, LeaseRewound
from reconciler.git.objects import LEASE_REF
from reconciler.git.process import GitOptions
from reconciler.keys import MasterKey
from reconciler.lease import BEATS, Lease, renewed
from reconciler.lease_holder import HolderFile
from reconciler.lease_ref import Found, LeaseRef
from tests.gitrepo import GitRepo

KEY = MasterKey(bytes(range(32)))
OTHER_KEY = MasterKey(bytes(range(1, 33)))

Open = Callable[..., LeaseRef]


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.create(tmp_path / "remote.git")


@pytest.fixture
def open_ref(tmp_path: Path, remote: GitRepo) -> Open:
    def open_ref(name: str, key: MasterKey = KEY) -> LeaseRef:
        options = GitOptions(allow_local=True)
        return LeaseRef(remote.url, tmp_path / name / "lease.git", options, key, deadline=60)

    return open_ref


def lease(holder: str, epoch: int = 1) -> Lease:
    return Lease(holder=holder, host=f"{holder}.example.org", epoch=epoch)


async def test_one_writes_and_the_other_reads(remote: GitRepo, open_ref: Open) -> None:
    one, other = open_ref("one"), open_ref("other")
    assert await other.read() == Found(None, None)
    oid = await one.put(lease("one"), expected=None)
    assert oid == remote.resolve(LEASE_REF)
    assert await other.read() == Found(oid, lease("one"))
    assert await other.put(lease("other", 2), expected=None) is None
    taken = await other.put(lease("other", 2), expected=oid)
    assert await one.put(renewed(lease("one")), expected=oid) is None
    assert await one.read() == Found(taken, lease("other", 2))
    assert remote.git("rev-list", "--count", LEASE_REF) == "1"
    assert remote.git("fsck", "--strict", "--full", "--no-dangling") == ""


async def test_of_many_at_once_one_wins(remote: GitRepo, open_ref: Open) -> None:
    won: list[str] = []

    async def race(name: str) -> None:
        if await open_ref(name).put(lease(name), expected=None) is not None:
            won.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(race, f"p{number}")
    [winner] = won
    assert (await open_ref("reader").read()).lease == lease(winner)


async def test_a_year_of_renewals_leaves_few_objects(remote: GitRepo, open_ref: Open) -> None:
    ref, held = open_ref("one"), lease("one")
    oid = await ref.put(held, expected=None)
    for _ in range(2 * BEATS):
        held = renewed(held)
        oid = await ref.put(held, expected=oid)
        assert oid == remote.resolve(LEASE_REF)
    count = remote.git("count-objects").split()[0]
    assert int(count) <= BEATS + 2


async def test_another_key_and_something_else_are_refused(remote: GitRepo, open_ref: Open) -> None:
    oid = await open_ref("theirs", OTHER_KEY).put(lease("theirs"), expected=None)
    with pytest.raises(KeyMismatch, match="another master key"):
        await open_ref("ours").read()
    remote.git("update-ref", "-d", LEASE_REF, str(oid))
    remote.commit({"a": "1"}, branch=LEASE_REF, root=True)
    with pytest.raises(KeyMismatch, match="not signed"):
        await open_ref("ours").read()


async def test_an_older_lease_put_back_is_not_taken_for_the_present_one(
    remote: GitRepo, open_ref: Open
) -> None:
    ref = open_ref("one")
    old = await ref.put(lease("one", 4), expected=None)
    assert await ref.put(lease("two", 5), expected=old) is not None
    remote.git("update-ref", LEASE_REF, str(old))
    with pytest.raises(LeaseRewound, match="from epoch 5 to 4"):
        await ref.read()


async def test_a_server_that_refuses_the_ref_is_quoted(remote: GitRepo, open_ref: Open) -> None:
    hook = remote.path / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no such refs here >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitRefused, match=r"refused the push to refs/trueup/lease: .*no such refs here"):
        await open_ref("one").put(lease("one"), expected=None)


async def test_a_repository_that_is_away_and_a_copy_that_is_damaged(
    tmp_path: Path, remote: GitRepo, open_ref: Open
) -> None:
    ref = open_ref("one")
    oid = await ref.put(lease("one"), expected=None)
    away = remote.path.with_name("away")
    remote.path.rename(away)
    for attempt in (ref.read, lambda: ref.put(renewed(lease("one")), expected=oid)):
        with pytest.raises(GitUnavailable):
            await attempt()
    away.rename(remote.path)
    for path in (tmp_path / "one" / "lease.git" / "objects").glob("??"):
        path.rename(path.with_name(f"gone-{path.name}"))
    (tmp_path / "one" / "lease.git" / "HEAD").unlink()
    assert await ref.put(renewed(lease("one")), expected=oid) == remote.resolve(LEASE_REF)


def test_a_directory_keeps_its_name_and_a_copy_gets_another(tmp_path: Path) -> None:
    first = HolderFile.open(tmp_path)
    first.remember("a" * 40, 7)
    again = HolderFile.open(tmp_path)
    assert (again.holder, again.oid, again.epoch) == (first.holder, "a" * 40, 7)
    copy = tmp_path / "backup"
    copy.mkdir()
    (copy / "lease.json").write_bytes((tmp_path / "lease.json").read_bytes())
    other = HolderFile.open(copy)
    assert other.holder != first.holder
    assert HolderFile.open(copy).holder == other.holder
    (tmp_path / "lease.json").write_text("garbage")
    assert HolderFile.open(tmp_path).holder != first.holder
    assert (tmp_path / "lease.json").stat().st_mode & 0o777 == 0o600
