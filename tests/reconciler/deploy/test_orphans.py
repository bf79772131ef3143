"""A primary is killed while a task runs: its successor ends what is left of the task, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.deploy.orphans import MARK, Warden, home_prefix, sweep
from tests.reconciler.deploy.processes import goes, is_running

# Runs one task as a primary does, and says who is running once the task is under way.
PRIMARY = """
import sys
from pathlib import Path
import trio
from reconciler.deploy.build import BuildRequest, run_build
from reconciler.deploy.context import RunContext
from reconciler.secrets.mask import Masker
from reconciler.spec.model import Build

checkout, scratch, path = sys.argv[1:]
request = BuildRequest(
    owner="projects/branch/x", project="x", build=Build(task="slow"), checkout=Path(checkout),
    revision="0" * 40, masker=Masker([]),
    context=RunContext({"PATH": path}, Path(scratch)),
    log=lambda line: print(line, flush=True),
)
trio.run(run_build, request)
"""
TASKS = """
from invoke import task

@task
def slow(c):
    c.run("(trap '' TERM; while :; do sleep 1000; done) & echo $! && echo $$ && exec sleep 1000")
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_a_killed_primary_s_task_is_ended(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    command = [sys.executable, "-c", PRIMARY, str(tmp_path), str(scratch), os.environ["PATH"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as primary:
        assert primary.stdout is not None
        pids: list[int] = []
        while len(pids) < 2:
            line = primary.stdout.readline()
            assert line, "the primary ended too early"
            pids += [int(line)] if line.strip().isdecimal() else []
        assert sweep(scratch) == (), "while the primary lives its tasks are left alone"
        assert all(is_running(pid) for pid in pids)
        primary.kill()
    assert all(is_running(pid) for pid in pids), "nobody ends them by himself"
    (home,) = scratch.iterdir()
    assert sweep(scratch, grace=0.2) == (home.name,)
    for pid in pids:
        assert goes(pid)
    assert list(scratch.iterdir()) == []
    assert sweep(scratch) == ()


def test_processes_of_other_tasks_are_left_alone(scratch: Path) -> None:
    (scratch / "home-999999999-1-gone").mkdir()
    (scratch / "unrelated").mkdir()
    marks = ("home-999999999-1-other", f"{home_prefix()}mine", "")
    others = [subprocess.Popen(["sleep", "1000"], env={**os.environ, MARK: mark}) for mark in marks]
    try:
        assert sweep(scratch) == ("home-999999999-1-gone",)
        assert all(other.poll() is None for other in others)
        assert [path.name for path in scratch.iterdir()] == ["unrelated"]
    finally:
        for other in others:
            other.send_signal(signal.SIGKILL)
            other.wait()


def test_a_home_of_a_process_number_that_is_in_use_again_is_swept(scratch: Path) -> None:
    (scratch / f"home-{os.getpid()}-1-reused").mkdir()
    (scratch / f"{home_prefix()}mine").mkdir()
    (scratch / "home-strange").mkdir()
    assert sweep(scratch) == (f"home-{os.getpid()}-1-reused", "home-strange")
    assert [path.name for path in scratch.iterdir()] == [f"{home_prefix()}mine"]


def test_a_scratch_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == ()


def test_a_warden_that_died_is_replaced_also_after_an_attempt_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warden = Warden(tmp_path)
    warden.begin()
    try:
        first = warden._pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "none"))
            with pytest.raises(FileNotFoundError):
                warden.begin()
        warden.begin()
        assert warden._pid not in (None, first)
    finally:
        warden.end()
    warden.end()
