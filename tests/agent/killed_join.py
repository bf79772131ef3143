"""Runs `trueup-agent` and ends it with SIGKILL right before its N-th step that others could see.

    python -m tests.agent.killed_join N join ...

A step makes a file or a directory or gives one its name.
"""

import os
import signal
import sys
from typing import Any

from agent.cli import main

kill_at = int(sys.argv[1])
steps = 0


def step() -> None:
    global steps
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def before(name: str) -> None:
    function = getattr(os, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        if name != "open" or arguments[1] & os.O_CREAT:
            step()
        return function(*arguments, **options)

    setattr(os, name, watched)


if __name__ == "__main__":
    for name in ("open", "replace", "unlink", "mkdir"):
        before(name)
    sys.exit(main(sys.argv[2:]))
