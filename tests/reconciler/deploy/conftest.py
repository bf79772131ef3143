import os
from pathlib import Path

import pytest

from reconciler.deploy.context import RunContext
from reconciler.settings import load_settings
from tests.gitrepo import GitRepo, git
from tests.reconciler.deploy.invoking import TASKS


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    remote = GitRepo.create(tmp_path / "remote.git")
    commit = remote.commit(
        {
            "tasks.py": TASKS,
            "web/deep/README": "here\n",
            "invoke/__init__.py": "raise SystemExit('not invoke')\n",
        }
    )
    remote.tag("v1.2.3", commit)
    return remote


@pytest.fixture
def checkout(repo: GitRepo, tmp_path: Path) -> Path:
    tree = tmp_path / "checkout"
    git("clone", "-q", "--branch", "v1.2.3", "-c", "advice.detachedHead=false", str(repo.path), str(tree))
    return tree


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    environ = {
        "PATH": os.environ["PATH"],
        "TRUEUP_STATE_DIR": str(tmp_path / "state"),
        "HTTPS_PROXY": "http://p:1",
    }
    return RunContext.of(load_settings(environ))
