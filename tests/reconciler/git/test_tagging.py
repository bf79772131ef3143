"""Tags that trueup makes: real git reads and verifies them, and nothing names them until they are pushed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.errors import GitRefused, SettingsError, UnknownRevision
from reconciler.git.mirror import Mirror
from reconciler.git.tagging import make_tag
from tests.gitrepo import GitRepo, git
from tests.signers import SshKey, run

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TAGGER = "trueup <trueup@localhost>"
TRAILERS = {"Environment": "staging", "Triggered-By": "Ann <ann@example.org>"}


async def made(mirror: Mirror, commit: str, message: str = "A release", key: Path | None = None) -> str:
    return await make_tag(
        mirror, "v1.2.3", commit, message, tagger=TAGGER, now=NOW, trailers=TRAILERS, signing_key=key
    )


@contextmanager
def ssh_agent(socket: Path, key: SshKey) -> Iterator[None]:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout and agent.stdout.readline()  # it listens once it has said where
        run("ssh-add", "-q", str(key.path), env={"SSH_AUTH_SOCK": str(socket)})
        yield
    finally:
        agent.terminate()
        agent.communicate()


async def test_a_tag_is_an_object_that_only_a_push_makes_known(remote: GitRepo, mirror: Mirror) -> None:
    commit = remote.commit({"a": "1"})
    before = await mirror.refresh()

    oid = await made(mirror, commit)

    assert await mirror.refs() == before
    assert git("for-each-ref", "--format=%(refname)", cwd=mirror.path) == "refs/heads/main"
    assert await mirror.push("refs/tags/v1.2.3", oid, expected=None)
    assert remote.refs()["refs/tags/v1.2.3"] == oid
    assert remote.git("cat-file", "tag", "v1.2.3") == (
        f"object {commit}\ntype commit\ntag v1.2.3\ntagger trueup <trueup@localhost> 1772600767 +0000\n\n"
        "A release\n\nEnvironment: staging\nTriggered-By: Ann <ann@example.org>"
    )


async def test_pushed_twice_by_two_it_is_made_once(remote: GitRepo, mirror: Mirror) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    mine = await made(mirror, commit, "mine")
    theirs = remote.tag("v1.2.3", commit, message="theirs")

    assert not await mirror.push("refs/tags/v1.2.3", mine, expected=None)
    assert remote.resolve("refs/tags/v1.2.3") == theirs


async def test_its_trailers_are_read_back_although_it_is_signed(
    tmp_path: Path, remote: GitRepo, mirror: Mirror
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    key = SshKey.make(tmp_path / "key")
    oid = await made(mirror, commit, key=key.path)
    await mirror.push("refs/tags/v1.2.3", oid, expected=None)

    (tag,) = await mirror.tags()
    assert (tag.name, tag.commit, tag.annotated, dict(tag.trailers)) == ("v1.2.3", commit, True, TRAILERS)


async def test_git_verifies_what_was_signed(tmp_path: Path, remote: GitRepo, mirror: Mirror) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    key = SshKey.make(tmp_path / "key")
    oid = await made(mirror, commit, key=key.path)
    allowed = tmp_path / "allowed"
    allowed.write_text(key.allowed("release@example.org", 'namespaces="git"'))

    config = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed}"]
    git(*config, "verify-tag", oid, cwd=mirror.path)  # which fails the test if it fails


async def test_a_key_in_an_agent_signs_by_its_public_half(
    tmp_path: Path, remote: GitRepo, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    key = SshKey.make(tmp_path / "key")
    with ssh_agent(tmp_path / "agent", key):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        key.path.unlink()
        oid = await made(mirror, commit, key=key.path.with_suffix(".pub"))
    assert "-----BEGIN SSH SIGNATURE-----" in git("cat-file", "tag", oid, cwd=mirror.path)


@pytest.mark.parametrize("fault", ["missing", "passphrase", "garbage", "readable"])
async def test_a_key_that_cannot_sign_is_named(
    tmp_path: Path, remote: GitRepo, mirror: Mirror, fault: str
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    path = tmp_path / "key"
    if fault == "garbage":
        path.write_text("no key at all\n")
        path.chmod(0o600)
    elif fault != "missing":
        SshKey.make(path, passphrase="not for machines" if fault == "passphrase" else "")
    if fault == "readable":
        path.chmod(0o644)
    with pytest.raises(SettingsError, match="TRUEUP_SIGNING_KEY_FILE: ssh-keygen cannot sign with") as raised:
        await made(mirror, commit, key=path)
    assert "\n" not in raised.value.message


async def test_lines_that_look_like_a_signature_or_trailers_do_no_harm(
    remote: GitRepo, mirror: Mirror
) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    oid = await make_tag(
        mirror,
        "v1",
        commit,
        "Text\n-----BEGIN PGP SIGNATURE-----\nmore",
        tagger=TAGGER,
        now=NOW,
        trailers={"Triggered-By": "x\nEnvironment: production"},
    )
    await mirror.push("refs/tags/v1", oid, expected=None)
    (tag,) = await mirror.tags()
    assert dict(tag.trailers) == {"Triggered-By": "x Environment: production"}


async def test_what_cannot_be_a_tag_is_refused(remote: GitRepo, mirror: Mirror) -> None:
    commit = remote.commit({"a": "1"})
    await mirror.refresh()
    with pytest.raises(GitRefused, match="is not a valid name"):
        await make_tag(mirror, "v1..2", commit, "", tagger=TAGGER, now=NOW)
    with pytest.raises(GitRefused, match="not of the form"):
        await make_tag(mirror, "v1", commit, "", tagger="nobody\n", now=NOW)
    with pytest.raises(GitRefused, match="cannot be stored"):
        await made(mirror, commit, "x" * 70_000)
    with pytest.raises(GitRefused, match="cannot be stored"):
        await made(mirror, commit, "a\0b")
    with pytest.raises(UnknownRevision):
        await made(mirror, "0" * 40)
