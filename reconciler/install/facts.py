"""What a host has before an installation: a script that changes nothing, and what its output means. Pure."""

import re
from shlex import quote
from typing import Final

from reconciler.errors import StepFailed
from reconciler.install.plan import LINK, Found, Wanted

_LINE: Final = re.compile(r"trueup:([a-z-]+)=(.*)")
"""What else is printed comes from the account's own start files."""

_PYTHON: Final = """\
import fcntl, os, platform, sys
print("trueup:python=%d.%d" % sys.version_info[:2])
print("trueup:machine=" + platform.machine())
print("trueup:glibc=" + platform.libc_ver()[1])
try:
    import ensurepip, venv
    print("trueup:venv=1")
except ImportError:
    pass
try:
    import tomllib
except ImportError:
    sys.exit()
config = {}
try:
    with open(sys.argv[1], "rb") as file:
        config = tomllib.load(file)
    print("trueup:node=" + config["node"])
    print("trueup:state-dir=" + str(config.get("state_dir", "")))
    for key, name in (("roots", "root"), ("primaries", "primary")):
        for value in config.get(key, ()):
            print("trueup:%s=%s" % (name, value))
except FileNotFoundError:
    pass
except (KeyError, OSError, TypeError, ValueError):
    print("trueup:config-unreadable=1")
try:
    state_dir = str(config.get("state_dir") or sys.argv[2])
    with open(os.path.join(state_dir, "agent.lock"), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
except BlockingIOError:
    print("trueup:running=1")
except (AttributeError, OSError):
    pass
"""

_TOOLS: Final = """\
nearest() { d=$1; while [ ! -e "$d" ]; do d=$(dirname "$d"); done; echo "$d"; }
need() {
  d=$1; while [ ! -e "$d" ]; do echo "trueup:missing=$d"; d=$(dirname "$d"); done
  [ -w "$d" ] && [ -d "$d" ] || echo "trueup:unwritable=$d"
}
"""


def probe(wanted: Wanted) -> str:
    """The script."""
    prefix, link = quote(wanted.prefix), quote(f"{wanted.prefix}/{LINK}")
    needed = [wanted.prefix, _parent(wanted.config), _parent(wanted.state_dir), *wanted.roots]
    kept = [wanted.config, wanted.state_dir]
    if wanted.service:
        needed.append(wanted.unit_dir)
        kept.append(wanted.unit_file)
    if wanted.user or not wanted.service:
        user = f"user={quote(wanted.user)}"
    else:
        user = f"user=$(sed -n 's/^User=//p' {quote(wanted.unit_file)} 2>/dev/null || :)"
    lines = [
        _TOOLS,
        'echo "trueup:uid=$(id -u)"',
        *(f"need {quote(path)}" for path in needed),
        *(f'[ ! -e {quote(path)} ] || echo "trueup:present={path}"' for path in kept),
        f'[ ! -e {quote(wanted.state_dir)}/tls/token ] || echo "trueup:token=1"',
        f'if [ -L {link} ]; then echo "trueup:link=$(readlink {link})"; elif [ -e {link} ]; then'
        ' echo "trueup:link-taken=1"; fi',
        f'echo "trueup:free=$(df -Pk "$(nearest {prefix})" | awk \'NR == 2 {{ print $4 }}\')"',
        'case "$(systemctl is-system-running 2>/dev/null)" in'
        " running | degraded | starting | initializing | maintenance) echo trueup:systemd=1 ;; esac",
        f"if systemctl is-active --quiet {quote(wanted.unit)} 2>/dev/null; then echo trueup:active=1; fi",
        f"if systemctl is-enabled --quiet {quote(wanted.unit)} 2>/dev/null; then echo trueup:enabled=1; fi",
        user,
        'if [ -n "$user" ]; then echo "trueup:user=$user"; fi',
        'if id -u "$user" >/dev/null 2>&1; then echo trueup:user-exists=1; fi',
        f"{quote(wanted.python)} -c {quote(_PYTHON)} {quote(wanted.config)} {quote(wanted.state_dir)}"
        " 2>/dev/null || :",
        "echo trueup:end=1",
    ]
    return "\n".join(lines)


def read_facts(output: str) -> Found:
    """What the script's output says. Raises StepFailed where it did not come to its end."""
    said: dict[str, list[str]] = {}
    for line in output.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            said.setdefault(match[1], []).append(match[2])
    if "end" not in said:
        raise StepFailed("the host answered, and could not be looked at", hint="does it have sh, id and df?")

    def last(name: str) -> str:
        return said.get(name, [""])[-1]

    def number(text: str) -> int:
        return int(text) if text.isdecimal() else 0

    def version(text: str) -> tuple[int, int]:
        match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    return Found(
        uid=number(last("uid")),
        python=version(last("python")),
        can_make_venv="venv" in said,
        machine=last("machine"),
        glibc=version(last("glibc")),
        systemd="systemd" in said,
        free_kib=number(last("free")),
        missing=tuple(sorted(set(said.get("missing", ())), key=lambda path: (path.count("/"), path))),
        unwritable=tuple(sorted(set(said.get("unwritable", ())))),
        link=last("link"),
        link_taken="link-taken" in said,
        present=tuple(said.get("present", ())),
        node=last("node"),
        has_token="token" in said,
        active="active" in said,
        running="running" in said,
        enabled="enabled" in said,
        user=last("user"),
        user_exists="user-exists" in said,
        roots=tuple(said.get("root", ())),
        primaries=tuple(said.get("primary", ())),
        state_dir=last("state-dir"),
        config_unreadable="config-unreadable" in said,
    )


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or "/"
