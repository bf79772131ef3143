"""The status branch in real repositories: nothing lost in a race, nothing taken from another key."""

import base64
import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from reconciler.errors import (
    GitRefused,
    GitUnavailable,
    KeyMismatch,
    StatusContended,
    StatusRewound,
    StatusUnreadable,
)
from reconciler.git.mirror import Mirror
from reconciler.keys import MasterKey
from reconciler.status import branch as branch_module
from reconciler.status.branch import StatusBranch
from reconciler.status.documents import Recorded
from reconciler.status.files import parse_files, render_files
from reconciler.status.signature import signed_message
from tests.gitrepo import GitRepo, Link, git
from tests.reconciler.status.documents import one_of_each, service

KEY = MasterKey(bytes(range(32)))
OTHER_KEY = MasterKey(bytes(range(1, 33)))
ROOT = Path(__file__).parents[3]
BRANCH = "trueup/status"
REF = f"refs/heads/{BRANCH}"


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    remote = GitRepo.create(tmp_path / "remote.git")
    remote.commit({"trueup.yaml": "version: 1\n"})
    return remote


Open = Callable[..., StatusBranch]


@pytest.fixture
def open_status(tmp_path: Path, remote: GitRepo) -> Open:
    """A status branch as the primary of that name has it; each name has a state directory of its own."""

    def open_status(name: str = "primary", key: MasterKey = KEY) -> StatusBranch:
        mirror = Mirror(remote.url, tmp_path / "state" / name / "mirror.git", allow_local=True)
        return StatusBranch(mirror, key)

    return open_status


async def fetched(status: StatusBranch) -> StatusBranch:
    await status._mirror.refresh()
    return status


def add(name: str, **fields: object) -> Callable[[Recorded], Recorded]:
    return lambda recorded: recorded.put(service(name, **fields))


def on_remote(remote: GitRepo) -> Recorded:
    return parse_files(remote.files(REF))


def sign_on_remote(remote: GitRepo, files: dict[str, bytes], key: MasterKey, *, parent: str | None) -> str:
    """Puts a commit on the branch as a primary with that key would; returns its id."""
    remote.commit(files, branch="scratch", start=parent, root=parent is None)
    tree = remote.git("rev-parse", "scratch^{tree}")
    message = signed_message("By hand", key, tree=tree, parent=parent)
    parents = ["-p", parent] if parent else []
    commit = remote.git("commit-tree", tree, *parents, stdin=message.encode())
    remote.git("update-ref", REF, commit)
    return commit


async def test_a_missing_branch_is_empty_and_the_first_commit_is_a_root(
    remote: GitRepo, open_status: Open
) -> None:
    status = await fetched(open_status())
    assert await status.read() == Recorded()
    commit = await status.publish(
        lambda _: one_of_each(), "Deploy web v1.0.1\n\nservices/production/web: ready"
    )
    assert commit == remote.resolve(REF)
    assert remote.files(REF) == render_files(one_of_each())
    assert remote.log(REF) == [commit]
    message = remote.git("log", "-1", "--format=%B", REF)
    assert message.startswith("Deploy web v1.0.1\n\nservices/production/web: ready\n\nTrueup-Key: ")
    assert (
        remote.git("log", "-1", "--format=%(trailers:key=Trueup-Key,valueonly)", REF)
        == KEY.signing_fingerprint
    )
    assert await status.read() == one_of_each()


async def test_nothing_is_read_before_anything_was_fetched(open_status: Open) -> None:
    """An empty answer here would make a new primary deploy everything again."""
    with pytest.raises(GitUnavailable):
        await open_status().read()


async def test_the_signature_is_over_tree_and_parent(remote: GitRepo, open_status: Open) -> None:
    """As docs/status.md tells people to verify it: with git, base64 and the public key alone."""
    status = await fetched(open_status())
    await status.publish(add("a"), "First")
    await status.publish(add("b"), "Second")
    public = Ed25519PublicKey.from_public_bytes(
        base64.b64decode(KEY.signing_public_text.removeprefix("ed25519:"))
    )
    for commit in remote.log(REF):
        tree, parent = remote.git("log", "-1", "--format=%T%n%P", commit).ljust(41, "\n").split("\n")[:2]
        signature = remote.git("log", "-1", "--format=%(trailers:key=Trueup-Signature,valueonly)", commit)
        public.verify(base64.b64decode(signature), f"trueup status v1\n{tree}\n{parent}\n".encode())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_docs_verify_a_signature_by_hand(
    remote: GitRepo, open_status: Open, tmp_path: Path
) -> None:
    status = await fetched(open_status())
    commits = [await status.publish(add(name), name) for name in ("a", "b")]
    (script,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "status.md").read_text(), re.DOTALL)
    git("clone", "-q", remote.url, str(tmp_path / "clone"))
    for commit in commits:
        ours = script.replace("A/GrG7ZK…", KEY.signing_public_text.removeprefix("ed25519:")).replace(
            "commit=origin/trueup/status", f"commit={commit}"
        )
        for text, code in ((ours, 0), (ours.replace("status v1", "status v2"), 1)):
            done = await trio.run_process(
                ["sh", "-e", "-c", text], cwd=tmp_path / "clone", check=False, capture_stdout=True
            )
            assert done.returncode == code, done.stdout
    fingerprint = hashlib.sha256((tmp_path / "clone" / "key.der").read_bytes()).hexdigest()
    assert fingerprint == KEY.signing_fingerprint


async def test_nothing_changed_is_no_commit(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    assert await status.publish(lambda recorded: recorded, "Nothing") is None
    assert remote.resolve(REF) is None
    first = await status.publish(lambda _: one_of_each(), "All")
    assert await status.publish(lambda _: one_of_each(), "The same") is None
    assert (
        await (await fetched(open_status("successor"))).publish(lambda _: one_of_each(), "The same") is None
    )
    assert remote.log(REF) == [first]


async def test_reading_and_writing_nothing_asks_no_remote(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    await status.publish(lambda _: one_of_each(), "All")
    remote.path.rename(remote.path.with_name("unreachable"))
    assert await status.read() == one_of_each()
    assert await status.publish(lambda _: one_of_each(), "The same") is None
    with pytest.raises(GitUnavailable):
        await status.publish(add("new"), "New")
    remote.path.with_name("unreachable").rename(remote.path)
    assert await status.read() == one_of_each()
    assert await status.publish(add("new"), "New") == remote.resolve(REF)


async def test_a_successor_with_the_key_reads_everything_back(open_status: Open) -> None:
    status = await fetched(open_status())
    await status.publish(lambda _: one_of_each(), "All")
    await status.publish(lambda recorded: recorded.without(["nodes/web-1"]), "Forget a node")
    successor = await fetched(open_status("new machine"))
    assert await successor.read() == one_of_each().without(["nodes/web-1"])
    await successor.publish(add("from-the-successor"), "Carry on")
    await fetched(status)
    assert (await status.read()).get("services/production/from-the-successor") is not None


async def test_eight_writers_lose_nothing(remote: GitRepo, open_status: Open) -> None:
    primaries = [await fetched(open_status(f"p{number}")) for number in range(8)]
    commits: list[str | None] = []

    async def write(number: int, status: StatusBranch) -> None:
        commits.append(await status.publish(add(f"s{number}"), f"Writer {number}"))

    async with trio.open_nursery() as nursery:
        for number, status in enumerate(primaries):
            nursery.start_soon(write, number, status)
    assert set(on_remote(remote).services) == {f"services/production/s{number}" for number in range(8)}
    assert sorted(remote.log(REF)) == sorted(str(commit) for commit in commits)
    assert len(remote.git("rev-list", "--min-parents=2", REF)) == 0


async def test_tasks_of_one_primary_lose_nothing(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(status.publish, add(f"s{number}"), f"Task {number}")
            nursery.start_soon(status.read)
    assert len(on_remote(remote).services) == 8
    assert await status.read() == on_remote(remote)


async def test_the_loser_of_a_race_applies_its_change_to_the_winners(
    remote: GitRepo, open_status: Open
) -> None:
    one, other = await fetched(open_status("one")), await fetched(open_status("other"))
    await one.publish(lambda _: one_of_each(), "All")
    await fetched(other)
    seen: list[str] = []

    def change(recorded: Recorded) -> Recorded:
        web = recorded.services["services/production/web"]
        seen.append(web.deploy)
        return recorded.put(msgspec.structs.replace(web, config_hash="v1:new"))

    await one.publish(add("web", deploy="dokploy"), "Another deploy")
    await other.publish(change, "Another hash")
    assert seen == ["invoke", "dokploy"]
    web = on_remote(remote).services["services/production/web"]
    assert (web.deploy, web.config_hash) == ("dokploy", "v1:new")


async def test_a_race_that_never_ends_is_given_up(
    remote: GitRepo, open_status: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branch_module, "MAX_TRIES", 3)
    status = await fetched(open_status())
    await status.publish(add("a"), "First")
    intruded = 0

    def change(recorded: Recorded) -> Recorded:
        nonlocal intruded
        intruded += 1
        files = remote.files(REF) | render_files(Recorded().put(service(f"i{intruded}")))
        sign_on_remote(remote, files, KEY, parent=remote.resolve(REF))
        return recorded.put(service("mine"))

    with pytest.raises(StatusContended):
        await status.publish(change, "Mine")
    assert intruded == 3
    assert "services/production/mine" not in on_remote(remote).services


async def test_another_key_is_refused(remote: GitRepo, open_status: Open) -> None:
    await (await fetched(open_status())).publish(lambda _: one_of_each(), "All")
    before = remote.resolve(REF)
    stranger = await fetched(open_status("stranger", OTHER_KEY))
    for act in (stranger.read(), stranger.publish(add("x"), "Mine")):
        with pytest.raises(KeyMismatch) as caught:
            await act
        assert "another master key" in str(caught.value)
        assert "trueup key show" in str(caught.value)
        assert f"git push <repository> :{REF}" in str(caught.value)
    assert remote.resolve(REF) == before


async def test_a_stranger_that_wins_a_race_is_refused(remote: GitRepo, open_status: Open) -> None:
    status, stranger = await fetched(open_status()), await fetched(open_status("stranger", OTHER_KEY))
    await stranger.publish(add("x"), "Mine")
    with pytest.raises(KeyMismatch):
        await status.publish(add("y"), "Ours")
    assert set(on_remote(remote).services) == {"services/production/x"}


@pytest.mark.parametrize("how", ["by hand", "tree", "parent", "merge", "twice", "damaged", "body"])
async def test_what_trueup_did_not_sign_is_refused(remote: GitRepo, open_status: Open, how: str) -> None:
    status = await fetched(open_status())
    first = await status.publish(lambda _: one_of_each(), "All")
    second = await status.publish(add("b"), "More")
    assert first and second
    message = remote.git("log", "-1", "--format=%B", second)
    tree = remote.git("rev-parse", f"{second}^{{tree}}")
    parents = ["-p", first]
    match how:
        case "by hand":
            remote.commit({"services/production/b.yaml": None}, branch=BRANCH)
        case "tree":
            tree = remote.git("rev-parse", f"{first}^{{tree}}")
        case "parent":
            parents = ["-p", second]
        case "merge":
            parents = ["-p", first, "-p", second]
        case "twice":
            message += "\n" + message.split("\n")[-1]
        case "damaged":
            message = message[:-8] + "!!!!!!=="
        case "body":
            message += "\n\nNot the last paragraph any more"
    if how != "by hand":
        commit = remote.git("commit-tree", tree, *parents, stdin=message.encode())
        remote.git("update-ref", REF, commit)
    for name in ("primary", "successor"):
        reader = await fetched(status if name == "primary" else open_status(name))
        with pytest.raises(KeyMismatch, match="sign"):
            await reader.read()


async def test_an_older_state_is_refused_however_validly_signed(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    first = await status.publish(add("a"), "First")
    second = await status.publish(add("b"), "Second")
    assert first and second
    remote.git("update-ref", REF, first)
    await fetched(status)
    for act in (status.read(), status.publish(add("c"), "Third")):
        with pytest.raises(StatusRewound, match=second[:12]):
            await act
    remote.git("update-ref", REF, second)
    await fetched(status)
    assert await status.publish(add("c"), "Third") == remote.resolve(REF)


async def test_another_history_is_refused(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status())
    await status.publish(add("a"), "First")
    sign_on_remote(remote, render_files(Recorded().put(service("z"))), KEY, parent=None)
    await fetched(status)
    with pytest.raises(StatusRewound):
        await status.read()
    assert set((await (await fetched(open_status("new"))).read()).services) == {"services/production/z"}


async def test_a_deleted_branch_is_a_fresh_start(remote: GitRepo, open_status: Open) -> None:
    status = await fetched(open_status("old", OTHER_KEY))
    await status.publish(lambda _: one_of_each(), "All")
    remote.delete(BRANCH)
    await fetched(status)
    assert await status.read() == Recorded()
    fresh = await fetched(open_status())
    commit = await fresh.publish(add("a"), "Start over")
    assert remote.log(REF) == [commit]


async def test_only_what_moved_is_read_again(
    remote: GitRepo, open_status: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = await fetched(open_status("writer")), await fetched(open_status("reader"))
    await writer.publish(lambda _: one_of_each(), "All")
    await (await fetched(reader)).read()
    await writer.publish(add("new"), "One more")
    await fetched(reader)
    asked: list[str] = []
    read_files = reader._mirror.read_files

    async def spy(commit: str, paths: list[str], *, max_size: int) -> dict[str, bytes]:
        asked.extend(paths)
        return await read_files(commit, paths, max_size=max_size)

    monkeypatch.setattr(reader._mirror, "read_files", spy)
    assert await reader.read() == one_of_each().put(service("new"))
    assert asked == ["services/production/new.yaml"]


@pytest.mark.parametrize(
    ("path", "content"), [("summary.yaml", b"{"), ("notes.txt", b"hello"), ("summary.yaml", b"a" * (5 << 20))]
)
async def test_a_garbled_branch_is_never_taken_for_empty(
    remote: GitRepo, open_status: Open, path: str, content: bytes
) -> None:
    first = await (await fetched(open_status())).publish(lambda _: one_of_each(), "All")
    sign_on_remote(remote, {path: content}, KEY, parent=first)
    successor = await fetched(open_status("successor"))
    for act in (successor.read(), successor.publish(add("x"), "Mine")):
        with pytest.raises((StatusUnreadable, GitRefused), match=path):
            await act


async def test_a_link_on_the_branch_is_refused(remote: GitRepo, open_status: Open) -> None:
    remote.commit({"summary.yaml": Link("/etc/passwd")}, branch="scratch", root=True)
    tree = remote.git("rev-parse", "scratch^{tree}")
    message = signed_message("By hand", KEY, tree=tree, parent=None)
    remote.git("update-ref", REF, remote.git("commit-tree", tree, stdin=message.encode()))
    with pytest.raises(StatusUnreadable, match="symlink"):
        await (await fetched(open_status())).read()


KILLED = """
import sys
from pathlib import Path
import trio
from reconciler.git.mirror import Mirror
from reconciler.keys import MasterKey
from reconciler.status.branch import StatusBranch
from tests.reconciler.status.documents import service

async def main(url, path):
    mirror = Mirror(url, Path(path), allow_local=True)
    await mirror.refresh()
    status = StatusBranch(mirror, MasterKey(bytes(range(32))))
    number = len((await status.read()).services)
    while True:
        await status.publish(lambda recorded: recorded.put(service(f"s{number:05}")), f"Number {number}")
        number += 1
        print(number, flush=True)

trio.run(main, *sys.argv[1:])
"""


async def test_a_kill_leaves_a_branch_that_can_be_read(
    remote: GitRepo, open_status: Open, tmp_path: Path
) -> None:
    """Killed while it publishes one commit after the other; the same state directory carries on."""
    state = tmp_path / "state" / "killed" / "mirror.git"
    for turn in range(4):
        said = await trio.to_thread.run_sync(_kill_after, turn + 1, remote.url, str(state))
        # What was reported as published is there, and nothing is half there.
        services = on_remote(remote).services
        assert len(services) >= said
        assert set(services) == {f"services/production/s{number:05}" for number in range(len(services))}
    status = open_status("killed")
    tip = (await status._mirror.refresh()).heads[BRANCH]
    assert await status.read() == parse_files(remote.files(tip))
    assert await status.publish(add("after"), "After the kills") == remote.resolve(REF)
    git("fsck", "--strict", cwd=remote.path)


def _kill_after(lines: int, url: str, state: str) -> int:
    """Runs KILLED until it has printed so many lines, and kills it; the number it printed last."""
    said = 0
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url, state], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for _ in range(lines):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    return said
