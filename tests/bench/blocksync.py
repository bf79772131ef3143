"""Our side: a primary's hub and a real agent, each a process of its own, over mTLS on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.node_token import NodeToken
from tests.bench.primary import NODE

ROOT = Path(__file__).parents[2]
_END_DEADLINE = 20.0


@dataclass(frozen=True)
class Synced:
    """One task: its time in seconds, how much of that was the look at the source, and what moved."""

    seconds: float
    scan_seconds: float
    bytes_moved: int
    peak_rss: dict[str, int]


class BlockSync:
    def __init__(self, primary: subprocess.Popen[str], agent: subprocess.Popen[bytes]) -> None:
        self._primary = primary
        self._agent = agent

    def copy(self, source: Path, target: Path, *, durability: str) -> Synced:
        """Bring `target` to `source`: look at the source, then one task over the standing session."""
        for process in (self._primary, self._agent):
            Path("/proc", str(process.pid), "clear_refs").write_text("5")  # the peak starts over
        order = {"source": str(source), "target": str(target), "durability": durability}
        print(json.dumps(order), file=self._primary.stdin, flush=True)
        answer = _answer(self._primary)
        if answer["state"] != "SUCCESS":
            raise RuntimeError(f"the task failed: {answer['reason']}")
        peaks = {"primary": _peak(self._primary.pid), "agent": _peak(self._agent.pid)}
        return Synced(answer["seconds"], answer["scan_seconds"], answer["bytes_moved"], peaks)


@contextmanager
def block_sync(private: Path, root: Path) -> Iterator[BlockSync]:
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
        listens = _answer(primary)
        agent_command = [sys.executable, "-m", "agent"]
        config = ["--config", str(private / "agent.toml")]
        join = ["--primary", f"127.0.0.1:{listens['port']}", "--pin", listens["fingerprint"], "--node", NODE]
        join += ["--root", str(root), "--state-dir", str(private / "agent")]
        joining = {**environment, "SYNC_NODE_TOKEN": token.to_text()}
        subprocess.run([*agent_command, "join", *config, *join], cwd=ROOT, env=joining, check=True)
        with (private / "agent.log").open("wb") as log:
            agent = subprocess.Popen([*agent_command, "run", *config], cwd=ROOT, env=environment, stderr=log)
        try:
            _answer(primary)
            yield BlockSync(primary, agent)
        finally:
            agent.terminate()
            assert primary.stdin is not None
            primary.stdin.close()
            for process in (agent, primary):
                try:
                    process.wait(_END_DEADLINE)
                except subprocess.TimeoutExpired:
                    process.kill()


def _answer(primary: subprocess.Popen[str]) -> dict[str, Any]:
    assert primary.stdout is not None
    line = primary.stdout.readline()
    if not line:
        raise RuntimeError("the measured primary has ended; its last words are above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _peak(pid: int) -> int:
    """The most resident memory a process had, in bytes."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
