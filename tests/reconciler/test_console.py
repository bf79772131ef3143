"""What people and scripts read: tables that show text as it is, and documents that hold the same."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import msgspec
import pytest
import yaml

from reconciler.apply import Details, Outcome
from reconciler.console import (
    make_table,
    pass_document,
    print_nodes,
    print_pass,
    print_plan,
    print_status,
    print_table,
)
from reconciler.errors import Problem, SettingsError
from reconciler.plan import Action, Finding, Plan, Step
from reconciler.reconcile import Pass
from reconciler.status.conditions import Condition
from reconciler.status.documents import Recorded
from tests.reconciler.status.documents import MOMENT, READY, one_of_each, service

MARKUP = "[red]not markup[/red] [/]"
STEP = Step("services/staging/web", Action.DEPLOY, f"changed: env {MARKUP}", "v1:1:2:3", ("env X",), ("a",))
FINDING = Finding("projects/branch/site/web-1/srv", "AgentUnreachable", MARKUP, unknown=True)
PLAN = Plan("main@sha1:1", (STEP,), (FINDING,))
PROBLEM = Problem("trueup.yaml", 3, 5, "services.web", "is wrong", "services/web")

Captured = pytest.CaptureFixture[str]


def test_a_plan_as_a_table_and_as_a_document(capsys: Captured) -> None:
    print_plan(PLAN, [], [], "table")
    table = capsys.readouterr()
    assert "deploy" in table.out
    assert table.out.count(MARKUP) == 2
    assert table.out.endswith("1 step\n")
    for output, parse in (("json", json.loads), ("yaml", yaml.safe_load)):
        print_plan(PLAN, [PROBLEM], [], output)
        said = capsys.readouterr()
        document = parse(said.out)
        assert document["steps"][0]["reason"] == STEP.reason
        assert document["findings"][0]["unknown"] is True
        assert document["problems"] == ["trueup.yaml:3:5: services.web: is wrong"]
        assert f"error: {FINDING.resource}: AgentUnreachable: {MARKUP}\n" in said.err
        assert "error: trueup.yaml:3:5: services.web: is wrong\n" in said.err


@pytest.mark.parametrize(
    ("plan", "said"),
    [(Plan("r", (), ()), "nothing to do\n"), (Plan("r", (), (FINDING,)), "nothing else to do\n")],
)
def test_a_plan_without_steps(plan: Plan, said: str, capsys: Captured) -> None:
    print_plan(plan, [], [], "table")
    assert capsys.readouterr().out.endswith(said)


def test_a_pass_as_a_table_and_as_a_document(capsys: Captured) -> None:
    failed = Pass(PLAN, {STEP.resource: Outcome("failed", "DeployFailed", MARKUP)}, (), "c" * 40)
    print_pass(failed, "table")
    table = capsys.readouterr().out
    assert f"DeployFailed: {MARKUP}" in table
    assert "status written: cccccccccccc" in table
    print_pass(failed, "json")
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(pass_document(failed)))
    assert document["outcomes"][STEP.resource]["state"] == "failed"
    assert document["statusCommit"] == "c" * 40


def test_what_a_sync_changed_is_counted(capsys: Captured) -> None:
    step = Step("projects/branch/site/web-1/srv", Action.SYNC, "changed: path site")
    details: Details = {
        "files_written": 3,
        "files_deleted": 1,
        "warnings": ["the local edit of 'a' was kept"],
    }
    print_pass(Pass(Plan("r", (step,), ()), {step.resource: Outcome("succeeded", details=details)}), "table")
    said = "changed: path site; 3 written, 1 deleted; warning: the local edit of 'a' was kept"
    assert said in capsys.readouterr().out


def test_what_a_removal_left_is_told(capsys: Captured) -> None:
    gone, service = (
        Step(id, Action.REMOVE, "no longer in the spec")
        for id in ("projects/branch/site/web-1/srv", "services/staging/web")
    )
    details: Details = {"files_deleted": 2, "warnings": ["'a' was changed since it was placed and stays"]}
    outcomes = {gone.resource: Outcome("succeeded", details=details), service.resource: Outcome("succeeded")}
    print_pass(Pass(Plan("r", (gone, service), ()), outcomes), "table")
    told = capsys.readouterr().out
    said = "no longer in the spec; 2 deleted; warning: 'a' was changed since it was placed and stays\n"
    assert said in told
    assert told.count("no longer in the spec") == 2
    assert told.count("deleted") == 1


def test_no_status_at_all(capsys: Captured) -> None:
    print_status(Recorded(), None, "table")
    assert capsys.readouterr().out == "no status yet: no pass has written any\n"
    print_status(Recorded(), None, "json")
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, 7),
        ("services", 1),
        ("service", 1),
        ("service/web", 1),
        ("services/production/web", 1),
        ("projects/web", 1),
        ("nodes/web-1", 1),
        ("summary", 1),
    ],
)
def test_status_of_all_of_a_kind_or_of_one(asked: str | None, found: int, capsys: Captured) -> None:
    print_status(one_of_each(), asked, "json")
    assert len(json.loads(capsys.readouterr().out)) == found
    print_status(one_of_each(), asked, "table")
    assert "RESOURCE" in capsys.readouterr().out


def test_status_tells_what_an_environment_runs_and_what_is_ill(capsys: Captured) -> None:
    ill = Condition(
        type="Healthy",
        status="False",
        reason="HealthCheckFailed",
        message="connection refused",
        last_transition_time=MOMENT,
    )
    print_status(one_of_each().put(service("web", conditions=(READY, ill))), None, "table")
    lines = capsys.readouterr().out.splitlines()
    [environment] = [line for line in lines if line.startswith("environments/production")]
    assert environment.split()[:4] == ["environments/production", "True", "ReconciliationSucceeded", "v1.0.1"]
    [web] = [line for line in lines if line.startswith("services/production/web")]
    assert web.split()[1] == "True"
    assert web.rstrip().endswith("; not healthy: connection refused")
    failed = msgspec.structs.replace(ill, type="Ready")
    print_status(Recorded().put(service("web", conditions=(failed, ill))), None, "table")
    assert capsys.readouterr().out.count("connection refused") == 1  # the deploy's own wait is told once


def test_status_tells_which_target_was_switched_back(capsys: Captured) -> None:
    recorded = one_of_each()
    [target] = recorded.syncs.values()
    back = msgspec.structs.replace(target, rolled_back="by Ann: it was slow")
    print_status(recorded.put(back), "projects", "table")
    said = "v1.0.1 is deployed; rolled back by Ann: it was slow; stays there until that is lifted\n"
    assert said in capsys.readouterr().out
    print_status(recorded, "projects", "table")
    assert "rolled back" not in capsys.readouterr().out


def test_status_tells_where_local_edits_stay(capsys: Captured) -> None:
    recorded = one_of_each()
    [target] = recorded.syncs.values()
    for kept, said in (
        (0, "v1.0.1 is deployed\n"),
        (1, "; 1 local edit stays there (`on_local_edit: keep`)\n"),
        (2, "; 2 local edits stay there (`on_local_edit: keep`)\n"),
    ):
        print_status(recorded.put(msgspec.structs.replace(target, edits_kept=kept)), "projects", "table")
        assert capsys.readouterr().out.endswith(said)


@pytest.mark.parametrize("asked", ["services/none", "nonsense", "services/production/we"])
def test_status_of_what_is_not_there(asked: str) -> None:
    with pytest.raises(SettingsError, match="has nothing of"):
        print_status(one_of_each(), asked, "table")


def test_nodes(capsys: Captured) -> None:
    row = {"node": "web-1", "labels": {"group": "web"}, "paired": True, "fingerprint": "cd" * 32}
    row |= {"trustOnFirstUse": True, "revoked": False}
    print_nodes([row, {**row, "paired": False}, {**row, "revoked": True}])
    out = capsys.readouterr().out
    assert "yes, unpinned" in out
    assert " revoked " in out
    assert "group=web" in out


BAR = """
from reconciler.apply import Outcome
from reconciler.console_progress import PassProgress
from reconciler.logs import configure_logging, get_logger
from reconciler.plan import Action, Plan, Step
from reconciler.progress import Progress as OfTask
from reconciler.console_progress import Bars

step = Step("services/staging/web", Action.DEPLOY, "not applied yet")
configure_logging()
with PassProgress() as progress:
    get_logger("test").info("before the plan")
    progress.expect(Plan("r", (step,), ()))
    progress(step, None)
    get_logger("test").info("a task printed this")
    progress(step, Outcome("succeeded"))
bars = Bars()
bars.show([OfTask("t1", 1, 9, 0, 0, "to web-1 \\x1b[31m[red]", "copy", 1, 3)])
bars.show([])
bars.clear()
"""


def test_a_bar_and_the_log_share_a_terminal() -> None:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", BAR], stderr=end, env={**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    ) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # what a terminal says that nobody has open any more
            while chunk := os.read(terminal, 65536):
                shown += chunk
        os.close(terminal)
        assert process.wait(timeout=60) == 0, shown
    # A bar is drawn, erased and drawn again; what is between two erasures or line ends is one line.
    lines = [
        re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"\x1b\[2K|[\r\n]", shown.decode())
    ]
    assert any("0/1" in line for line in lines)
    assert not any("0/0" in line for line in lines)
    [told] = {line.strip() for line in lines if "to web-1 \\x1b[31m[red]" in line}
    assert re.search(r" 33 % +copies, 1 of 3 entries$", told), told
    for event in ("before the plan", "a task printed this"):
        [line] = [line for line in lines if event in line]
        assert re.match(r"\d{4}-\d\d-\d\dT", line), line


def test_names_are_not_broken_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = make_table("AT", "WHO", "FOR", "SOURCE", "ENVIRONMENT", "SERVED", "KEYS")
    row = ("2026-01-02 03:04:05", "services/production/checkout-api", "deploy", "vault-production")
    table.add_row(*row, "production", "infisical", "DATABASE_PASSWORD, STRIPE_SIGNING_KEY")
    print_table(table)
    said = capsys.readouterr().out
    for name in (*row[1:], "infisical", "DATABASE_PASSWORD", "STRIPE_SIGNING_KEY"):
        assert name in said
    assert max(map(len, said.splitlines())) <= 80
