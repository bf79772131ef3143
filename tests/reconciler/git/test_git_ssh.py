"""The ssh transport against a real sshd on loopback, with throwaway keys."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.errors import GitUnavailable
from reconciler.git.mirror import GitOptions, Mirror
from tests.gitrepo import GitRepo

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="sshd and ssh are not installed (openssh-server)"
)


@dataclass(frozen=True)
class Sshd:
    directory: Path
    port: int

    def url(self, repo: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repo}"

    def options(self, *, key: str = "user", known_hosts: str = "known_hosts") -> GitOptions:
        return GitOptions(
            ssh_command=f"ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {self.directory / key}"
            f" -o UserKnownHostsFile={self.directory / known_hosts} -o GlobalKnownHostsFile=/dev/null"
        )


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=60)
    return path.with_name(f"{path.name}.pub").read_text()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    directory = tmp_path / "ssh"
    directory.mkdir(mode=0o700)
    (directory / "authorized_keys").write_text(make_key(directory / "user"))
    make_key(directory / "stranger")
    host_key = make_key(directory / "host")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (directory / "other_hosts").write_text(f"[127.0.0.1]:{port} {(directory / 'stranger.pub').read_text()}")
    (directory / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory / 'host'}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {directory / 'authorized_keys'}\nStrictModes no\nPasswordAuthentication no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its privileges
    command = [str(SSHD), "-D", "-e", "-f", str(directory / "config")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "listening on" in line:
                    break
            else:
                pytest.fail(f"sshd did not start: exit code {process.wait()}")
            yield Sshd(directory, port)
        finally:
            process.terminate()
            process.wait()


async def test_fetch_and_push_over_ssh(sshd: Sshd, remote: GitRepo, tmp_path: Path) -> None:
    first = remote.commit({"a": "1"})
    mirror = Mirror(sshd.url(remote.path), tmp_path / "m.git", options=sshd.options())
    assert (await mirror.refresh()).heads == {"main": first}
    second = await mirror.write_commit(await mirror.write_tree(first, {"a": b"2"}), [first], "m\n")
    assert await mirror.push("refs/heads/main", second, expected=first)
    assert remote.files() == {"a": b"2"}
    assert not await mirror.push("refs/heads/main", first, expected=first)


async def test_each_refusal_over_ssh_is_named(sshd: Sshd, remote: GitRepo, tmp_path: Path) -> None:
    remote.commit({"a": "1"})
    for url, options, says in (
        (sshd.url(remote.path), sshd.options(key="stranger"), "did not accept our credentials"),
        (sshd.url(remote.path), sshd.options(known_hosts="none"), "known_hosts"),
        (sshd.url(remote.path), sshd.options(known_hosts="other_hosts"), "known_hosts"),
        (sshd.url(tmp_path / "nowhere"), sshd.options(), "no such repository"),
    ):
        with pytest.raises(GitUnavailable, match=says) as raised:
            await Mirror(url, tmp_path / "m.git", options=options).refresh()
        assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path / "m.git").exists()
