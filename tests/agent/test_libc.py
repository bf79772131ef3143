"""What the C library is told: memory that a transfer used goes back to the system at its end."""

import subprocess
import sys

# In a process of its own: another test may have left memory to take without asking the system for any.
PROGRAM = """
from pathlib import Path

from agent.libc import bulk_memory

MIB = 1024 * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


before = resident()
with bulk_memory():
    with bulk_memory():
        frames = [bytes([1]) * MIB for _ in range(200)]
        assert resident() - before > 150 * MIB, resident() - before
        frames.clear()
    with bulk_memory():
        pass
assert resident() - before < 50 * MIB, resident() - before
"""


def test_memory_of_a_transfer_is_given_back_when_the_last_one_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
