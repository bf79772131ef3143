"""Repositories of a spec for tests of sources that read from them: real git below a directory."""

from pathlib import Path

from reconciler.git.process import GitOptions
from reconciler.repositories import BranchFiles, Repositories
from reconciler.settings import load_settings
from reconciler.spec.model import Repository, Verify
from reconciler.verification import Verification
from tests.gitrepo import GitRepo


class TestedRepository:
    """One repository, `infra` in the spec, and what a primary's pass sees of it."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self.remote = GitRepo.create(directory / "infra.git")
        (directory / "mirrors").mkdir()
        self._repositories = Repositories(directory / "mirrors", GitOptions(allow_local=True))

    def files(self, *, branch: str = "main", signatures: str = "none") -> BranchFiles:
        verify = Verify(signatures="tag") if signatures == "tag" else Verify()
        named = Repository(name="infra", url=self.remote.url, branch=branch, verify=verify)
        verification = Verification(self._repositories, load_settings({"HOME": "/home/nobody"}))
        return BranchFiles(self._repositories, {"infra": named}, verification.check_branch)

    def begin_pass(self) -> None:
        self._repositories.begin_pass()

    def take_away(self) -> None:
        self.remote.path.rename(self.remote.path.with_name("away.git"))
