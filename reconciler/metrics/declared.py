"""Every metric by name, with what it means. docs/observability.md shows the same table; a test compares them.

Labels hold names of the spec and words of trueup, never a tag, a commit, a path or a message: so there are
as many series as the spec is large, whatever happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Upper bounds of what passes and steps take."""
REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is the one of its samples; a counter's ends in `_total`, a histogram has `_bucket` and so on."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = SECONDS


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "counter", help, labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help, labels)


# --- passes and steps
PASSES: Final = _counter(
    "trueup_passes_total",
    "Passes that ended: `done`, `partly_applied`, `spec_invalid`, or `failed` where none could be made.",
    "outcome",
)
PASS_DURATION: Final = Metric("trueup_pass_duration_seconds", "histogram", "From begin to end of a pass.")
LAST_PASS: Final = _gauge("trueup_last_pass_timestamp_seconds", "When the last pass ended, well or not.")
LAST_GOOD_PASS: Final = _gauge(
    "trueup_last_successful_pass_timestamp_seconds", "When a pass last ended with all as the spec asks."
)
PASS_REQUESTED: Final = _gauge("trueup_pass_requested", "1 while a pass is asked for that has not begun.")
STEPS: Final = _counter(
    "trueup_steps_total", "Steps that ended: `succeeded` or `failed`.", "action", "outcome"
)
STEP_DURATION: Final = Metric(
    "trueup_step_duration_seconds", "histogram", "From begin to end of a step.", ("action",)
)
STEPS_RUNNING: Final = _gauge("trueup_steps_running", "Steps under way.", "action")
STEPS_WAITING: Final = _gauge("trueup_steps_waiting", "Steps that wait for a free place.")
FETCH_FAILURES: Final = _counter(
    "trueup_git_fetch_failures_total", "Repositories that could not be looked at, each once in a pass."
)

# --- what the status files say
RESOURCES: Final = _gauge(
    "trueup_resources", "Resources by the beginning of their id and their `Ready` condition.", "kind", "ready"
)
UNHEALTHY: Final = _gauge("trueup_resources_unhealthy", "Resources whose health check fails.", "kind")
DEGRADED: Final = _gauge(
    "trueup_project_targets_failed",
    "Targets of a project to which a sync failed after all its attempts: it is `SyncDegraded`.",
    "project",
)
DRIFTED: Final = _gauge("trueup_resources_drifted", "Resources that are not as trueup left them.", "kind")
RELEASED: Final = _gauge(
    "trueup_release_timestamp_seconds",
    "When the current release of a unit was recorded in an environment.",
    "environment",
    "unit",
)
RELEASE_FAILED: Final = _gauge(
    "trueup_release_failed", "1 where the current release of a unit failed.", "environment", "unit"
)
WAITING: Final = _gauge(
    "trueup_release_waiting",
    "1 where a newer release of a unit is kept back.",
    "environment",
    "unit",
    "reason",
)
HOLDS: Final = _gauge("trueup_environment_holds", "Holds of an environment or of units in it.", "environment")

# --- agents and tasks
AGENTS: Final = _gauge(
    "trueup_agents", "Nodes of the spec: `connected`, `away` (paired), or `unpaired`.", "state"
)
AGENT_WORKERS: Final = _gauge("trueup_agent_workers", "Worker processes that take connections of agents.")
TASKS: Final = _counter("trueup_tasks_total", "Tasks that ended: `SUCCESS` or `FAILED`.", "state")
ATTEMPTS_AGAIN: Final = _counter("trueup_task_retries_total", "Attempts that failed and are made again.")
TASKS_RUNNING: Final = _gauge("trueup_tasks_running", "Attempts under way on agents.")
SYNC_BYTES: Final = _counter(
    "trueup_sync_bytes_total",
    "Contents of files that a sync `received` over the network, or `reused` of what the host had.",
    "how",
)
NODE_TASKS: Final = _counter(
    "trueup_node_tasks_total", "Attempts of a node that ended: `SUCCESS` or `FAILED`.", "node", "state"
)
NODE_SECONDS: Final = _counter(
    "trueup_node_task_seconds_total", "Time that attempts took, as the node's agent measured it.", "node"
)
NODE_BYTES: Final = _counter(
    "trueup_node_sync_bytes_total",
    "Contents of files that a node `received`, or `reused` of what it had.",
    "node",
    "how",
)
NODE_BLOCKS: Final = _counter(
    "trueup_node_blocks_total", "Blocks that a node `requested`, or `reused` of what it had.", "node", "how"
)
NODE_FILES: Final = _counter(
    "trueup_node_files_total",
    "Files that a node has `written` or `deleted`, and looked at: `known` without reading them, or `read`.",
    "node",
    "how",
)
BLOCKS: Final = _counter("trueup_sync_blocks_requested_total", "Blocks that agents asked for.")

# --- HTTP
DELIVERIES: Final = _counter(
    "trueup_webhook_deliveries_total",
    "Deliveries to /webhook: from `github`, `infisical` or `unknown`; `accepted`, `repeated` or `refused`.",
    "sender",
    "outcome",
)
REQUESTS: Final = _counter(
    "trueup_http_requests_total",
    "Requests by the path as it is declared (`other` where none fits), method and class of status.",
    "route",
    "method",
    "status",
)
REQUEST_DURATION: Final = Metric(
    "trueup_http_request_duration_seconds",
    "histogram",
    "From the head of a request to the end of its answer; streams are left out.",
    ("route",),
    REQUEST_SECONDS,
)

# --- secrets and the lease
SECRET_AGE: Final = _gauge(
    "trueup_secret_source_age_seconds", "Age of the values that a source serves.", "source"
)
SECRET_STATE: Final = _gauge(
    "trueup_secret_source_state",
    "1 for what the last question to it led to: `unused`, `fresh`, `cached`, `stale`, `fallback`, `failed`.",
    "source",
    "state",
)
LEASE_HELD: Final = _gauge("trueup_lease_held", "1 while this primary may act, 0 while it is a standby.")
LEASE_EPOCH: Final = _gauge("trueup_lease_epoch", "The fencing epoch that agents are shown.")

# --- notifications
NOTIFICATIONS: Final = _counter(
    "trueup_notifications_total",
    "Messages to a channel, by its place in the spec from 0 (`none`: it is there no more): `sent`, `failed`"
    " (an attempt, made again later) or `given_up`.",
    "channel",
    "outcome",
)
NOTIFICATIONS_WAITING: Final = _gauge("trueup_notifications_waiting", "Messages that are not sent yet.")

# --- the process
BUILD: Final = _gauge("trueup_build_info", "1, with the version of trueup.", "version")

ALL: Final[Sequence[Metric]] = tuple(value for value in dict(globals()).values() if isinstance(value, Metric))
