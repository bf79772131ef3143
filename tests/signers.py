"""Keys for tests of signatures, made by the real programs, and what people do with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.gitrepo import GitRepo, git_environment


def run(*command: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> bytes:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        command, input=stdin, env=git_environment() | (env or {}), capture_output=True, timeout=120
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout


@dataclass(frozen=True)
class SshKey:
    """A key pair; `path` is the private half."""

    path: Path

    @classmethod
    def make(cls, path: Path, *, passphrase: str = "") -> SshKey:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", str(path))
        return cls(path)

    @property
    def public(self) -> str:
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    def allowed(self, principal: str = "alice@example.org", options: str = "") -> str:
        """A line of an allowed_signers file."""
        return " ".join(filter(None, (principal, options, self.public))) + "\n"

    def sign(self, content: bytes, *, namespace: str = "git") -> bytes:
        return run("ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(self.path), stdin=content)


@dataclass(frozen=True)
class Gpg:
    """A GnuPG home with keys of its own."""

    home: Path

    @classmethod
    @contextmanager
    def opened(cls, home: Path) -> Iterator[Gpg]:
        """One whose agent is ended with the block."""
        home.mkdir(mode=0o700, parents=True)
        gpg = cls(home)
        try:
            yield gpg
        finally:
            subprocess.run(
                ["gpgconf", "--kill", "all"], env=gpg.environment, capture_output=True, timeout=60, check=True
            )

    @property
    def environment(self) -> dict[str, str]:
        return {"GNUPGHOME": str(self.home), "PATH": os.environ["PATH"], "LC_ALL": "C"}

    def gpg(self, *args: str, stdin: bytes = b"") -> bytes:
        return run("gpg", "--batch", "--quiet", *args, stdin=stdin, env=self.environment)

    def make(self, user: str, *, expires: str = "0", at: str = "") -> str:
        """The fingerprint of a new key for signing. `at`: the time it is made at, as gpg writes times."""
        before = set(self.fingerprints())
        clock = ("--faked-system-time", at) if at else ()
        quietly = ("--pinentry-mode", "loopback", "--passphrase", "")
        self.gpg(*clock, *quietly, "--quick-generate-key", user, "ed25519", "sign", expires)
        return next(iter(set(self.fingerprints()) - before))

    def fingerprints(self) -> list[str]:
        listed = self.gpg("--with-colons", "--list-secret-keys").decode().splitlines()
        return [line.split(":")[9] for line in listed if line.startswith("fpr:")]

    def public(self, *keys: str) -> str:
        return self.gpg("--armor", "--export", *keys).decode()

    def sign(self, content: bytes, key: str, *, at: str = "") -> bytes:
        clock = ("--faked-system-time", at) if at else ()
        return self.gpg(*clock, "--local-user", key, "--detach-sign", "--armor", stdin=content)

    def revoke(self, key: str) -> None:
        """Revoke a key with the certificate that was made together with it."""
        certificate = self.home / "openpgp-revocs.d" / f"{key}.rev"
        text = certificate.read_text().replace(":-----BEGIN", "-----BEGIN")
        self.gpg("--import", stdin=text.encode())


def tag_content(name: str, commit: str, *, when: int = 1_700_000_000, message: str = "A release") -> bytes:
    """A tag object as it is before it is signed."""
    head = f"object {commit}\ntype commit\ntag {name}\ntagger Test Author <author@example.org> {when} +0000\n"
    return f"{head}\n{message}\n".encode()


def put_tag(repo: GitRepo, content: bytes, *, name: str) -> str:
    """Write a tag object as it is and let the ref refs/tags/`name` name it."""
    oid = repo.git("hash-object", "-t", "tag", "-w", "--literally", "--stdin", stdin=content)
    repo.git("update-ref", f"refs/tags/{name}", oid)
    return oid


def sign_commit(repo: GitRepo, commit: str, signature: bytes, *, branch: str = "main") -> str:
    """The same commit with this signature, which was made of `commit_content`, at the tip of the branch."""
    head, _, message = commit_content(repo, commit).partition(b"\n\n")
    folded = signature.rstrip(b"\n").replace(b"\n", b"\n ")
    content = head + b"\ngpgsig " + folded + b"\n\n" + message
    oid = repo.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=content)
    repo.git("update-ref", f"refs/heads/{branch}", oid)
    return oid


def commit_content(repo: GitRepo, commit: str) -> bytes:
    """The bytes of a commit object."""
    return run("git", f"--git-dir={repo.path}", "cat-file", "commit", commit)
