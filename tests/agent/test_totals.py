"""What an agent counts: in its reports, in its status, and in the file that Prometheus reads."""

import logging
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.address import Address
from agent.status import Board, read_status
from agent.totals import Totals
from agent.wire.messages import Removal, TaskReport
from tests.agent.syncing import Host, synchronise, write_tree

BIG = bytes(range(256)) * 2048
"""Four blocks."""


def samples(path: Path) -> dict[str, float]:
    """Name and labels as they stand there, to the value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            found[f"{sample.name}[{labels}]" if labels else sample.name] = sample.value
    return found


async def test_a_report_says_what_travelled_and_what_was_known(tmp_path: Path) -> None:
    host = Host(tmp_path)
    source = write_tree(tmp_path / "source", {"big": BIG, "small": b"1\n"})
    first = (await synchronise(source, host)).report
    assert (first.blocks_requested, first.blocks_reused) == (5, 0)
    assert (first.files_known, first.files_read) == (0, 0)
    (source / "copy").write_bytes(BIG)
    (source / "other").write_bytes(b"2\n")
    second = (await synchronise(source, host)).report
    assert (second.blocks_requested, second.blocks_reused) == (1, 4)
    assert (second.bytes_received, second.bytes_reused) == (2, len(BIG))
    assert (second.files_known, second.files_read) == (2, 0)
    (host.target / "small").write_text("edited\n")
    third = (await synchronise(source, host)).report
    assert (third.files_known, third.files_read) == (3, 1)


async def test_totals_add_up_in_the_status_and_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics" / "trueup.prom"
    file.parent.mkdir()
    board = Board(tmp_path, node='we"b', version="1.2.3", metrics_file=file)
    work = Removal(id="t", project="site", target_path="/srv")
    await board.started()
    await board.connected(Address("h", 1))
    assert samples(file)["trueup_agent_connected"] == 1
    for state, received in (("SUCCESS", 10), ("SUCCESS", 5), ("FAILED", 1)):
        await board.task_started(work)
        report = TaskReport(
            task="t",
            state=state,  # type: ignore[arg-type]
            bytes_received=received,
            bytes_reused=2,
            blocks_requested=3,
            blocks_reused=4,
            files_written=1,
            files_deleted=2,
            files_known=7,
            files_read=1,
            seconds=0.5,
        )
        await board.task_ended(work, report)
    await board.looked(3)
    status = read_status(tmp_path)
    assert status is not None
    assert status.totals == Totals(
        tasks_succeeded=2,
        tasks_failed=1,
        task_seconds=1.5,
        bytes_received=16,
        bytes_reused=6,
        blocks_requested=9,
        blocks_reused=12,
        files_written=3,
        files_deleted=6,
        files_known=21,
        files_read=3,
    )
    found = samples(file)
    started = found.pop("trueup_agent_start_timestamp_seconds")
    assert started > 1_700_000_000
    assert found == {
        'trueup_agent_info[we"b,1.2.3]': 1,
        "trueup_agent_connected": 1,
        "trueup_agent_tasks_running": 0,
        "trueup_agent_tasks_total[SUCCESS]": 2,
        "trueup_agent_tasks_total[FAILED]": 1,
        "trueup_agent_task_seconds_total": 1.5,
        "trueup_agent_bytes_total[received]": 16,
        "trueup_agent_bytes_total[reused]": 6,
        "trueup_agent_blocks_total[requested]": 9,
        "trueup_agent_blocks_total[reused]": 12,
        "trueup_agent_files_total[written]": 3,
        "trueup_agent_files_total[deleted]": 6,
        "trueup_agent_files_total[known]": 21,
        "trueup_agent_files_total[read]": 3,
        "trueup_agent_drifted_entries": 3,
    }
    # Whoever collects it may be another user, and sees nothing half-written.
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in file.parent.iterdir()] == ["trueup.prom"]
    await board.stopped()
    assert samples(file)["trueup_agent_connected"] == 0


async def test_a_file_that_cannot_be_written_stops_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board(tmp_path, node="n", version="1", metrics_file=tmp_path / "nowhere/trueup.prom")
    with caplog.at_level(logging.WARNING, "trueup.agent"):
        await board.started()
        await board.looked(1)
    assert [record.message for record in caplog.records] == ["metrics not written"]
    assert read_status(tmp_path) is not None


async def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    for name in ("trueup.prom", ".trueup.prom.new"):
        (tmp_path / name).symlink_to(precious)
    await Board(tmp_path, node="n", version="1", metrics_file=tmp_path / "trueup.prom").started()
    assert precious.read_text() == "mine\n"
    assert not (tmp_path / "trueup.prom").is_symlink()
