"""The metrics of one primary, counted as things happen. Nothing is counted before it is opened."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from agent.version import agent_version
from reconciler.metrics.declared import ALL, BUILD, Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What a primary tells; used by its trio thread. A single pass on the command line opens none.

    Labels are given by name: `metrics.count(STEPS, action="deploy", outcome="succeeded")`.
    """

    def __init__(self) -> None:
        self._registry: CollectorRegistry | None = None
        self._known: dict[str, Any] = {}
        self._nodes: dict[str, set[tuple[str, ...]]] = {}
        """By metric with the label `node`, the series that there are."""

    @property
    def is_open(self) -> bool:
        return self._registry is not None

    def open(self) -> None:
        """Begin to count, for a process that serves. The library takes a while to import."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        for metric in ALL:
            if metric.kind == "histogram":
                made: Any = Histogram(
                    metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
                )
            else:
                kind = Counter if metric.kind == "counter" else Gauge
                made = kind(metric.name, metric.help, metric.labels, registry=registry)
            self._known[metric.name] = made
        self._registry = registry
        self.set(BUILD, 1, version=agent_version())

    def count(self, metric: Metric, amount: float = 1, /, **labels: str) -> None:
        if self.is_open:
            self._series(metric, labels).inc(amount)

    def observe(self, metric: Metric, value: float, /, **labels: str) -> None:
        if self.is_open:
            self._series(metric, labels).observe(value)

    def set(self, metric: Metric, value: float, /, **labels: str) -> None:
        if self.is_open:
            self._series(metric, labels).set(value)

    def add(self, metric: Metric, amount: float, /, **labels: str) -> None:
        """Raise a gauge, or lower it."""
        if self.is_open:
            self._series(metric, labels).inc(amount)

    def replace(self, metric: Metric, values: dict[tuple[str, ...], float]) -> None:
        """Let a gauge have exactly these series, by the values of its labels."""
        if self.is_open:
            gauge = self._known[metric.name]
            gauge.clear()
            for labels, value in values.items():
                gauge.labels(*labels).set(value)

    def keep_nodes(self, nodes: Collection[str]) -> None:
        """Forget the series of all nodes but these: who comes and goes must not fill the memory."""
        for name, series in self._nodes.items():
            for labels in [labels for labels in series if labels[0] not in nodes]:
                self._known[name].remove(*labels)
                series.discard(labels)

    def text(self) -> bytes:
        """All of them, in the text format."""
        from prometheus_client.exposition import generate_latest

        assert self._registry is not None, "not opened"
        return generate_latest(self._registry)

    def _series(self, metric: Metric, labels: dict[str, str]) -> Any:
        known = self._known[metric.name]
        if metric.labels and metric.labels[0] == "node":
            values = tuple(labels[name] for name in metric.labels)
            self._nodes.setdefault(metric.name, set()).add(values)
        return known.labels(**labels) if metric.labels else known
