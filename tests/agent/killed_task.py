"""A process that runs tasks in children of its own and has them killed at a given system call.

It answers one JSON line `{"base": ..., "source": ..., "kill_at": N, "options": {}}` with
`{"killed": bool, "calls": N}`: a child runs the task and is killed by SIGKILL right before its N-th call that
changes a file system, or, where that is a write, after half of it. The parent never runs trio, so that its
children start clean.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from tests.agent.syncing import Host, synchronise

CHANGING = (
    "pwrite",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "symlink",
    "fchmod",
    "chmod",
    "utime",
    "fsync",
)


class Helper:
    """That process, for the test that orders it about."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.killed_task"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )

    def run(self, base: Path, source: Path, kill_at: int, **options: object) -> tuple[bool, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"base": str(base), "source": str(source), "kill_at": kill_at, "options": options}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["killed"], answer["calls"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


class Killer:
    def __init__(self, kill_at: int) -> None:
        self._kill_at = kill_at
        self._lock = threading.Lock()
        self.calls = 0

    def _due(self) -> bool:
        with self._lock:
            self.calls += 1
            return self.calls == self._kill_at

    def arm(self) -> None:
        for name in CHANGING:
            setattr(os, name, self._watch(name, getattr(os, name)))
        opening = os.open

        def watched_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & os.O_CREAT and self._due():
                os.kill(os.getpid(), signal.SIGKILL)
            return opening(path, flags, *rest, **options)

        os.open = watched_open

    def _watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if self._due():
                if name == "pwrite":
                    fd, content, offset = arguments
                    function(fd, content[: len(content) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return watched


def run_child(order: dict[str, Any], report_fd: int) -> None:
    killer = Killer(order["kill_at"])

    async def task() -> None:
        host = Host(Path(order["base"]))
        host.allow(commands={"note": ("/bin/sh", "-c", "echo x >> $TRUEUP_TARGET/../ran")})
        options = {"durability": "commit", "after": ("note",), **order.get("options", {})}
        outcome = await synchronise(Path(order["source"]), host, **options)
        assert outcome.state == "SUCCESS", outcome.report.message

    killer.arm()
    trio.run(task)
    os.write(report_fd, str(killer.calls).encode())


def main() -> None:
    for line in sys.stdin:
        take, give = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run_child(json.loads(line), give)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        os.close(give)
        calls = os.read(take, 100)
        os.close(take)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
            sys.exit("the task failed")
        answer = {"killed": os.WIFSIGNALED(status), "calls": int(calls or b"0")}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
