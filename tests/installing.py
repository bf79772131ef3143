"""A host for installations: reached by a real sshd, with stand-ins for what a test machine lacks.

`systemctl` is a script that starts what a unit says and keeps its process id; the host's Python may be one
that makes environments at once. Each command can be made to fail after it has done its work.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from reconciler.install.plan import LOCK
from reconciler.install.wheels import pack_wheel
from tests.sshd import Sshd, running_sshd
from tests.world import tree_of

ROOT = Path(__file__).parent.parent
NEEDED = (
    *("trio", "cryptography", "msgspec", "pathspec", "attrs", "sortedcontainers", "idna", "outcome"),
    *("sniffio", "cffi", "pycparser"),
)
"""What the agent needs, with what that needs."""

SYSTEMCTL = """\
#!/bin/sh
# What trueup asks of systemd: it starts what a unit's ExecStart says.
verb=$1; shift
for name; do :; done
unit=$HOST_ROOT/units/$name.service; here=$HOST_STATE/$name
stop() {
  [ -e "$here.pid" ] || return 0
  kill "$(cat "$here.pid")" 2>/dev/null
  while kill -0 "$(cat "$here.pid")" 2>/dev/null; do sleep 0.05; done
  rm -f "$here.pid"
}
start() {
  [ -e "$unit" ] || exit 5
  unset TRUEUP_INSTALL
  setsid $(sed -n 's/^ExecStart=//p' "$unit") >> "$HOST_STATE/$name.log" 2>&1 < /dev/null &
  echo $! > "$here.pid"
}
case $verb in
  is-system-running) echo running ;;
  daemon-reload) ;;
  enable) [ -e "$unit" ] && : > "$HOST_ROOT/enabled-$name" ;;
  disable) rm -f "$HOST_ROOT/enabled-$name" ;;
  is-enabled) [ -e "$HOST_ROOT/enabled-$name" ] ;;
  is-active) [ -e "$here.pid" ] && kill -0 "$(cat "$here.pid")" ;;
  stop) stop ;;
  start) start ;;
  restart) stop; start ;;
  *) exit 64 ;;
esac
"""

QUICK_PYTHON = f"""\
#!/bin/sh
# A Python whose environments are there at once, and hold all that they will ever need.
if [ "$1 $2 $3" = "-I -m pip" ]; then
  if [ -p "$HOST_STATE/gate" ]; then echo "at work" > "$HOST_STATE/gate"; sleep 3600; fi
  exit 0
fi
if [ "$1 $2 $3" != "-I -m venv" ]; then exec {sys.executable} "$@"; fi
mkdir -p "$4/bin"
cp "$0" "$4/bin/python"
printf '#!/bin/sh\\nexec {sys.executable} -m agent "$@"\\n' > "$4/bin/trueup-agent"
chmod +x "$4/bin/trueup-agent"
"""

NO_VENV = f"""\
#!/bin/sh
# A Python of which a distribution left out what makes environments.
shift
program=$1
shift
exec {sys.executable} -c "import sys; sys.modules['ensurepip'] = None
$program" "$@"
"""

SUDO = """\
#!/bin/sh
# Asks for no password where the test says so.
[ "$1 $2" = "-n --" ] || exit 64
if [ ! -e "$HOST_STATE/sudoer" ]; then echo "sudo: a password is required" >&2; exit 1; fi
shift 2
exec "$@"
"""

LOGIN = """\
#!/bin/sh
# Every command that ssh runs here; one of them ends with an error although it did its work.
export PATH={tools}:$PATH HOME={state}/home HOST_ROOT={root} HOST_STATE={state}
export PYTHONPATH={code}:{state}/packages
number=$(($(cat {state}/count 2>/dev/null || echo 0) + 1))
echo $number > {state}/count
sh -c "$SSH_ORIGINAL_COMMAND"
code=$?
if [ "$number" = "$(cat {state}/fail-at 2>/dev/null)" ]; then echo "no space left, or so" >&2; exit 1; fi
exit $code
"""


@dataclass(frozen=True)
class InstallHost:
    """`root` is what an installation may change; `state` is the test's own."""

    sshd: Sshd
    root: Path
    state: Path
    ssh_config: Path

    def options(self, *more: str) -> list[str]:
        """Of `trueup node install`, so that all of it stays below `root`."""
        return [
            *("--ssh", self.sshd.destination, "--port", str(self.sshd.port)),
            *("--ssh-config", str(self.ssh_config), "--prefix", str(self.root / "opt/trueup")),
            *("--config", str(self.root / "etc/agent.toml"), "--host-state", str(self.root / "lib/agent")),
            *("--unit-dir", str(self.root / "units")),
            *more,
        ]

    @property
    def quick(self) -> list[str]:
        return ["--python", str(self.state / "tools/quick-python")]

    def fail_at(self, number: int) -> None:
        """Let the command of that number from now on fail; 0: none. The first is the look before all else."""
        (self.state / "count").write_text("0")
        (self.state / "fail-at").write_text(str(number))

    @property
    def commands(self) -> int:
        return int((self.state / "count").read_text())

    def tree(self) -> dict[str, tuple[str, int, bytes]]:
        """All that is there, apart from what a running agent says of its connection."""
        return tree_of(self.root, skip=("status.json", ".status.json.tmp", "agent.lock"))

    def left_running(self) -> list[int]:
        """Processes of an installation that are still there."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/environ")
            if {f"HOST_STATE={self.state}", "TRUEUP_INSTALL"} <= _names_and_values(path)
        ]

    def agent_pid(self) -> int | None:
        path = self.state / "trueup-agent.pid"
        return int(path.read_text()) if path.exists() else None


def _names_and_values(environ: Path) -> set[str]:
    """Of a process: `NAME=value` and `NAME` for each of its variables."""
    try:
        pairs = environ.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return set()  # it has ended
    return {*pairs, *(pair.partition("=")[0] for pair in pairs)}


@contextmanager
def install_host(directory: Path) -> Iterator[InstallHost]:
    root, state = directory / "host", directory / "aside"
    tools = state / "tools"
    for path in (root / "units", root / "etc", state / "home", tools):
        path.mkdir(parents=True)
    scripts = {"systemctl": SYSTEMCTL, "quick-python": QUICK_PYTHON, "no-venv": NO_VENV, "sudo": SUDO}
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tools / "python3").symlink_to(sys.executable)
    # Of another program there, and no part of any environment: what it has must not count as installed.
    installed = distribution("trueup")
    elsewhere = state / f"packages/trueup-{installed.version}.dist-info"
    elsewhere.mkdir(parents=True)
    said = installed.read_text("METADATA") or installed.read_text("PKG-INFO")
    (elsewhere / "METADATA").write_text(str(said))
    login = state / "login"
    login.write_text(LOGIN.format(tools=tools, state=state, root=root, code=ROOT))
    login.chmod(0o755)
    sockets = tempfile.TemporaryDirectory(prefix="trueup-ssh-", dir="/tmp")
    with sockets as short, running_sshd(directory / "ssh", f"ForceCommand {login}") as sshd:
        # One connection for all commands; its socket's path would be too long in there.
        shared = ("ControlMaster auto", f"ControlPath {short}/one", "ControlPersist 600")
        host = InstallHost(sshd, root, state, sshd.client_config(*shared))
        try:
            yield host
        finally:
            end = ["ssh", "-F", str(host.ssh_config), "-p", str(sshd.port), "-O", "exit", sshd.destination]
            subprocess.run(end, capture_output=True, timeout=60)
            if (pid := host.agent_pid()) is not None:
                with suppress(ProcessLookupError):
                    process = os.pidfd_open(pid)
                    try:
                        signal.pidfd_send_signal(process, signal.SIGTERM)
                        ended, _, _ = select.select([process], [], [], 60)
                        assert ended, "the agent does not end"
                    finally:
                        os.close(process)


def wheels_of_this_environment(directory: Path) -> Path:
    """What the agent needs, as wheels made of what is installed here: nothing comes over a network.

    With them the lock that names them.
    """
    directory.mkdir()
    lock: list[str] = []
    for name in NEEDED:
        found = distribution(name)
        paths = [path for path in found.files or () if ".." not in path.parts and path.suffix != ".pyc"]
        [info] = {path.parts[0] for path in paths if path.parts[0].endswith(".dist-info")}
        files = {
            path.as_posix(): Path(str(path.locate())).read_bytes()
            for path in paths
            if path.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
        }
        tags = [line for line in files[f"{info}/WHEEL"].decode().splitlines() if line.startswith("Tag: ")]
        wheel = f"{info.removesuffix('.dist-info')}-{tags[-1].removeprefix('Tag: ')}.whl"
        content = pack_wheel(files, info)
        (directory / wheel).write_bytes(content)
        lock.append(f"{name}=={found.version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    (directory / LOCK).write_text("".join(lock))
    return directory
