"""What is believed of the status branch: what our key signed, whole, and no older than what was seen."""

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from reconciler.errors import GitRefused, KeyMismatch, StatusRewound, StatusUnreadable
from reconciler.status.documents import Recorded
from reconciler.status.files import render_files
from reconciler.status.signature import signed_message
from tests.gitrepo import GitRepo, Link, git
from tests.reconciler.status.conftest import (
    BRANCH,
    KEY,
    OTHER_KEY,
    REF,
    Open,
    add,
    fetched,
    on_remote,
    sign_on_remote,
)
from tests.reconciler.status.documents import one_of_each, service

DOCS = Path(__file__).parents[3] / "docs"


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
    (script,) = re.findall(r"```sh\n(.*?)```", (DOCS / "status.md").read_text(), re.DOTALL)
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
