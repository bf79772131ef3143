"""A process that runs a task in a child of its own, which waits until a tracer holds it.

Orders are JSON lines `{"base": ..., "source": ..., "streams": bool}`, answered by `{"pid": N}`; the line
that follows lets the child go, and its end is answered with `{"killed": bool, "state": ..., "reason": ...}`.
A state `SOURCE` says that the primary's half could not read. Nothing that the child does for the answer is a
call that writes to a file. Work is done in one thread, so that the number of a call among those of its kind
is the same each time, but for what the two halves do at once.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

import agent.scan
import agent.transfer
import reconciler.sync.streamed
from reconciler.errors import LookFailed
from tests.agent.streams import first_copy
from tests.agent.syncing import Host, synchronise
from tests.agent.upheaval import POLICY, growing_of

_PR_SET_PTRACER = 0x59616D61
_PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)


_in_thread = trio.to_thread.run_sync


async def in_one_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """As trio's, but all who have limits of their own share one."""
    return await _in_thread(function, *arguments, **options | {"limiter": None})


def run_child(order: dict[str, Any], host: Host, go: int, answers: socket.socket) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
    os.read(go, 1)

    async def task() -> None:
        trio.to_thread.current_default_thread_limiter().total_tokens = 1
        trio.to_thread.run_sync = in_one_thread  # type: ignore[assignment]
        source = Path(order["source"])
        unread = ""
        if order["streams"]:
            growing = await growing_of(source)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(growing.run)
                    report = await first_copy(growing, host, **POLICY)
            except* LookFailed as error:
                unread = str(error)
        else:
            report = (await synchronise(source, host, **POLICY)).report
        state, reason = ("SOURCE", unread) if unread else (report.state, report.reason)
        answers.send(json.dumps({"state": state, "reason": reason}).encode())

    trio.run(task)


def main() -> None:
    agent.scan.WORKERS = 1
    agent.transfer.WORKERS = 1  # type: ignore[attr-defined]
    reconciler.sync.streamed.PORTION_FILES = 1
    for line in sys.stdin:
        order = json.loads(line)
        host = Host(Path(order["base"]))  # which makes directories, and is not to be seen
        wait, go = os.pipe()
        take, give = socket.socketpair()
        child = os.fork()
        if child == 0:
            take.close()
            os.close(go)
            try:
                run_child(order, host, wait, give)
            except BaseException:
                give.send(json.dumps({"state": "CRASHED", "reason": traceback.format_exc()[-8000:]}).encode())
                os._exit(1)
            os._exit(0)
        give.close()
        os.close(wait)
        print(json.dumps({"pid": child}), flush=True)
        sys.stdin.readline()
        os.write(go, b"!")
        os.close(go)
        answer = take.recv(20_000)
        take.close()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        said = json.loads(answer) if answer else {"state": "", "reason": ""}
        print(json.dumps({"killed": killed, **said}), flush=True)


if __name__ == "__main__":
    main()
