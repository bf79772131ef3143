"""The invoke driver through the command line: what a task is given, and how an interrupted one ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.bad_world import Case, make_case
from tests.reconciler.deploy.processes import wait_gone
from tests.world import PATIENCE

TASKS = """\
import json, os, subprocess, sys
from pathlib import Path
from invoke import task

OUT = Path({out!r})

@task
def told(c, text="", flag=False, more=""):
    OUT.write_text(json.dumps([os.getcwd(), text, flag, more]))

@task
def hang(c):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with OUT.open("w") as ready:
        ready.write(f"{{os.getpid()}} {{child.pid}}")
    child.wait()
"""


def commit(case: Case, deploy: str, out: Path) -> None:
    case.world.app.commit({"tasks.py": TASKS.format(out=str(out)), "web/deep/x": "x\n"})
    case.world.app.tag("v1.1.0")
    case.commit(
        case.head
        + f"services:\n  web:\n    repository: app\n    deploy: {deploy}\n    environments: [staging]\n"
    )


async def test_arguments_and_working_directory_reach_a_task(tmp_path: Path) -> None:
    out = tmp_path / "told"
    async with make_case(tmp_path) as case:
        args = """["--text", "two words; $HOME 'é' \\"ü\\" *", "--flag", "--more=--dashes -x"]"""
        commit(case, f"{{kind: invoke, task: told, args: {args}, workdir: web/deep}}", out)
        await case.reconcile(expect=0)
    where, text, flag, more = json.loads(out.read_text())
    assert where.endswith("/web/deep")
    assert (text, flag, more) == ("two words; $HOME 'é' \"ü\" *", True, "--dashes -x")


@pytest.mark.parametrize("workdir", ["../elsewhere", "/tmp"])
async def test_a_working_directory_outside_of_the_repository(tmp_path: Path, workdir: str) -> None:
    async with make_case(tmp_path) as case:
        commit(case, f"{{kind: invoke, task: told, workdir: {workdir}}}", tmp_path / "told")
        await case.reconcile(expect=3)
    assert not (tmp_path / "told").exists()


async def test_a_pass_that_is_interrupted_ends_all_of_its_task(tmp_path: Path) -> None:
    out = tmp_path / "pids"
    async with make_case(tmp_path) as case:
        os.mkfifo(out)
        commit(case, "{kind: invoke, task: hang}", out)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "reconciler", "reconcile"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=case.world.environment,
            cwd=case.world.root,
        )
        with trio.fail_after(PATIENCE):
            pids = await trio.to_thread.run_sync(out.read_text, abandon_on_cancel=True)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
        for pid in pids.split():
            await wait_gone(int(pid))
        # Nothing says how far it got, so it is done again.
        planned = await case.plan("--detailed-exitcode", expect=2)
        assert [step["resource"] for step in planned.document["steps"]] == ["services/staging/web"]
