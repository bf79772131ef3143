"""What an agent has done since it started, counted, and as Prometheus reads it from a file. Pure.

Names and units are those of Prometheus' conventions; node_exporter's textfile collector shows the file
(`metrics_file` in agent.toml) where nobody may ask the host itself.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal

import msgspec

from agent.wire.messages import TaskReport

Kind = Literal["counter", "gauge"]


class Totals(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Since the agent's start, of all tasks, commands and removals, looks included."""

    tasks_succeeded: int = 0
    tasks_failed: int = 0
    task_seconds: float = 0.0
    bytes_received: int = 0
    bytes_reused: int = 0
    blocks_requested: int = 0
    blocks_reused: int = 0
    files_written: int = 0
    files_deleted: int = 0
    files_known: int = 0
    """Files whose content was known without reading them."""
    files_read: int = 0

    def with_report(self, report: TaskReport) -> "Totals":
        good = report.state == "SUCCESS"
        return Totals(
            tasks_succeeded=self.tasks_succeeded + good,
            tasks_failed=self.tasks_failed + (not good),
            task_seconds=self.task_seconds + report.seconds,
            bytes_received=self.bytes_received + report.bytes_received,
            bytes_reused=self.bytes_reused + report.bytes_reused,
            blocks_requested=self.blocks_requested + report.blocks_requested,
            blocks_reused=self.blocks_reused + report.blocks_reused,
            files_written=self.files_written + report.files_written,
            files_deleted=self.files_deleted + report.files_deleted,
            files_known=self.files_known + report.files_known,
            files_read=self.files_read + report.files_read,
        )


_HELP: Final[dict[str, tuple[Kind, str]]] = {
    "trueup_agent_info": ("gauge", "1, with the node and the version of the agent."),
    "trueup_agent_start_timestamp_seconds": ("gauge", "When the agent started."),
    "trueup_agent_connected": ("gauge", "1 while the agent has a session with its primary."),
    "trueup_agent_tasks_running": ("gauge", "Tasks under way or waiting."),
    "trueup_agent_tasks_total": ("counter", "Tasks that ended, looks included."),
    "trueup_agent_task_seconds_total": ("counter", "Time that tasks took."),
    "trueup_agent_bytes_total": ("counter", "Contents of files, received or taken of what the host had."),
    "trueup_agent_blocks_total": ("counter", "Blocks, asked of the primary or taken of what the host had."),
    "trueup_agent_files_total": (
        "counter",
        "Files written or deleted, and looked at: known without reading them, or read.",
    ),
    "trueup_agent_drifted_entries": ("gauge", "Entries that are not as the last task left them."),
    "trueup_agent_last_sync_timestamp_seconds": ("gauge", "When a project was last synced to its end."),
}


def render(
    totals: Totals,
    *,
    node: str,
    version: str,
    started: str,
    connected: bool,
    running: int,
    drifted: int | None,
    last_sync: str,
) -> str:
    """The text format. Times are RFC 3339, empty where there was none."""
    samples: dict[str, list[tuple[str, float]]] = {
        "trueup_agent_info": [(f'{{node="{_label(node)}",version="{_label(version)}"}}', 1)],
        "trueup_agent_start_timestamp_seconds": [("", _seconds(started))],
        "trueup_agent_connected": [("", connected)],
        "trueup_agent_tasks_running": [("", running)],
        "trueup_agent_tasks_total": [
            ('{state="SUCCESS"}', totals.tasks_succeeded),
            ('{state="FAILED"}', totals.tasks_failed),
        ],
        "trueup_agent_task_seconds_total": [("", totals.task_seconds)],
        "trueup_agent_bytes_total": [
            ('{how="received"}', totals.bytes_received),
            ('{how="reused"}', totals.bytes_reused),
        ],
        "trueup_agent_blocks_total": [
            ('{how="requested"}', totals.blocks_requested),
            ('{how="reused"}', totals.blocks_reused),
        ],
        "trueup_agent_files_total": [
            ('{how="written"}', totals.files_written),
            ('{how="deleted"}', totals.files_deleted),
            ('{how="known"}', totals.files_known),
            ('{how="read"}', totals.files_read),
        ],
        "trueup_agent_drifted_entries": [("", drifted)] if drifted is not None else [],
        "trueup_agent_last_sync_timestamp_seconds": [("", _seconds(last_sync))] if last_sync else [],
    }
    return "".join(_lines(samples))


def _lines(samples: dict[str, list[tuple[str, float]]]) -> Iterator[str]:
    for name, (kind, text) in _HELP.items():
        if samples[name]:
            yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
            yield from (f"{name}{labels} {_number(value)}\n" for labels, value in samples[name])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
