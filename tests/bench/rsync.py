"""The peer rsync, on loopback: over ssh, through an sshd of our own with keys that live as long as the run;
and to a daemon, which encrypts nothing."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import Copied, PeerMissing
from tests.bench.usage import wait_until_alone
from tests.ports import free_port

CIPHER = "aes128-gcm@openssh.com"
_PRIVILEGE_SEPARATION = Path("/run/sshd")
_START_DEADLINE = 10.0


@dataclass
class Rsync:
    """`rsync -a --delete` to a server that is there; the connection is part of each run, as always."""

    name: str
    server: int
    """Its process id."""
    options: tuple[str, ...]
    destination: str
    """Before the path of the target."""
    below: Path
    """What the paths of targets are relative to, as the server sees them."""
    compare_options: tuple[str, ...] = ()
    first_copies_only = False
    _client: int | None = None

    def processes(self) -> Sequence[int]:
        client = self._client
        return (self.server,) if client is None else (self.server, client)

    def prepare(self, source: Path, target: Path) -> None:
        """Nothing is kept from one run to the next."""

    def forget(self, source: Path, target: Path) -> None:
        """Nothing is kept from one run to the next."""

    def copy(self, source: Path, target: Path) -> Copied:
        where = f"{self.destination}{target.relative_to(self.below)}/"
        command = ["rsync", "-a", "--delete", "--stats", *self.options, f"{source}/", where]
        begin = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            self._client = process.pid
            try:
                stats, _ = process.communicate()
            finally:
                self._client = None
        seconds = time.perf_counter() - begin
        if process.returncode:
            raise RuntimeError(f"{self.name} ended with {process.returncode}: {stats}")
        literal = re.search(r"Literal data: ([0-9,.]+)", stats)
        assert literal, stats
        wait_until_alone(self.server)
        return Copied(seconds, bytes_moved=int(re.sub(r"[,.]", "", literal[1])))


@contextmanager
def rsync_over_ssh(private: Path) -> Iterator[Rsync]:
    """Start an sshd that only this user can reach with a throwaway key below `private`; end it at exit."""
    programs = find_programs("rsync", "ssh", "sshd", "ssh-keygen", packages="rsync openssh-server")
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
    sshd = [programs["sshd"], "-D", "-e", "-f", str(config)]
    with (private / "sshd.log").open("wb") as log:
        server = subprocess.Popen(sshd, stdin=subprocess.DEVNULL, stderr=log)
    try:
        _wait_until_it_answers(server, port, private / "sshd.log")
        trial = [*ssh.split(), f"{getpass.getuser()}@127.0.0.1", "true"]
        if subprocess.run(trial, stdin=subprocess.DEVNULL).returncode:
            raise PeerMissing("an sshd of our own does not let this user in")
        yield Rsync("rsync over ssh", server.pid, ("-e", ssh), f"{getpass.getuser()}@127.0.0.1:/", Path("/"))
    finally:
        server.terminate()
        server.wait()
        if made_directory:
            with suppress(OSError):
                _PRIVILEGE_SEPARATION.rmdir()


@contextmanager
def rsync_daemon(private: Path, trees: Path) -> Iterator[Rsync]:
    """Start a daemon that writes below `trees`; end it at exit."""
    programs = find_programs("rsync", packages="rsync")
    private.mkdir(mode=0o700)
    port = free_port()
    config = private / "rsyncd.conf"
    config.write_text(
        f"address = 127.0.0.1\nport = {port}\nuse chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
        f"[trees]\npath = {trees}\nread only = no\n"
    )
    command = [programs["rsync"], "--daemon", "--no-detach", f"--config={config}"]
    with (private / "rsyncd.log").open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        _wait_until_it_answers(server, port, private / "rsyncd.log")
        yield Rsync("rsync daemon, plain", server.pid, (), f"rsync://127.0.0.1:{port}/trees/", trees)
    finally:
        server.terminate()
        server.wait()


def find_programs(*names: str, packages: str) -> dict[str, str]:
    """Where programs are. Raises PeerMissing with the Debian packages that have them."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = {name: where for name in names if (where := shutil.which(name, path=path))}
    missing = [name for name in names if name not in found]
    if missing:
        raise PeerMissing(f"not installed: {', '.join(missing)} (apt install {packages})")
    return found


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    said = log.read_text().strip().splitlines()
    raise PeerMissing(f"{log.stem} does not start: {said[-1] if said else 'no reason given'}")
