"""What the C library is told: memory that a transfer used goes back to the system at its end."""

from pathlib import Path

from agent.libc import bulk_memory

MIB = 1024 * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_of_a_transfer_is_given_back_when_the_last_one_has_ended() -> None:
    before = resident()
    with bulk_memory():
        with bulk_memory():
            frames = [bytes([1]) * MIB for _ in range(200)]
            assert resident() - before > 150 * MIB
            frames.clear()
        with bulk_memory():
            pass
    assert resident() - before < 50 * MIB
