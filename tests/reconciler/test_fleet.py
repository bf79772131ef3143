"""The agents as a pass sees them, over real sessions: looks, commands, removals, and who is away or old."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.wire.messages import OWNERS, AfterResult, Command, Removal, TaskReport
from reconciler.fleet import TaskFailed
from reconciler.status.conditions import Reason
from reconciler.sync.hub import AgentTooOld, AgentUnreachable
from reconciler.sync.serving import TreeSource
from reconciler.task_reports import MAX_WARNINGS, report_details
from tests.canaries import canary
from tests.reconciler.scripted_fleet import COMMAND, RETRY, SYNC, TREE, Script, attempts, fleet, source

__all__ = ["source"]


async def test_an_agent_that_knows_no_owners_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    owned = await TreeSource.build(tmp_path / "data", owners=True)
    alone = await TreeSource.build(tmp_path / "data")
    script = Script({"warnings": ("b",)}, {"owners_compared": True}, {}, {"observed": owned.tree}, {})
    async with fleet(tmp_path, script) as (agents, journal):
        old = await agents.sync(SYNC, owned, RETRY)
        assert [warning.partition(":")[0] for warning in old.warnings] == [
            "owners and groups were left as they are",
            "b",
        ]
        assert "`trueup node install web-1`" in old.warnings[0]
        [record] = journal.tasks()
        assert "the agent of the node web-1 is too old" in str(record.attempts)
        assert (await agents.sync(SYNC, owned, RETRY)).warnings == ()
        assert (await agents.sync(SYNC, alone, RETRY)).warnings == ()
        assert (await agents.look(SYNC, owned.tree, owned.owners)).warnings == ()
        await agents.look(SYNC, owned.tree)
    assert [(task.observe, OWNERS in task.features, task.owners) for task in script.tasks] == [
        (False, True, owned.owners),
        (False, True, owned.owners),
        (False, False, b""),
        (True, True, owned.owners),
        (True, False, b""),
    ]


async def test_a_node_that_is_away(tmp_path: Path, source: TreeSource) -> None:
    async with fleet(tmp_path, None) as (agents, journal):
        assert await agents.wait_connected(["web-1"]) == set()
        assert await agents.wait_connected([]) == set()
        assert agents.why_not_connected("web-1").reason == Reason.AGENT_UNREACHABLE
        assert agents.why_not_connected("stranger").reason == Reason.REVOKED
        with pytest.raises(AgentUnreachable):
            await agents.sync(SYNC, source, RETRY)
        assert attempts(journal)[1:] == ("FAILED", [(1, "FAILED", "AgentUnreachable")])


async def test_a_long_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.fleet.QUIET", 0.001)
    async with fleet(tmp_path, None) as (agents, _):
        with capture_logs() as logs:
            assert await agents.wait_connected(["web-1", "web-2"]) == set()
    assert [(entry["event"], entry["nodes"]) for entry in logs] == [
        ("waiting for agents, 0.05s at most", "web-1, web-2")
    ]


async def test_a_look_that_failed_is_an_error(tmp_path: Path) -> None:
    script = Script({"observed": TREE}, {"state": "FAILED", "message": "it does not answer"})
    async with fleet(tmp_path, script) as (agents, journal):
        assert (await agents.look(SYNC, TREE)).observed == TREE
        with pytest.raises(TaskFailed, match="it does not answer") as caught:
            await agents.look(SYNC, TREE)
        assert caught.value.reason == Reason.OBSERVATION_FAILED
        assert journal.tasks() == ()
    assert all(task.observe for task in script.tasks)


@pytest.mark.parametrize("reason", ["", "[bold]", "\x1b[31mRed", "lower", "A" * 65, "With Space"])
def test_an_agent_cannot_make_up_a_reason_that_is_none(reason: str) -> None:
    report = TaskReport(task="t", state="FAILED", reason=reason, message="bad\x1b[31m\nnews")
    error = TaskFailed(report, unnamed=Reason.SYNC_FAILED)
    assert (error.reason, str(error)) == (Reason.SYNC_FAILED, "bad [31m news")


def test_what_an_agent_says_is_bounded() -> None:
    many = tuple(f"warning\n{number}" for number in range(100))
    after = (AfterResult(name="re\x1bload", exit_code=1),)
    details = report_details(TaskReport(task="t", state="SUCCESS", warnings=many, after=after), ["unsent"])
    warnings = details["warnings"]
    assert isinstance(warnings, list)
    assert (len(warnings), warnings[:2]) == (MAX_WARNINGS, ["unsent", "warning 0"])
    assert details["after"] == ["re load: exit code 1"]


def test_whether_edits_stay_is_only_said_where_it_is_known() -> None:
    report = TaskReport(task="t", state="FAILED", local_edits=2)
    assert report_details(report, keeps_edits=True)["edits_kept"] == 2
    assert "edits_kept" not in report_details(report)
    assert "edits_kept" not in TaskFailed(report, unnamed=Reason.SYNC_FAILED).details


async def test_a_command_carries_its_variables_and_is_recorded(tmp_path: Path) -> None:
    busy: dict[str, object] = {"state": "FAILED", "reason": "TargetBusy"}
    script = Script(busy, {"after": (AfterResult(name="up", exit_code=0),)})
    async with fleet(tmp_path, script) as (agents, journal):
        report = await agents.run_command(COMMAND)
        assert report.after[0].exit_code == 0
        assert attempts(journal)[1:] == ("SUCCESS", [(1, "RETRYING", "TargetBusy"), (2, "SUCCESS", "")])
    sent = script.tasks[-1]
    assert isinstance(sent, Command)
    assert sent.environment == {"LEVEL": "info", "PASSWORD": canary("fleet-command")}
    assert (sent.secret, sent.timeout, sent.target_path) == (("PASSWORD",), 30.0, "/srv/site")
    assert canary("fleet-command") not in repr(sent)
    assert canary("fleet-command") not in repr(COMMAND)


async def test_a_command_that_failed_is_not_tried_again(tmp_path: Path) -> None:
    failed: dict[str, object] = {"state": "FAILED", "reason": "CommandFailed", "message": "ended with 3"}
    async with fleet(tmp_path, Script(failed)) as (agents, journal):
        with pytest.raises(TaskFailed, match="ended with 3"):
            await agents.run_command(COMMAND)
        assert attempts(journal)[1:] == ("FAILED", [(1, "FAILED", "CommandFailed")])


async def test_a_removal_is_asked_for_once(tmp_path: Path) -> None:
    script = Script({"files_deleted": 3})
    async with fleet(tmp_path, script) as (agents, journal):
        report = await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")
        assert report.files_deleted == 3
        assert attempts(journal)[1:] == ("SUCCESS", [(1, "SUCCESS", "")])
    [removal] = script.tasks
    assert isinstance(removal, Removal)
    assert (removal.project, removal.target_path) == ("site", "/srv/site")


async def test_a_removal_on_a_node_that_is_away(tmp_path: Path) -> None:
    async with fleet(tmp_path, None) as (agents, _):
        with pytest.raises(AgentUnreachable):
            await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")


async def test_an_older_agent_is_asked_nothing_that_it_does_not_know(
    tmp_path: Path, source: TreeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.session.PROTOCOL_VERSIONS", (3, 2))
    monkeypatch.setattr("agent.wire.messages._STRATEGIES_SINCE", {"mirror": 4})
    script = Script({"files_deleted": 1})
    async with fleet(tmp_path, script) as (agents, journal):
        told = r"web-1 is too old .* speaks version 3 .* 4 is needed; update trueup on that host"
        with pytest.raises(AgentTooOld, match=told):
            await agents.sync(SYNC, source, RETRY)
        # Its session stands, and it goes on doing what it knows.
        assert (await agents.remove(SYNC.id, node="web-1", target_path="/srv/site")).files_deleted == 1
        assert [task.state for task in journal.tasks()] == ["SUCCESS", "FAILED"]
