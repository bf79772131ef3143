"""Bare repositories for tests, written with real git: files, branches, tags with trailers.

    remote = GitRepo.create(tmp_path / "remote.git")
    first = remote.commit({"trueup.yaml": "version: 1\n"})
    remote.commit({"trueup.yaml": None, "bin/run": Executable("#!/bin/sh\n")}, branch="next", start=first)
    remote.tag("v1.2.3", first, trailers={"Environment": "staging"})
    Mirror(remote.url, state / "mirror.git", allow_local=True)

Nothing of the account's configuration is read. Commit times are fixed: each object of a repository is one
minute younger than the one before, so equal calls give equal ids on every machine.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EPOCH = 1_700_000_000
_MINUTE = 60


@dataclass(frozen=True)
class Executable:
    content: str | bytes


@dataclass(frozen=True)
class Link:
    target: str


@dataclass(frozen=True)
class Submodule:
    commit: str


Content = str | bytes | Executable | Link | Submodule | None
"""What a path holds; None removes it."""


def git_environment() -> dict[str, str]:
    """An environment in which git reads no configuration but the repository's own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_DEFAULT_HASH": "sha1",
        "GIT_AUTHOR_NAME": "Test Author",
        "GIT_AUTHOR_EMAIL": "author@example.org",
        "GIT_COMMITTER_NAME": "Test Author",
        "GIT_COMMITTER_EMAIL": "author@example.org",
        "LC_ALL": "C",
    }


def git(
    *args: str,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    ok: bool = True,
) -> str:
    """Standard output of git, stripped; a failing command fails the test with git's message."""
    done = subprocess.run(
        ["git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *args],
        cwd=cwd,
        input=stdin,
        env=git_environment() | dict(env or {}),
        capture_output=True,
        timeout=120,
    )
    if ok and done.returncode:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout.decode("utf-8", "surrogateescape").strip()


class GitRepo:
    """A bare repository at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._objects = 0

    @classmethod
    def create(cls, path: Path) -> GitRepo:
        path.parent.mkdir(parents=True, exist_ok=True)
        git("init", "-q", "--bare", "--template=", "--initial-branch=main", str(path))
        return cls(path)

    @property
    def url(self) -> str:
        """The path as a `file://` URL; `str(repo.path)` works as well."""
        return f"file://{self.path}"

    def git(self, *args: str, stdin: bytes = b"", ok: bool = True) -> str:
        return git(*args, cwd=self.path, stdin=stdin, ok=ok)

    def commit(
        self,
        files: Mapping[str, Content],
        *,
        branch: str = "main",
        message: str = "A change",
        start: str | None = None,
        root: bool = False,
    ) -> str:
        """Change these files on top of the branch, whatever their number in one process; the commit's id.

        `branch` is a branch's name or a full ref. `start`: build on that commit and move the branch there,
        also backwards. `root`: a commit without parents that holds these files alone.
        """
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        parent = None if root else start or self.resolve(ref)
        when = self._next_time()
        # One process does it all, and `--force` lets it rewind a branch as well.
        stream: list[str | bytes] = [
            f"reset {ref}\n" if root else "",
            f"commit {ref}\nmark :1\n",
            f"committer Test Author <author@example.org> {when} +0000\n",
        ]
        stream += [_data(message)]
        if parent:
            stream.append(f"from {parent}\n")
        for path, content in files.items():
            stream.append(_change(path, content))
        stream.append("get-mark :1\n")
        return self._fast_import(stream)

    def tag(
        self,
        name: str,
        target: str | None = None,
        *,
        message: str | None = "A release",
        trailers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    ) -> str:
        """An annotated tag with these trailers on `target` (default: main), or a lightweight one where
        `message` is None. Moves a tag that is there. The id of the tag object, or of the commit."""
        oid = self.git("rev-parse", target or "refs/heads/main")
        if message is not None:
            pairs = trailers.items() if isinstance(trailers, Mapping) else trailers
            lines = "".join(f"{key}: {value}\n" for key, value in pairs)
            text = f"{message}\n\n{lines}" if lines else f"{message}\n"
            kind = self.git("cat-file", "-t", oid)
            head = f"object {oid}\ntype {kind}\ntag {name}\ntagger Test Author <author@example.org> "
            whole = f"{head}{self._next_time()} +0000\n\n{text}"
            oid = self.git("mktag", stdin=whole.encode("utf-8", "surrogateescape"))
        self.git("update-ref", f"refs/tags/{name}", oid)
        return oid

    def resolve(self, revision: str) -> str | None:
        """The object id of a revision, or None."""
        return self.git("rev-parse", "--verify", "-q", revision, ok=False) or None

    def refs(self) -> dict[str, str]:
        """Every ref's full name and object id."""
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def delete(self, ref: str) -> None:
        """Remove a branch (by name) or a full ref."""
        self.git("update-ref", "-d", ref if ref.startswith("refs/") else f"refs/heads/{ref}")

    def files(self, revision: str = "refs/heads/main") -> dict[str, bytes]:
        """Path and content of every file and link at a revision."""
        records = [
            record.split("\t", 1) for record in self.git("ls-tree", "-rz", revision).split("\0") if record
        ]
        blobs = {path: head.split()[2] for head, path in records if not head.startswith("160000")}
        request = "".join(f"{oid}\n" for oid in blobs.values()).encode()
        stream = io.BytesIO(self._raw("cat-file", "--batch", stdin=request))
        contents = {}
        for path in blobs:
            size = int(stream.readline().split()[2])
            contents[path] = stream.read(size + 1)[:size]
        return contents

    def read(self, path: str, revision: str = "refs/heads/main") -> bytes:
        return self._raw("cat-file", "blob", f"{revision}:{path}")

    def _raw(self, *args: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            ["git", *args],
            cwd=self.path,
            env=git_environment(),
            input=stdin,
            check=True,
            capture_output=True,
            timeout=120,
        ).stdout

    def log(self, revision: str = "refs/heads/main") -> list[str]:
        """Commit ids of a revision's history, the newest first; empty where there is no such revision."""
        return self.git("rev-list", "--topo-order", revision, ok=False).split()

    def _next_time(self) -> int:
        self._objects += 1
        return EPOCH + self._objects * _MINUTE

    def _fast_import(self, stream: Sequence[str | bytes]) -> str:
        """What the stream asked for."""
        chunks = [part.encode() if isinstance(part, str) else part for part in stream]
        return self.git("fast-import", "--quiet", "--force", stdin=b"".join(chunks))


def _data(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return b"data %d\n%s\n" % (len(raw), raw)


def _change(path: str, content: Content) -> bytes:
    name = (
        path.encode("utf-8", "surrogateescape")
        .replace(b"\\", b"\\\\")
        .replace(b'"', b'\\"')
        .replace(b"\n", b"\\n")
    )
    match content:
        case None:
            return b'D "%s"\n' % name
        case Submodule(commit):
            return b'M 160000 %s "%s"\n' % (commit.encode(), name)
        case Link(target):
            return b'M 120000 inline "%s"\n%s' % (name, _data(target))
        case Executable(script):
            return b'M 100755 inline "%s"\n%s' % (name, _data(script))
        case _:
            return b'M 100644 inline "%s"\n%s' % (name, _data(content))
