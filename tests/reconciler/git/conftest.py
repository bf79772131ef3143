"""What the tests of git share: a remote, a mirror of it, and a record of every git that was started."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.git.mirror import Mirror
from tests.gitrepo import GitRepo

Calls = Callable[[], list[list[str]]]


@pytest.fixture
def remote(tmp_path: Path) -> GitRepo:
    return GitRepo.create(tmp_path / "remote.git")


@pytest.fixture
def mirror(tmp_path: Path, remote: GitRepo) -> Mirror:
    return Mirror(remote.url, tmp_path / "state" / "mirror.git", allow_local=True)


@pytest.fixture
def git_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The arguments, from the subcommand on, of each git started since the last look, in order.

    A wrapper before git on PATH writes them down; git's own children come from its exec path and do not
    pass here.
    """
    real, log, wrapper = shutil.which("git"), tmp_path / "calls.log", tmp_path / "spy" / "git"
    assert real
    wrapper.parent.mkdir()
    log.touch()
    line = 'for word in "$@"; do line="$line$word$(printf \'\\037\')"; done'
    wrapper.write_text(f'#!/bin/sh\nline=\n{line}\nprintf \'%s\\n\' "$line" >> {log}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")

    def look() -> list[list[str]]:
        calls = [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]
        log.write_text("")
        return [_from_subcommand(words) for words in calls]

    return look


def _from_subcommand(words: list[str]) -> list[str]:
    while words[:1] == ["-c"]:
        words = words[2:]
    return words
