"""What a running primary shows of itself, in one world: one trace from a delivery to a host, and metrics."""

import hashlib
import hmac
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.canaries import canary
from tests.serving import Serving, serving
from tests.world import PATIENCE, World, make_world

SPEC = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync: {{nodes: [{{node_id: web-1, target_path: {target}}}]}}
nodes:
{nodes}
"""
DAY = "24h"


def webhook(secret: str, ref: str) -> dict[str, Any]:
    """A signed push of GitHub."""
    body = json.dumps({"ref": ref, "repository": {"full_name": "org/app"}}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "x-hub-signature-256": f"sha256={signature}",
        "x-github-event": "push",
        "x-github-delivery": "d-1",
        "content-type": "application/json",
    }
    return {"content": body, "headers": headers}


def series(text: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def rows(world: World, query: str) -> list[Any]:
    with closing(sqlite3.connect(world.state / "journal.sqlite")) as journal:
        return journal.execute(query).fetchall()


async def test_one_delivery_is_followed_to_the_host(tmp_path: Path) -> None:
    secret = canary("github-webhook-secret-of-a-trace")
    async with make_world(tmp_path) as (world, relay):
        world.commit_spec("version: 1\n")
        world.app.commit({"site/index.html": "one"})
        host = await world.add_host("web-1", relay.address)
        nodes = world.spec.files("refs/heads/main")["trueup.yaml"].decode().partition("nodes:\n")[2]
        world.commit_spec(SPEC.format(app=world.app.url, target=host.srv / "site", nodes=nodes))
        async with serving(world, WEBHOOK_SECRET=secret, TRUEUP_INTERVAL=DAY) as primary:
            await world.start_agent(host)
            await primary.said("step applied", action="sync")
            await primary.said("pass ended", applied=1)
            world.app.commit({"site/index.html": "two"})
            seen = len(primary.lines)
            answered = await primary.ask("POST", "/webhook", **webhook(secret, "refs/heads/main"))
            assert answered.status_code == 202
            trace = answered.headers["x-trueup-trace"]
            await primary.said("a pass was asked for", after=seen, trace=trace)
            await primary.said("step applied", after=seen, trace=trace)
            await primary.said("pass ended", after=seen, trace=trace)
            assert (host.srv / "site" / "index.html").read_text() == "two"
            await check_status_and_journal(world, trace)
            assert [
                line.split(" ")[2:4]
                for line in (host.root / "agent.log").read_text().splitlines()
                if f"trace={trace}" in line
            ] == [["task", "started"], ["task", "ended"]] * 2, "one that looks, and one that places"
            await check_metrics(primary)
            await check_traceparent(primary)
            assert await primary.end() == 0


async def check_status_and_journal(world: World, trace: str) -> None:
    message = world.spec.git("log", "-1", "--format=%B", "refs/heads/trueup/status")
    assert f"\nTrueup-Trace: {trace}\n" in message
    assert rows(world, f"SELECT count(*) FROM passes WHERE trace = '{trace}'") == [(1,)]
    steps = rows(world, f"SELECT action, outcome FROM steps WHERE trace = '{trace}'")
    assert steps == [("sync", "succeeded")]
    assert rows(world, f"SELECT node, state, project FROM tasks WHERE trace = '{trace}'") == [
        ("web-1", "SUCCESS", "site")
    ]
    assert rows(world, f"SELECT delivery FROM deliveries WHERE trace = '{trace}'") == [("d-1",)]


async def check_metrics(primary: Serving) -> None:
    assert (await primary.ask("GET", "/metrics")).status_code == 403
    answered = await primary.ask_locally("GET", "/metrics")
    assert answered.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = series(answered.text)

    def value(name: str, **labels: str) -> float:
        return found[name][frozenset(labels.items())]

    assert sum(found["trueup_passes_total"].values()) >= 2
    assert value("trueup_steps_total", action="sync", outcome="succeeded") == 2
    assert value("trueup_step_duration_seconds_count", action="sync") == 2
    assert value("trueup_steps_running", action="sync") == 0
    assert value("trueup_resources", kind="projects", ready="True") == 1
    assert value("trueup_agents", state="connected") == 1
    assert value("trueup_tasks_total", state="SUCCESS") == 2
    assert value("trueup_sync_bytes_total", how="received") == 6
    assert value("trueup_sync_blocks_requested_total") == 2
    assert value("trueup_webhook_deliveries_total", sender="github", outcome="accepted") == 1
    assert value("trueup_http_requests_total", route="/webhook", method="POST", status="2xx") == 1
    assert value("trueup_http_requests_total", route="/metrics", method="GET", status="4xx") == 1
    assert value("trueup_lease_held") == 1
    assert value("trueup_last_pass_timestamp_seconds") > 1e9
    assert value("process_open_fds") > 0


async def check_traceparent(primary: Serving) -> None:
    """Who brings a trace finds its own in the answer, and unknown paths make no series of their own."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answered = await primary.ask("GET", f"/{trace}", headers=headers)
    assert answered.headers["x-trueup-trace"] == trace
    found = series((await primary.ask_locally("GET", "/metrics")).text)
    routes = {dict(labels)["route"] for labels in found["trueup_http_requests_total"]}
    assert "other" in routes
    assert not any(trace in route for route in routes)


async def test_metrics_are_open_where_the_settings_say_so(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        world.commit_spec("version: 1\n")
        async with serving(world, TRUEUP_METRICS_OPEN="1") as primary:
            with trio.fail_after(PATIENCE):
                answered = await primary.ask("GET", "/metrics")
            assert answered.status_code == 200
            assert "trueup_build_info" in answered.text
