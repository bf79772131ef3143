"""Tasks out of the journal of a state directory on which no primary runs: found, followed to their end."""

import fcntl
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from reconciler.errors import SettingsError
from reconciler.install.record import Record
from reconciler.installations import is_under_way
from reconciler.journal import Journal
from reconciler.journal_file import JOURNAL_FILE
from reconciler.live import NoPrimary
from reconciler.settings import load_settings
from reconciler.state_lock import LOCK_FILE
from reconciler.task_source import Document, OfJournal, open_tasks
from reconciler.watch_logs import find_task, lines_of
from tests.world import PATIENCE

SITE = "projects/production/site/web-1/srv"


class Followed:
    """What was heard of a task, and what people were told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.said: list[str] = []
        self.first = trio.Event()

    def __call__(self, event: str, document: Document) -> None:
        self.heard.append((event, document.get("number", document["state"])))
        self.first.set()


def source_of(state: Path, said: list[str]) -> OfJournal:
    settings = load_settings({"HOME": "/home/op", "TRUEUP_STATE_DIR": str(state)}, root=False)
    return OfJournal(settings, said.append, looks=0.01)


async def test_a_task_is_followed_while_somebody_works_on_it(tmp_path: Path) -> None:
    followed = Followed()
    with Journal(tmp_path / JOURNAL_FILE) as journal, (tmp_path / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        journal.create_task("ab12", SITE, "web-1", project="site")
        first = journal.begin_attempt("ab12")
        journal.end_attempt("ab12", first, "RETRYING", "TargetBusy", "later", log="one")
        second = journal.begin_attempt("ab12")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(source_of(tmp_path, followed.said).follow, "ab12", followed)
                await followed.first.wait()
                journal.end_attempt("ab12", second, "SUCCESS", log="two")
    assert [each for each in followed.heard if each[0] != "begun"] == [
        *(("ended", 1), ("ended", 2), ("task", "SUCCESS")),
    ]
    assert followed.said == []


async def test_what_nobody_works_on_was_interrupted(tmp_path: Path) -> None:
    followed = Followed()
    (tmp_path / LOCK_FILE).touch()
    with Journal(tmp_path / JOURNAL_FILE) as journal:
        journal.create_task("ab12", SITE, "web-1", project="site")
        journal.begin_attempt("ab12")
    await source_of(tmp_path, followed.said).follow("ab12", followed)
    assert followed.heard == [("begun", 1), ("task", "FAILED")]
    assert followed.said == [f"nothing works on {tmp_path}: the task was interrupted"]


async def test_an_installation_is_followed_though_no_primary_works_there(tmp_path: Path) -> None:
    followed = Followed()
    settings = load_settings({"HOME": "/home/op", "TRUEUP_STATE_DIR": str(tmp_path)}, root=False)
    record = Record.begin(settings, "web-1")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source_of(tmp_path, followed.said).follow, record.id, followed)
            await followed.first.wait()
            with Journal(tmp_path / JOURNAL_FILE) as primary:
                assert primary.fail_interrupted_tasks(partial(is_under_way, settings)) == 0
            record.end("", "it runs", "one")
    assert [each for each in followed.heard if each[0] != "begun"] == [("ended", 1), ("task", "SUCCESS")]
    assert followed.said == []
    assert not list((tmp_path / "installing").iterdir())


async def test_an_installation_whose_process_died_was_interrupted(tmp_path: Path) -> None:
    settings = load_settings({"HOME": "/home/op", "TRUEUP_STATE_DIR": str(tmp_path)}, root=False)
    begin = "import os; from tests.reconciler.test_task_source import *; Record.begin(load_settings({'HOME': "
    begin += f"'/home/op', 'TRUEUP_STATE_DIR': {str(tmp_path)!r}}}, root=False), 'web-1'); os._exit(9)"
    killed = await trio.run_process([sys.executable, "-c", begin], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == 9
    [left] = (tmp_path / "installing").iterdir()
    followed = Followed()
    await source_of(tmp_path, followed.said).follow(left.name, followed)
    assert followed.heard == [("begun", 1), ("task", "FAILED")]
    record = Record.begin(settings, "web-2")
    with Journal(tmp_path / JOURNAL_FILE, read_only=True) as journal:
        assert [task.state for task in journal.tasks()] == ["RUNNING", "FAILED"]
    record.end("", "it runs", "")


async def test_a_nodes_installation_comes_before_its_newer_tasks(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL_FILE) as journal:
        journal.create_task("ab12", "nodes/web-1", "web-1")
        journal.create_task("cd34", "nodes/web-1", "web-1")
        journal.create_task("ef56", SITE, "web-1", project="site")
        journal.create_task("ab99", "nodes/web-10", "web-10")
    assert await find_task(source_of(tmp_path, []), "nodes/web-1") == "cd34"


@pytest.mark.parametrize(
    ("named", "found"),
    [
        pytest.param("ab12", "ab12", id="all of it"),
        pytest.param("ab1", "ab12", id="its beginning"),
        pytest.param("ab", "several tasks begin with ab: ab99, ab12; give more of the id", id="ambiguous"),
        pytest.param("c", "cd34", id="short"),
        pytest.param("%", "there is no task %; `trueup logs` lists the newest ones", id="no pattern"),
        pytest.param("node/web-1", "ab12", id="node"),
        pytest.param("projects/site", "ab99", id="project"),
        pytest.param("services/api", "cd34", id="service"),
        pytest.param("services/none", "there is no task of services/none; `trueup logs`", id="none"),
        pytest.param("hosts/web-1", "hosts/web-1: there is no kind hosts", id="no kind"),
    ],
)
async def test_which_task_is_meant(tmp_path: Path, named: str, found: str) -> None:
    with Journal(tmp_path / JOURNAL_FILE) as journal:
        journal.create_task("ab12", SITE, "web-1", project="site")
        journal.create_task("cd34", "services/staging/api", "web-2", project="other")
        journal.create_task("ab99", SITE.replace("web-1", "web-2"), "web-2", project="site")
    source = source_of(tmp_path, [])
    if len(found) == 4:
        assert await find_task(source, named) == found
    else:
        with pytest.raises(SettingsError) as raised:
            await find_task(source, named)
        assert str(raised.value).startswith(found)


async def test_neither_a_primary_nor_a_journal(tmp_path: Path) -> None:
    settings = load_settings({"HOME": "/home/op", "TRUEUP_STATE_DIR": str(tmp_path / "none")}, root=False)
    with pytest.raises(NoPrimary, match=r"no primary is running on .*, and no journal is there"):
        await open_tasks(settings, pytest.fail)
    assert not (tmp_path / "none").exists()


def test_what_was_printed_acts_on_no_terminal() -> None:
    attempt = {
        "number": 1,
        "state": "FAILED",
        "beganAt": "2026-01-02T03:04:05.678+00:00",
        "endedAt": "2026-01-02T03:04:06.789+00:00",
        "reason": "CommandFailed",
        "message": "no\x1b[2J",
        "log": "$ show\na\x1b]0;owned\x07\tb\rc\n\n\x9b31m\u202ed",
    }
    assert list(lines_of(attempt)) == [
        "attempt 1: FAILED at 2026-01-02T03:04:06Z, CommandFailed: no\\x1b[2J",
        "$ show",
        "a\\x1b]0;owned\\x07\tb\\rc",
        "\\x9b31m\\u202ed",
    ]
