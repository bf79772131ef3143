"""The peer: rsync over ssh on loopback, through an sshd of our own with keys that live as long as the run."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

CIPHER = "aes128-gcm@openssh.com"
_PRIVILEGE_SEPARATION = Path("/run/sshd")
_START_DEADLINE = 10.0


class PeerMissing(Exception):
    """What is needed to run this peer is not installed, or does not start here."""


@dataclass(frozen=True)
class Copied:
    """One run: its time in seconds and the bytes of contents it sent."""

    seconds: float
    bytes_moved: int


@dataclass(frozen=True)
class RsyncOverSsh:
    ssh: str

    def copy(self, source: Path, target: Path) -> Copied:
        """Bring `target` to `source` with `rsync -a --delete`; the connection is part of it, as always."""
        where = f"{getpass.getuser()}@127.0.0.1:{target}/"
        command = ["rsync", "-a", "--delete", "--stats", "-e", self.ssh, f"{source}/", where]
        begin = time.perf_counter()
        stats = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
        )
        seconds = time.perf_counter() - begin
        literal = re.search(r"Literal data: ([0-9,.]+)", stats.stdout)
        assert literal, stats.stdout
        moved = int(re.sub(r"[,.]", "", literal[1]))
        return Copied(seconds, moved)


@contextmanager
def rsync_over_ssh(private: Path) -> Iterator[RsyncOverSsh]:
    """Start an sshd that only this user can reach with a throwaway key below `private`; end it at exit."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    programs = {name: shutil.which(name, path=path) for name in ("rsync", "ssh", "sshd", "ssh-keygen")}
    missing = [name for name, found in programs.items() if not found]
    if missing:
        raise PeerMissing(f"not installed: {', '.join(missing)} (apt install rsync openssh-server)")
    private.mkdir(mode=0o700)
    for name in ("host", "user"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(private / name)]
        subprocess.run(keygen, check=True)
    shutil.copy(private / "user.pub", private / "authorized")
    port = free_port()
    config = private / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {private}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {private}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nCiphers {CIPHER}\n"
    )
    host_key = " ".join((private / "host.pub").read_text().split()[:2])
    (private / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    options = {"IdentitiesOnly": "yes", "BatchMode": "yes", "UserKnownHostsFile": f"{private}/known"}
    flags = " ".join(f"-o {name}={value}" for name, value in options.items())
    ssh = f"ssh -p {port} -F none -i {private}/user -c {CIPHER} {flags}"
    made_directory = os.geteuid() == 0 and not _PRIVILEGE_SEPARATION.exists()
    if made_directory:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755)
    sshd = [str(programs["sshd"]), "-D", "-e", "-f", str(config)]
    with (private / "sshd.log").open("wb") as log:
        server = subprocess.Popen(sshd, stdin=subprocess.DEVNULL, stderr=log)
    try:
        _wait_until_it_answers(server, port, private)
        trial = [*ssh.split(), f"{getpass.getuser()}@127.0.0.1", "true"]
        if subprocess.run(trial, stdin=subprocess.DEVNULL).returncode:
            raise PeerMissing("an sshd of our own does not let this user in")
        yield RsyncOverSsh(ssh)
    finally:
        server.terminate()
        server.wait()
        if made_directory:
            with suppress(OSError):
                _PRIVILEGE_SEPARATION.rmdir()


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, private: Path) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    said = (private / "sshd.log").read_text().strip().splitlines()
    raise PeerMissing(f"sshd does not start: {said[-1] if said else 'no reason given'}")
