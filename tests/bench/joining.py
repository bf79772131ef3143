"""Hosts that join a primary one after the other, in one process; started by `soaking.py`.

What `trueup-agent join` does, without starting a Python for each. Standard input has their arguments as JSON.
"""

from __future__ import annotations

import json
import sys

from agent.cli import main


def join_all(commands: list[list[str]]) -> int:
    """The first exit code that is not 0."""
    return next((code for code in map(main, commands) if code), 0)


if __name__ == "__main__":
    sys.exit(join_all(json.load(sys.stdin)))
