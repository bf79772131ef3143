"""Where tests of the agent do their work."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.agent.killed_task import Helper
from tests.agent.syncing import Host, laid_out


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory that no disk holds up, where the machine has one."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK | os.X_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """Runs tasks that are killed."""
    helper = Helper()
    yield helper
    helper.close()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree of all kinds."""
    return laid_out(tmp_path / "source")
