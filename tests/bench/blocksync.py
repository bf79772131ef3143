"""Our side: a primary's hub and a real agent, each a process of its own, over mTLS on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.node_token import NodeToken
from tests.bench.peers import Copied
from tests.bench.primary import NODE

ROOT = Path(__file__).parents[2]
_END_DEADLINE = 20.0


LEFT_TO_THE_SYSTEM, FLUSHED = "none", "commit"


class BlockSync:
    """`durability` is that of the writes. `checkout`: the tree is taken for a repository's."""

    def __init__(
        self,
        primary: subprocess.Popen[str],
        agent: subprocess.Popen[bytes],
        durability: str,
        *,
        checkout: bool = False,
    ) -> None:
        self._primary = primary
        self._agent = agent
        self._durability = durability
        self._new: set[Path] = set()
        self.first_copies_only = checkout
        # The times of a checkout mean nothing.
        self.compare_options: tuple[str, ...] = ("--no-times",) if checkout else ()
        self.name = "trueup"
        if checkout:
            self.name += ", a repository's tree"
        if durability != LEFT_TO_THE_SYSTEM:
            self.name += f", durability {durability}"

    def with_durability(self, durability: str) -> BlockSync:
        """The same processes, for copies to other targets."""
        return BlockSync(self._primary, self._agent, durability)

    def of_checkout(self) -> BlockSync:
        return BlockSync(self._primary, self._agent, self._durability, checkout=True)

    def processes(self) -> Sequence[int]:
        return self._primary.pid, self._agent.pid

    def prepare(self, source: Path, target: Path) -> None:
        """The agent keeps a manifest for each target, and makes it at the first copy; the primary knows
        nothing of the source before."""
        self._new.add(target)

    def forget(self, source: Path, target: Path) -> None:
        """The agent sees by itself that a target is another directory than before."""

    def copy(self, source: Path, target: Path) -> Copied:
        """Look at the source, and at a target that was copied to before; then one task, if either differs."""
        first = target in self._new
        self._new.discard(target)
        order = {"source": str(source), "target": str(target), "first": first}
        order |= {"durability": self._durability, "checkout": self.first_copies_only}
        print(json.dumps(order), file=self._primary.stdin, flush=True)
        answer = read_answer(self._primary)
        if answer["state"] != "SUCCESS":
            raise RuntimeError(f"the task failed: {answer['reason']}")
        return Copied(answer["seconds"], answer["scan_seconds"], answer["bytes_moved"])


@contextmanager
def block_sync(private: Path, root: Path, durability: str = LEFT_TO_THE_SYSTEM) -> Iterator[BlockSync]:
    """Start both processes; the agent may write below `root`. Both have ended when this is left."""
    private.mkdir(mode=0o700)
    token = NodeToken.generate()
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(private), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.primary", token.public_text, str(private / "tls")],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as primary:
        listens = read_answer(primary)
        agent_command = [sys.executable, "-m", "agent"]
        config = ["--config", str(private / "agent.toml")]
        join = ["--primary", f"127.0.0.1:{listens['port']}", "--pin", listens["fingerprint"], "--node", NODE]
        join += ["--root", str(root), "--state-dir", str(private / "agent")]
        joining = {**environment, "SYNC_NODE_TOKEN": token.to_text()}
        subprocess.run([*agent_command, "join", *config, *join], cwd=ROOT, env=joining, check=True)
        with (private / "agent.log").open("wb") as log:
            agent = subprocess.Popen([*agent_command, "run", *config], cwd=ROOT, env=environment, stderr=log)
        try:
            read_answer(primary)
            yield BlockSync(primary, agent, durability)
        finally:
            agent.terminate()
            assert primary.stdin is not None
            primary.stdin.close()
            for process in (agent, primary):
                try:
                    process.wait(_END_DEADLINE)
                except subprocess.TimeoutExpired:
                    process.kill()


def read_answer(primary: subprocess.Popen[str]) -> dict[str, Any]:
    assert primary.stdout is not None
    line = primary.stdout.readline()
    if not line:
        raise RuntimeError("the measured primary has ended; its last words are above")
    answer: dict[str, Any] = json.loads(line)
    return answer
