"""Signatures of tags and commits: real keys, real git, and everybody who may not sign."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from trio.testing import MockClock

from reconciler.git.mirror import Mirror
from reconciler.git.signatures import MAX_AGE, Signatures
from reconciler.git.signers import SignatureInvalid, Signers, parse_signers
from tests.gitrepo import GitRepo
from tests.signers import Gpg, SshKey, commit_content, put_tag, sign_commit, tag_content


def signers(text: str) -> Signers:
    return parse_signers("keys/signers", text.encode())


class Place:
    """A remote with one commit, its mirror, and a key that may sign."""

    def __init__(self, root: Path, remote: GitRepo, mirror: Mirror) -> None:
        self.root, self.remote, self.mirror = root, remote, mirror
        self.commit = remote.commit({"a": "1"})
        self.alice = SshKey.make(root / "alice")

    def key(self, name: str) -> SshKey:
        return SshKey.make(self.root / name)

    def tag(self, signature: bytes, *, name: str = "v1.0.0", content: bytes | None = None) -> str:
        return put_tag(self.remote, (content or tag_content(name, self.commit)) + signature, name=name)

    async def fault(self, allowed: Signers, name: str = "v1.0.0") -> str | None:
        """Why the tag is not accepted; None: it is."""
        await self.mirror.refresh()
        commit = (await self.mirror.refs()).tags[name]
        try:
            await Signatures().check_tag(self.mirror, name, commit, allowed)
        except SignatureInvalid as error:
            return error.message.partition("is not accepted: ")[2] or error.message
        return None

    async def commit_fault(self, commit: str, allowed: Signers) -> str | None:
        await self.mirror.refresh()
        try:
            await Signatures().check_commit(self.mirror, commit, allowed)
        except SignatureInvalid as error:
            return error.message.partition("is not accepted: ")[2] or error.message
        return None


@pytest.fixture
def place(tmp_path: Path, remote: GitRepo, mirror: Mirror) -> Place:
    return Place(tmp_path, remote, mirror)


@pytest.fixture
def gpg(tmp_path: Path) -> Iterator[Gpg]:
    with Gpg.opened(tmp_path / "gpg") as opened:
        yield opened


async def test_tags_signed_with_ssh(place: Place) -> None:
    content = tag_content("v1.0.0", place.commit)
    place.tag(place.alice.sign(content))
    alice, bob = place.alice, place.key("bob")

    assert await place.fault(signers(bob.allowed("bob") + "# of ours\n\n" + alice.allowed())) is None
    assert "ssh key SHA256:" in (await place.fault(signers(bob.allowed())) or "")
    # The tag's date is 2023-11-14.
    assert await place.fault(signers(alice.allowed(options='valid-after="20230101"'))) is None
    assert await place.fault(signers(alice.allowed(options='valid-before="20240101"'))) is None
    expired = await place.fault(signers(alice.allowed(options='valid-before="20230101"')))
    assert expired == "its ssh key had expired by then, as keys/signers has it"
    early = await place.fault(signers(alice.allowed(options='valid-after="20240101"')))
    assert early == "its ssh key was not valid yet, as keys/signers has it"
    assert await place.fault(signers(alice.allowed(options='namespaces="git"'))) is None
    elsewhere = await place.fault(signers(alice.allowed(options='namespaces="file"')))
    assert elsewhere == "its ssh key may not sign for git, as keys/signers has it"


async def test_a_signature_for_another_purpose_or_of_another_content(place: Place) -> None:
    content, allowed = tag_content("v1.0.0", place.commit), signers(place.alice.allowed())
    place.tag(place.alice.sign(content, namespace="file"))
    assert await place.fault(allowed) is not None
    place.tag(place.alice.sign(content + b"else\n"))
    assert await place.fault(allowed) is not None
    place.tag(b"-----BEGIN SSH SIGNATURE-----\nnothing\n-----END SSH SIGNATURE-----\n")
    assert await place.fault(allowed) is not None
    place.tag(b"-----BEGIN SIGNED MESSAGE-----\nnothing\n-----END SIGNED MESSAGE-----\n")
    assert await place.fault(allowed) is not None


@pytest.mark.parametrize("size", [1, 1024 * 1024 // 2])
async def test_an_unreadable_signature_of_content_of_any_size(place: Place, size: int) -> None:
    # ssh-keygen ends before it reads such content, and git dies of that where the content fills the pipe.
    content = tag_content("v1.0.0", place.commit, message="x" * size)
    place.tag(b"-----BEGIN SSH SIGNATURE-----\nnothing\n-----END SSH SIGNATURE-----\n", content=content)
    assert await place.fault(signers(place.alice.allowed())) == "its signature cannot be read"


async def test_what_could_not_be_read_once_is_read_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tag_content("v1.0.0", place.commit, message="x" * (1024 * 1024 // 2))
    place.tag(place.alice.sign(content), content=content)
    await place.mirror.refresh()
    ending = tmp_path / "bin/ssh-keygen"
    ending.parent.mkdir()
    ending.write_text("#!/bin/sh\nkill -9 $$\n")
    ending.chmod(0o755)
    checked, allowed = Signatures(), signers(place.alice.allowed())

    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(ending.parent), prepend=os.pathsep)
        with pytest.raises(SignatureInvalid, match="cannot be read"):
            await checked.check_tag(place.mirror, "v1.0.0", place.commit, allowed)
    await checked.check_tag(place.mirror, "v1.0.0", place.commit, allowed)


async def test_unsigned_tags(place: Place) -> None:
    allowed = signers(place.alice.allowed())
    place.remote.tag("v1.0.0")
    assert await place.fault(allowed) == "it is not signed"
    place.remote.tag("v1.0.1", message=None)
    assert await place.fault(allowed, "v1.0.1") == "it is not signed"


async def test_a_signed_tag_under_another_name_or_moved_to_another_commit(place: Place) -> None:
    allowed = signers(place.alice.allowed())
    content = tag_content("v1.0.0", place.commit)
    oid = place.tag(place.alice.sign(content))
    place.remote.git("update-ref", "refs/tags/v2.0.0", oid)
    assert "another tag" in (await place.fault(allowed, "v2.0.0") or "")

    # A tag of a tag that somebody signed: the name is the inner one's.
    nested = f"object {oid}\ntype tag\ntag v3.0.0\n".encode() + content.split(b"\n", 3)[3]
    put_tag(place.remote, nested + place.alice.sign(nested), name="v3.0.0")
    assert "another tag" in (await place.fault(allowed, "v3.0.0") or "")

    # Whoever chose another commit than the tag has is not told that it is signed.
    other = place.remote.commit({"a": "2"})
    await place.mirror.refresh()
    with pytest.raises(SignatureInvalid, match="another commit"):
        await Signatures().check_tag(place.mirror, "v1.0.0", other, allowed)


async def test_commits_signed_with_ssh(place: Place) -> None:
    signature = place.alice.sign(commit_content(place.remote, place.commit))
    signed = sign_commit(place.remote, place.commit, signature)
    assert await place.commit_fault(signed, signers(place.alice.allowed())) is None
    assert "is not in keys/signers" in (
        await place.commit_fault(signed, signers(place.key("bob").allowed())) or ""
    )
    plain = place.remote.commit({"a": "3"})
    assert await place.commit_fault(plain, signers(place.alice.allowed())) == "it is not signed"


async def test_tags_and_commits_signed_with_gpg(place: Place, gpg: Gpg) -> None:
    key, other = gpg.make("Alice <alice@example.org>"), gpg.make("Bob <bob@example.org>")
    place.tag(gpg.sign(tag_content("v1.0.0", place.commit), key))
    signature = gpg.sign(commit_content(place.remote, place.commit), key)
    signed = sign_commit(place.remote, place.commit, signature)
    both = signers(place.alice.allowed() + gpg.public(key))

    assert await place.fault(both) is None
    assert await place.commit_fault(signed, both) is None
    stranger = await place.fault(signers(gpg.public(other)))
    assert stranger and stranger.startswith("it is signed with the PGP key ")
    assert await place.fault(signers(place.alice.allowed())) == stranger
    # A key that the account itself trusts counts for nothing: the home above is not looked at.
    place.tag(gpg.sign(tag_content("v1.0.0", place.commit, message="other"), key)[:-40])
    assert await place.fault(both) is not None


async def test_keys_of_gpg_that_have_expired_or_been_revoked(place: Place, gpg: Gpg) -> None:
    content = tag_content("v1.0.0", place.commit)
    old = gpg.make("Old <old@example.org>", expires="1y", at="20200101T000000")
    place.tag(gpg.sign(content, old, at="20200601T000000"))
    assert (await place.fault(signers(gpg.public(old))) or "").endswith(" has expired")

    key = gpg.make("Alice <alice@example.org>")
    place.tag(gpg.sign(content, key))
    assert await place.fault(signers(gpg.public(key))) is None
    gpg.revoke(key)
    assert (await place.fault(signers(gpg.public(key))) or "").endswith(" has been revoked")


def command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended since
            found.append(path.read_bytes())
    return found


async def test_nothing_of_gpg_stays_behind(place: Place, gpg: Gpg, monkeypatch: pytest.MonkeyPatch) -> None:
    key = gpg.make("Alice <alice@example.org>")
    place.tag(gpg.sign(tag_content("v1.0.0", place.commit), key))
    private = place.root / "tmp"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    assert await place.fault(signers(gpg.public(key))) is None
    assert list(private.iterdir()) == []
    assert not [command for command in command_lines() if str(private).encode() in command]


async def test_what_was_found_is_remembered_for_the_same_signers(
    place: Place, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    place.tag(place.alice.sign(tag_content("v1.0.0", place.commit)))
    await place.mirror.refresh()
    checked, allowed = Signatures(), signers(place.alice.allowed())
    await checked.check_tag(place.mirror, "v1.0.0", place.commit, allowed)
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")  # a second check could not be made

    await checked.check_tag(place.mirror, "v1.0.0", place.commit, allowed)
    with pytest.raises(FileNotFoundError):
        await checked.check_tag(place.mirror, "v1.0.0", place.commit, signers(place.key("bob").allowed()))
    mock_clock.jump(MAX_AGE + 1)
    with pytest.raises(FileNotFoundError):
        await checked.check_tag(place.mirror, "v1.0.0", place.commit, allowed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not in the spec repository"),
        (b"", "names nobody"),
        (b"# nobody\n", "names nobody"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"alice@example.org\n", "cannot be read at line 1"),
        (b"# who\nalice ssh-ed25519 notakey\n", "cannot be read at line 2"),
        (b"alice ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAAA\n", "cannot be read at line 1"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME\n", "cannot be read at line 1"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n-----END PGP PRIVATE KEY BLOCK-----\n", "at line 1"),
    ],
)
def test_files_that_allow_nobody(content: bytes | None, said: str) -> None:
    with pytest.raises(SignatureInvalid) as raised:
        parse_signers("keys/signers", content)
    assert said in raised.value.message


async def test_pgp_keys_that_are_none(place: Place) -> None:
    place.tag(place.alice.sign(tag_content("v1.0.0", place.commit)))
    block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    fault = await place.fault(signers(place.alice.allowed() + block))
    assert fault is not None and fault.startswith("the PGP keys in the file of allowed signers keys/signers")
