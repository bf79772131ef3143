"""The https transport against git's own http backend behind TLS on loopback."""

import base64
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.errors import GitUnavailable
from reconciler.git.mirror import GitOptions, Mirror
from tests.canaries import canary, may_hold
from tests.githttps import git_over_https
from tests.gitrepo import GitRepo


@dataclass(frozen=True)
class Server:
    url: str
    certificate: Path
    password: str


@pytest.fixture
def server(tmp_path: Path, remote: GitRepo) -> Iterator[Server]:
    password = canary("git-https")
    authorization = "Basic " + base64.b64encode(f"robot:{password}".encode()).decode()
    with git_over_https(remote.path.parent, tmp_path, authorization) as forge:
        yield Server(forge.url, forge.certificate, password)


async def test_fetch_and_push_over_https(
    server: Server, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
    remote.git("config", "http.receivepack", "true")
    first = remote.commit({"a": "1"})
    mirror = Mirror(f"{server.url}/remote.git", tmp_path / "m.git")
    assert (await mirror.refresh()).heads == {"main": first}
    second = await mirror.write_commit(await mirror.write_tree(first, {"a": b"2"}), [first], "m\n")
    assert await mirror.push("refs/heads/main", second, expected=first)
    assert remote.files() == {"a": b"2"}


async def test_a_password_comes_from_askpass_and_is_kept_nowhere(
    server: Server, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
    commit = remote.commit({"a": "1"})
    askpass = may_hold(tmp_path / "askpass")
    askpass.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print('robot' if 'Username' in sys.argv[1] else {server.password!r})\n"
    )
    askpass.chmod(0o700)
    url = f"{server.url}/private/remote.git"
    with pytest.raises(GitUnavailable, match="did not accept our credentials"):
        await Mirror(url, tmp_path / "m.git").refresh()
    mirror = Mirror(url, tmp_path / "m.git", options=GitOptions(askpass=str(askpass)))
    assert (await mirror.refresh()).heads == {"main": commit}
    held = [
        path
        for path in mirror.path.rglob("*")
        if path.is_file() and server.password.encode() in path.read_bytes()
    ]
    assert held == []


async def test_each_refusal_over_https_is_named(
    server: Server, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GitUnavailable, match="certificate was not accepted"):
        await Mirror(f"{server.url}/remote.git", tmp_path / "m.git").refresh()
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
    with pytest.raises(GitUnavailable, match="no such repository"):
        await Mirror(f"{server.url}/nowhere.git", tmp_path / "m.git").refresh()
    assert "m.git" not in os.listdir(tmp_path)
