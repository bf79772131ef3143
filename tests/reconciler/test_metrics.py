"""What is counted: under declared names, with bounded labels, and nothing before somebody asked for it."""

from datetime import UTC, datetime, timedelta

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from agent.wire.messages import TaskReport
from reconciler.metrics.declared import (
    AGENTS,
    ALL,
    PASS_DURATION,
    RESOURCES,
    STEPS,
    STEPS_RUNNING,
    STEPS_WAITING,
)
from reconciler.metrics.of_nodes import MOST, count_report
from reconciler.metrics.registry import Metrics
from reconciler.metrics.slots import counted
from reconciler.metrics.state import gauges_of_agents, gauges_of_sources, gauges_of_status
from reconciler.plan import Action, Step
from reconciler.secrets.freshness import Freshness, SourceState
from reconciler.status.conditions import Condition
from reconciler.status.documents import (
    EnvironmentStatus,
    Hold,
    Recorded,
    Release,
    ServiceStatus,
    Summary,
    UnitStatus,
    Waiting,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def opened() -> Metrics:
    metrics = Metrics()
    metrics.open()
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_names_follow_the_conventions() -> None:
    for metric in ALL:
        assert metric.name.startswith("trueup_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith((".", "`."))
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")
    assert len({metric.name for metric in ALL}) == len(ALL)


def test_nothing_is_counted_before_it_is_opened() -> None:
    metrics = Metrics()
    metrics.count(STEPS, action="deploy", outcome="failed")
    metrics.observe(PASS_DURATION, 1.0)
    metrics.replace(RESOURCES, {("services", "True"): 1})
    metrics.open()
    metrics.count(STEPS, action="deploy", outcome="succeeded")
    assert value(metrics, "trueup_steps_total", action="deploy", outcome="succeeded") == 1
    assert value(metrics, "trueup_steps_total", action="deploy", outcome="failed") is None
    assert value(metrics, "trueup_pass_duration_seconds_count") == 0


def test_the_process_and_the_version_are_among_them() -> None:
    names = {name for name, _ in samples(opened())}
    assert {"process_resident_memory_bytes", "process_open_fds", "trueup_build_info"} <= names


def test_a_gauge_that_is_replaced_forgets_what_is_gone() -> None:
    metrics = opened()
    metrics.replace(AGENTS, {("connected",): 2, ("away",): 1})
    metrics.replace(AGENTS, {("connected",): 3})
    assert value(metrics, "trueup_agents", state="connected") == 3
    assert value(metrics, "trueup_agents", state="away") is None


def service(name: str, reason: str = "X", **conditions: str) -> ServiceStatus:
    return ServiceStatus(
        id=f"services/prod/{name}",
        conditions=tuple(
            Condition(type=kind, status=status, reason=reason, last_transition_time=NOW)  # type: ignore[arg-type]
            for kind, status in conditions.items()
        ),
    )


def test_what_the_status_files_say() -> None:
    release = Release(tag="v1.0.0", commit="c" * 40, recorded_at=NOW, outcome="failed")
    environment = EnvironmentStatus(
        id="environments/prod",
        units={"app": UnitStatus(release=release)},
        holds=(Hold(reason="ReleaseFailed", resource="services/prod/a", at=NOW),),
        waiting=(Waiting(unit="app", reason="AwaitingApproval"),),
    )
    recorded = Recorded().put(
        environment,
        service("a", Ready="True", Healthy="False"),
        service("b", "DriftDetected", Ready="False"),
        service("c"),
        Summary(id="summary"),
    )
    metrics = opened()
    for metric, series in gauges_of_status(recorded).items():
        metrics.replace(metric, series)
    assert value(metrics, "trueup_resources", kind="services", ready="True") == 1
    assert value(metrics, "trueup_resources", kind="services", ready="False") == 1
    assert value(metrics, "trueup_resources", kind="services", ready="Unknown") == 1
    assert value(metrics, "trueup_resources_unhealthy", kind="services") == 1
    assert value(metrics, "trueup_resources_drifted", kind="services") == 1
    of = {"environment": "prod", "unit": "app"}
    assert value(metrics, "trueup_release_timestamp_seconds", **of) == NOW.timestamp()
    assert value(metrics, "trueup_release_failed", **of) == 1
    assert value(metrics, "trueup_release_waiting", **of, reason="AwaitingApproval") == 1
    assert value(metrics, "trueup_environment_holds", environment="prod") == 1
    assert "v1.0.0" not in metrics.text().decode()


def test_sources_and_agents() -> None:
    metrics = opened()
    sources = {
        "vault": Freshness("vault", "infisical", SourceState.STALE, retrieved_at=NOW),
        "local": Freshness("local", "env_file", SourceState.UNUSED),
    }
    gauges = gauges_of_sources(sources, NOW + timedelta(seconds=90)) | gauges_of_agents(
        ["web-1", "web-2", "web-3"], {"web-1", "web-2"}, {"web-1", "gone"}
    )
    for metric, series in gauges.items():
        metrics.replace(metric, series)
    assert value(metrics, "trueup_secret_source_age_seconds", source="vault") == 90
    assert value(metrics, "trueup_secret_source_age_seconds", source="local") is None
    assert value(metrics, "trueup_secret_source_state", source="vault", state="stale") == 1
    assert value(metrics, "trueup_secret_source_state", source="local", state="unused") == 1
    for state in ("connected", "away", "unpaired"):
        assert value(metrics, "trueup_agents", state=state) == 1


async def test_steps_that_wait_and_run_are_counted_also_when_they_are_cancelled() -> None:
    metrics, place = opened(), trio.CapacityLimiter(1)
    slot = counted(lambda _step: place, metrics)
    steps = [Step(resource=f"services/prod/{n}", action=Action.DEPLOY, reason="new") for n in range(3)]
    began = trio.Event()

    async def run(step: Step) -> None:
        async with slot(step):
            began.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for step in steps:
            nursery.start_soon(run, step)
        await began.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert value(metrics, STEPS_RUNNING.name, action="deploy") == 1
        assert value(metrics, STEPS_WAITING.name) == 2
        nursery.cancel_scope.cancel()
    assert value(metrics, STEPS_RUNNING.name, action="deploy") == 0
    assert value(metrics, STEPS_WAITING.name) == 0


@pytest.mark.parametrize("metric", [metric for metric in ALL if metric.kind == "histogram"])
def test_buckets_ascend(metric: object) -> None:
    buckets = list(getattr(metric, "buckets"))  # noqa: B009
    assert buckets == sorted(set(buckets))


def test_what_agents_report_is_counted_by_node_and_forgotten_with_it() -> None:
    metrics = opened()
    report = TaskReport(
        task="t",
        state="FAILED",
        bytes_received=10,
        blocks_requested=3,
        blocks_reused=4,
        files_read=1,
        files_known=9,
        seconds=2.5,
    )
    count_report(metrics, "web-1", report, looks=False)
    count_report(metrics, "web-1", report, looks=True)
    count_report(metrics, "web-2", report, looks=False)
    assert value(metrics, "trueup_node_tasks_total", node="web-1", state="FAILED") == 1
    assert value(metrics, "trueup_node_task_seconds_total", node="web-1") == 2.5
    assert value(metrics, "trueup_node_sync_bytes_total", node="web-1", how="received") == 20
    assert value(metrics, "trueup_node_blocks_total", node="web-2", how="reused") == 4
    assert value(metrics, "trueup_node_files_total", node="web-2", how="known") == 9
    assert value(metrics, "trueup_sync_bytes_total", how="received") == 30
    metrics.keep_nodes({"web-2"})
    assert {labels["node"] for _, labels in of_nodes(metrics)} == {"web-2"}
    metrics.keep_nodes(())
    assert of_nodes(metrics) == []


def of_nodes(metrics: Metrics) -> list[tuple[str, dict[str, str]]]:
    return [(name, dict(labels)) for name, labels in samples(metrics) if name.startswith("trueup_node_")]


@pytest.mark.parametrize("number", [-1, MOST + 1, float("nan"), float("inf")], ids=str)
def test_nonsense_of_an_agent_counts_for_nothing(number: float) -> None:
    metrics = opened()
    report = TaskReport(task="t", state="SUCCESS", bytes_received=number, seconds=number)  # type: ignore[arg-type]
    count_report(metrics, "web-1", report, looks=False)
    assert value(metrics, "trueup_node_task_seconds_total", node="web-1") == 0
    assert value(metrics, "trueup_sync_bytes_total", how="received") == 0
