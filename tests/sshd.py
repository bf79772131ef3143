"""A real sshd on loopback for tests, with throwaway keys."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
IS_THERE = SSHD is not None and shutil.which("ssh") is not None


@dataclass(frozen=True)
class Sshd:
    """A running one. In `directory`: `user` may log in, `stranger` may not, `known_hosts` knows the host."""

    directory: Path
    port: int

    @property
    def destination(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"

    def client_config(self, *lines: str) -> Path:
        """A configuration of ssh with which it lets us in, without a question."""
        path = self.directory / "client"
        said = (
            "BatchMode yes",
            "IdentitiesOnly yes",
            f"IdentityFile {self.directory / 'user'}",
            f"UserKnownHostsFile {self.directory / 'known_hosts'}",
            "GlobalKnownHostsFile /dev/null",
        )
        path.write_text("\n".join([*said, *lines]) + "\n")
        return path


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=60)
    return path.with_name(f"{path.name}.pub").read_text()


@contextmanager
def running_sshd(directory: Path, *lines: str) -> Iterator[Sshd]:
    """One that reads these lines of configuration, too; ended with the block."""
    directory.mkdir(mode=0o700)
    (directory / "authorized_keys").write_text(make_key(directory / "user"))
    make_key(directory / "stranger")
    host_key = make_key(directory / "host")
    port = free_port()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (directory / "other_hosts").write_text(f"[127.0.0.1]:{port} {(directory / 'stranger.pub').read_text()}")
    said = (
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {directory / 'host'}", "PidFile none"),
        *("UsePAM no", f"AuthorizedKeysFile {directory / 'authorized_keys'}", "StrictModes no"),
        "PasswordAuthentication no",
    )
    (directory / "config").write_text("\n".join([*said, *lines]) + "\n")
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
                raise AssertionError(f"sshd did not start: exit code {process.wait()}")
            yield Sshd(directory, port)
        finally:
            process.terminate()
            process.wait()
