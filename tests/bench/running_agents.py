"""Many agents that have nothing to do, in one process; started by `fleets.py`.

They are real ones up to the tasks: keys, TLS, hello, pings, and the waits before they come again. Its first
line says who they are; they begin at the first line on standard input. Each further one is answered with the
seconds of a processor that they took, and they end with the last.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from agent import tls
from agent.address import Address
from agent.memory import Memory
from agent.node_token import NodeToken
from agent.session import Agent, Identity
from agent.status import Board
from agent.wire.channel import Channel
from agent.wire.messages import TaskReport, Work
from reconciler.hardening import allow_open_files


async def idle(task: Work, channel: Channel) -> TaskReport:
    raise AssertionError("nobody gives these agents work")


def make(
    where: Path, node: str, port: int, fingerprint: str
) -> tuple[Callable[[], Awaitable[None]], list[str]]:
    """An agent, and what the primary has to know of it."""
    memory, token = Memory(where / node, where / node / "tls"), NodeToken.generate()
    certificate = memory.identity(node)
    memory.remember_server(fingerprint)
    agent = Agent(
        Identity(node, token, certificate, fingerprint),
        (Address("127.0.0.1", port),),
        memory,
        Board(memory.state_dir, node=node, version="bench"),
        idle,
    )
    return agent.run, [node, token.public_text, base64.b64encode(tls.to_der(certificate)).decode()]


async def main(where: Path, first: int, count: int, port: int, fingerprint: str) -> None:
    allow_open_files()
    logging.disable()  # each of them says at each attempt that it is not connected
    made = [make(where, f"node-{number:05}", port, fingerprint) for number in range(first, first + count)]
    print(json.dumps([enrolment for _, enrolment in made]), flush=True)
    if not await trio.to_thread.run_sync(sys.stdin.readline):
        return
    async with trio.open_nursery() as nursery:
        for run, _ in made:
            nursery.start_soon(run)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(time.process_time()), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    first, count, port = map(int, sys.argv[2:5])
    trio.run(main, Path(sys.argv[1]), first, count, port, sys.argv[5])
