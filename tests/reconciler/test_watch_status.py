"""What `trueup get -w` shows of status files: each once, then what is different or gone."""

import json
from datetime import UTC, datetime

import pytest

from reconciler.console_rows import GrowingTable
from reconciler.selecting import Selection
from reconciler.status.conditions import Condition, ConditionStatus
from reconciler.status.documents import Recorded, ServiceStatus
from reconciler.watch_status import Rows

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def service(name: str, status: ConditionStatus) -> ServiceStatus:
    ready = Condition(type="Ready", status=status, reason="R", message="m", last_transition_time=NOW)
    return ServiceStatus(id=f"services/staging/{name}", conditions=(ready,))


def test_only_what_changes_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rows = Rows(Selection("services"), "json")

    def shown(*services: ServiceStatus) -> list[tuple[str, object]]:
        rows.show(Recorded().put(*services))
        documents = map(json.loads, capsys.readouterr().out.splitlines())
        return [(each["id"][-3:], each.get("removed", "conditions" in each)) for each in documents]

    assert not rows.show(Recorded())
    assert shown(service("api", "True"), service("web", "True")) == [("api", True), ("web", True)]
    assert shown(service("api", "True"), service("web", "True")) == []
    assert shown(service("api", "True"), service("web", "False")) == [("web", True)]
    assert shown(service("api", "True")) == [("web", True)]
    assert shown(service("api", "True"), service("web", "False")) == [("web", True)]


def test_a_program_that_reads_lines_gets_all_of_a_row_in_one(capsys: pytest.CaptureFixture[str]) -> None:
    table = GrowingTable("RESOURCE", "REASON", "MESSAGE")
    message = "the agent is not there: " + "check address and firewall " * 9 + "and join again"
    row = ("projects/live/files/web-1/" + "srv+" * 40, "AgentUnreachable", message)
    for _ in range(2):
        table.add([row])
        *_, line = capsys.readouterr().out.splitlines()
        assert line.split(maxsplit=2) == list(row)


def test_rows_stand_below_those_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    table = GrowingTable("RESOURCE", "READY", "MESSAGE")
    table.add([])
    table.add([("services/staging/web", "True", "all is well")])
    table.add([("nodes/a", "False", "no\x1b[2J")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    head, _, *below = lines
    places = [head.index(column) for column in ("RESOURCE", "READY", "MESSAGE")]
    cells = [("services/staging/web", "True", "all is well"), ("nodes/a", "False", "no\\x1b[2J")]
    assert [tuple(line[place:].split("  ")[0].strip() for place in places) for line in below] == cells
