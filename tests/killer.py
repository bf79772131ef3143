"""Runs a `trueup` command and ends its process with SIGKILL at one of the points where it touches the world.

    python -m tests.killer POINT COUNT_FILE reconcile ...

A point is the moment before or after something that others could see: a journal record, a git child, a
message to an agent, a process of a task. They are counted from 1; POINT 0 kills nowhere and writes how
many there were to COUNT_FILE.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import reconciler.nodes
import reconciler.reconcile  # all that starts children is loaded before it is wrapped
from agent.routing import TaskChannel
from reconciler.cli import main
from reconciler.deploy import process as deploy_process
from reconciler.git import process as git_process
from reconciler.journal import Journal

point, count_file = int(sys.argv[1]), Path(sys.argv[2])
LOADED = (reconciler.reconcile, reconciler.nodes)
passed = 0


def reach() -> None:
    """One more point; the process ends here if it is the chosen one."""
    global passed
    passed += 1
    if passed == point:
        os.kill(os.getpid(), signal.SIGKILL)


def around(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        reach()
        result = function(*args, **kwargs)
        reach()
        return result

    return run


def around_async(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        reach()
        result = await function(*args, **kwargs)
        reach()
        return result

    return run


def replace_everywhere(module: Any, name: str, wrapped: Any) -> None:
    """In the module itself and in all that imported the name from it."""
    original = getattr(module, name)
    for other in list(sys.modules.values()):
        if getattr(other, name, None) is original:
            setattr(other, name, wrapped)


def arm() -> None:
    for name in ("begin_pass", "begin_step", "end_step", "mark_published", "end_pass"):
        setattr(Journal, name, around(getattr(Journal, name)))
    setattr(TaskChannel, "send", around_async(TaskChannel.send))  # noqa: B010 - typed as a method
    for module, name in (
        (git_process, "run_git"),
        (deploy_process, "run_captured"),
    ):
        replace_everywhere(module, name, around_async(getattr(module, name)))


if __name__ == "__main__":
    arm()
    sys.argv = ["trueup", *sys.argv[3:]]
    try:
        main()
    finally:
        count_file.write_text(str(passed))
