"""A process whose memory is its own, as an ordinary user: what it may and may not do afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """\
import ctypes, json, os, resource
from pathlib import Path
import trio
from reconciler.deploy.orphans import home_prefix
from reconciler.deploy.process import run_captured
from reconciler.hardening import forbid_core_dumps
from reconciler.secrets.mask import Masker

def denied(path):
    try:
        Path(path).read_bytes()
    except PermissionError:
        return True
    return False

if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a process that was another user's is no dumpable one
resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
before = home_prefix(), denied("/proc/self/environ")
forbid_core_dumps()

task = '''
ulimit -S -c
cat /proc/$$/environ >/dev/null && echo its own
cat /proc/$PPID/environ 2>/dev/null || echo not its parent
'''
ran = trio.run(lambda: run_captured(
    ["sh", "-c", task], cwd=Path("/"), env={"PATH": os.environ["PATH"]}, timeout=60, masker=Masker([]),
))
print(json.dumps({
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "environ": [before[1], denied("/proc/self/environ")],
    "descriptors": bool(os.listdir("/proc/self/fd")),
    "knows itself": home_prefix() == before[0],
    "task": ran.output.split("\\n"),
}))
"""


def test_an_ordinary_users_primary_and_its_tasks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "core": 0,
        "dumpable": 0,
        "environ": [False, True],
        "descriptors": True,
        "knows itself": True,
        "task": ["0", "its own", "not its parent", ""],
    }
