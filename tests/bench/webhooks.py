"""How long a delivery of GitHub waits for its answer, and a pushed commit until it is on two hosts.

Everything is real: `trueup serve`, agents in processes of their own, a remote over https, published payloads.
All of it shares the machine that is measured.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.bench.fleets import child
from tests.bench.report import Measurement
from tests.canaries import canary
from tests.github_deliveries import BRANCH, REPOSITORY, pushed, synced
from tests.gitrepo import GitRepo
from tests.serving import Serving, serving
from tests.world import PATIENCE, World, make_world

REST = 2.0
"""Seconds between two commits: one that comes right after a pass waits a moment, which is not asked here."""

SLOW_ONES = 500
"""Connections of people who send a part of a request."""

SECRET = canary("webhook-secret-of-a-measurement")


def bench_webhook(where: Path, *, deliveries: int, commits: int) -> list[Measurement]:
    """Deliveries of commits of which nothing is known, which each ask for a pass, and then real commits."""
    where.mkdir(mode=0o700)
    with child("tests.bench.running_forge", str(where)) as forge:
        return trio.run(_bench, where, forge.first, deliveries, commits)


async def _bench(where: Path, forge: dict[str, str], deliveries: int, commits: int) -> list[Measurement]:
    async with make_world(where) as (world, relay):
        app = GitRepo.create(where / f"{REPOSITORY}.git")
        app.commit({f"site/{number}.html": f"{number}\n" for number in range(100)}, branch=BRANCH)
        world.commit_spec("version: 1\n")
        world.environment |= {
            "TRUEUP_SPEC_REPO": f"{forge['url']}/spec.git",
            "GIT_SSL_CAINFO": forge["certificate"],
            "WEBHOOK_SECRET": SECRET,
            "TRUEUP_INTERVAL": "24h",
        }
        hosts = [await world.add_host(node, relay.address) for node in ("web-1", "web-2")]
        nodes = world.spec.read("trueup.yaml").decode().partition("nodes:\n")[2]
        world.commit_spec(synced(f"{forge['url']}/{REPOSITORY}.git", hosts, nodes))
        async with serving(world) as primary:
            for host in hosts:
                await world.start_agent(host)
            await _applied(primary, len(hosts))
            await trio.sleep(REST)
            answers = await _deliver(primary, deliveries)
            asked = await _among_slow_ones(primary, deliveries // 5)
            ways = []
            for number in range(commits):
                print(f"commit {number + 1} of {commits}", file=sys.stderr, flush=True)
                await trio.sleep(REST)
                commit = app.commit({"site/index.html": f"{number}\n"}, branch=BRANCH)
                ways.append(await _follow(world, primary, commit, len(hosts)))
            return _measured(answers, asked, ways)


def _client(primary: Serving) -> httpx.AsyncClient:
    """Each delivery over a connection of its own, as GitHub's are."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=primary.http, limits=limits, trust_env=False, timeout=PATIENCE)


async def _deliver(primary: Serving, number: int) -> list[float]:
    """One after the other; passes go on meanwhile."""
    seconds = []
    async with _client(primary) as client:
        for each in range(number):
            request = _push(f"{each + 1:040x}")
            begin = time.perf_counter()
            await _post(client, request)
            seconds.append(time.perf_counter() - begin)
    return seconds


async def _among_slow_ones(primary: Serving, number: int) -> list[float]:
    """How long `/health` takes while many others have each sent a part of a request and say nothing more."""
    address = httpx.URL(primary.http)
    slow = [await trio.open_tcp_stream(address.host, address.port or 80) for _ in range(SLOW_ONES)]
    try:
        for stream in slow:
            await stream.send_all(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        seconds = []
        async with _client(primary) as client:
            for _ in range(number):
                begin = time.perf_counter()
                (await client.get("/health")).raise_for_status()
                seconds.append(time.perf_counter() - begin)
        return seconds
    finally:
        for stream in slow:
            await trio.aclose_forcefully(stream)


def _push(commit: str) -> Mapping[str, Any]:
    return pushed(REPOSITORY, SECRET, ref=f"refs/heads/{BRANCH}", after=commit)


async def _post(client: httpx.AsyncClient, request: Mapping[str, Any]) -> None:
    answered = await client.post("/webhook", **request)
    if answered.status_code != 202:
        raise RuntimeError(f"a delivery was answered with {answered.status_code}: {answered.text}")


async def _follow(world: World, primary: Serving, commit: str, hosts: int) -> tuple[float, float]:
    """Seconds from the delivery to the beginning of the first step, and to the end of the last one."""
    known, seen = _steps(world, 0)[-1]["id"], len(primary.lines)
    request = _push(commit)
    async with _client(primary) as client:
        begin = datetime.now(UTC)
        await _post(client, request)
    await _applied(primary, hosts, after=seen)
    steps = _steps(world, known)
    first, last = min(each["began_at"] for each in steps), max(each["ended_at"] for each in steps)
    return (
        (datetime.fromisoformat(first) - begin).total_seconds(),
        (datetime.fromisoformat(last) - begin).total_seconds(),
    )


async def _applied(primary: Serving, number: int, *, after: int = 0) -> None:
    """Until so many steps have ended well, and the pass that they belong to."""

    def find() -> dict[str, Any] | None:
        events = [line.get("event") for line in primary.lines[after:]]
        whole = events.count("step applied") >= number and events[-1] == "pass ended"
        return primary.lines[-1] if whole else None

    await primary.until(find, "a step for each host")


def _steps(world: World, after: int) -> list[dict[str, Any]]:
    """What the journal of the running primary says of its steps."""
    journal = world.state / "journal.sqlite"
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM steps WHERE id > ? ORDER BY id", (after,)).fetchall()
    return [dict(row) for row in rows]


def _measured(answers: list[float], asked: list[float], ways: list[tuple[float, float]]) -> list[Measurement]:
    answered = Measurement("delivery to 202", "trueup", answers)
    answered.note = "goal: p99 under 50 ms"
    healthy = Measurement(f"/health, while {SLOW_ONES} others are slow", "trueup", asked)
    healthy.note = "goal: under 100 ms"
    begun = Measurement("delivery to first step", "trueup", [first for first, _ in ways])
    begun.note = "goal: p95 under 2 s"
    applied = Measurement("delivery to applied on two hosts", "trueup", [last for _, last in ways])
    return [answered, healthy, begun, applied]
