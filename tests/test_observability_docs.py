"""The table of metrics, the dashboard and the alerts speak of the metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.metrics.declared import ALL

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "examples/prometheus"
NAMES = {metric.name for metric in ALL}
LABELS = {label for metric in ALL for label in metric.labels} | {"le", "instance", "job"}
SERIES = NAMES | {
    f"{metric.name}{part}"
    for metric in ALL
    if metric.kind == "histogram"
    for part in ("_bucket", "_sum", "_count")
}
OF_THE_PROCESS = {"process_resident_memory_bytes", "process_open_fds"}


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "examples/grafana/trueup.json").read_text())
    return found


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_the_table_is_the_code() -> None:
    text = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `(trueup_\w+)` \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (metric.name, ", ".join(f"`{label}`" for label in metric.labels), metric.help) for metric in ALL
    ]


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_query_asks_for_what_there_is(query: str) -> None:
    named = set(re.findall(r"\b(?:trueup|process)_\w+", query))
    assert named
    assert named <= SERIES | OF_THE_PROCESS
    for matchers in re.findall(r"\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= LABELS
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= LABELS
    assert query.count("(") == query.count(")")


def test_the_dashboard_shows_every_metric_but_the_version() -> None:
    shown = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ()))
    left_out = {name for name in NAMES if name not in shown}
    assert left_out <= {
        "trueup_build_info",
        "trueup_last_successful_pass_timestamp_seconds",
        "trueup_lease_epoch",
    }


def test_panels_have_a_place_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


def test_alerts_say_what_is_wrong() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
