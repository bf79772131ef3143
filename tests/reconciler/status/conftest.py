"""What tests of the status branch share: a repository, primaries with a key each, and commits by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.git.mirror import Mirror
from reconciler.keys import MasterKey
from reconciler.status.branch import StatusBranch
from reconciler.status.documents import Recorded
from reconciler.status.files import parse_files
from reconciler.status.signature import signed_message
from tests.gitrepo import GitRepo
from tests.reconciler.status.documents import service

KEY = MasterKey(bytes(range(32)))
OTHER_KEY = MasterKey(bytes(range(1, 33)))
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
