"""Deliveries of webhooks: kept before they are answered, acted on once, in whatever process and number."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from reconciler import inbox
from tests.canaries import canary
from tests.delivering import Delivering, Place, delivering
from tests.github_deliveries import headers_of, payload, pushed, signature

REPLAYS = 1000


def place(tmp_path: Path, spec: str = "version: 1\n", **environment: str) -> Place:
    return Place.make(tmp_path, spec, WEBHOOK_SECRET=canary("webhook"), **environment)


async def many(it: Delivering, requests: list[Any], at_once: int = 20) -> dict[int, int]:
    """Deliver all of them, some at a time; how often each status was answered."""
    statuses: dict[int, int] = {}
    waiting = list(reversed(requests))

    async def deliver() -> None:
        while waiting:
            status = await it.status_of(waiting.pop())
            statuses[status] = statuses.get(status, 0) + 1

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(deliver)
    return statuses


async def nothing_is_asked(it: Delivering, clock: MockClock) -> None:
    """Nobody waits for a pass: one that somebody asks for now is the next one."""
    clock.jump(60)
    await trio.testing.wait_all_tasks_blocked(0.1)
    made = it.passes()
    it.runner.ask("to be sure")
    await it.passes_reach(made + 1)
    assert it.passes() == made + 1
    clock.jump(60)


async def test_a_replay_does_nothing_also_after_a_restart(tmp_path: Path, mock_clock: MockClock) -> None:
    """Under another delivery's id, or under its own, as when somebody presses `Redeliver`."""
    there, secret = place(tmp_path), canary("webhook")
    body = payload("push", repository="org/spec", ref="refs/heads/main")
    requests = [
        {"content": body, "headers": headers_of(body, secret, "push", own and "the-first")}
        for own in ("the-first", *("", "the-first") * (REPLAYS // 4))
    ]
    async with delivering(there) as it:
        await it.passes_reach(1)
        mock_clock.jump(60)
        assert (await it.deliver(requests[0])).json() == {"success": True, "message": "accepted"}
        await it.passes_reach(2)
        assert await many(it, requests[1:]) == {202: REPLAYS // 2}
        await nothing_is_asked(it, mock_clock)
        assert it.passes() == 3
    async with delivering(there) as it:
        await it.passes_reach(4)
        assert await many(it, requests[1:]) == {202: REPLAYS // 2}
        await nothing_is_asked(it, mock_clock)
        assert it.passes() == 5
        [kept] = it.primary.journal.deliveries.newest()
        assert (kept.delivery, kept.kind, kept.repeats) == ("the-first", "Pushed", REPLAYS)


async def test_the_same_body_as_another_event_is_another_delivery(tmp_path: Path) -> None:
    """The event's name is not signed: what is replayed as a ping first must not hide the push."""
    there, secret = place(tmp_path), canary("webhook")
    body = payload("push", repository="org/spec")
    async with delivering(there, passes=False) as it:
        for event in ("ping", "push", "star", "ping", "push"):
            headers = headers_of(body, secret, event, "one")
            assert (await it.deliver({"content": body, "headers": headers})).status_code == 202
        kept = it.primary.journal.deliveries.newest()
        assert [(one.kind, one.repeats) for one in kept] == [("Pushed", 1), ("Acknowledged", 2)]


async def test_published_payloads(tmp_path: Path) -> None:
    there, secret = place(tmp_path), canary("webhook")
    async with delivering(there, passes=False) as it:
        for example, event in (("ping", "ping"), ("push_tag", "push"), ("workflow_run", "workflow_run")):
            body = payload(example)
            answer = await it.deliver({"content": body, "headers": headers_of(body, secret, event)})
            assert answer.status_code == 202
        run, tag, ping = it.primary.journal.deliveries.newest()
        assert (ping.sender, ping.kind, ping.said) == ("github", "Acknowledged", '{"event":"ping"}')
        assert (tag.kind, run.kind) == ("Pushed", "WorkflowCompleted")
        assert '"ref":"refs/tags/simple-tag"' in tag.said
        assert '"commit":"6113728f27ae82c7b1a177c8d03f9e96e0adf246"' in tag.said
        form = b"payload=" + body
        answer = await it.deliver({"content": form, "headers": headers_of(form, secret, "ping")})
        assert answer.status_code == 400
        assert "set the content type to application/json" in answer.json()["message"]


async def test_a_flood_makes_two_passes(tmp_path: Path, mock_clock: MockClock) -> None:
    """10,000 deliveries, each of its own. Time stands still: how fast they come does not matter."""
    there, secret = place(tmp_path), canary("webhook")
    push = payload("push", repository="org/spec", after="f" * 40)
    bodies = [push.replace(b"f" * 40, b"%040x" % number) for number in range(10_000)]
    requests = [{"content": body, "headers": headers_of(body, secret, "push")} for body in bodies]
    async with delivering(there) as it:
        await it.passes_reach(1)
        mock_clock.jump(60)
        statuses = await many(it, requests)
        assert statuses == {202: inbox.BURST, 429: 10_000 - inbox.BURST}
        await it.passes_reach(2)
        mock_clock.jump(60)
        await it.passes_reach(3)
        await nothing_is_asked(it, mock_clock)
        assert it.passes() == 4
        refused = await it.deliver(requests[-1])
        assert refused.status_code == 202
        assert len(it.primary.journal.deliveries.newest(10_000)) == inbox.BURST + 1


async def test_who_delivers_too_much_is_told_when_to_come_again(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "BURST", 1)
    there, secret = place(tmp_path), canary("webhook")
    async with delivering(there, passes=False) as it:
        assert (await it.deliver(pushed("org/spec", secret, after="1" * 40))).status_code == 202
        refused = await it.deliver(pushed("org/spec", secret, after="2" * 40))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        mock_clock.jump(1)
        assert (await it.deliver(pushed("org/spec", secret, after="2" * 40))).status_code == 202


async def test_what_a_killed_primary_took_is_acted_on_at_the_next_start(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Also what can be acted on only once a pass has read which secret sources there are."""
    there, secret = place(tmp_path, INFISICAL_WEBHOOK_SECRET=canary("infisical")), canary("webhook")
    now = time.time_ns() // 1_000_000
    project = {"workspaceId": "p", "environment": "dev", "secretPath": "/"}
    body = json.dumps({"event": "secrets.modified", "project": project, "timestamp": now}).encode()
    signed = {"x-infisical-signature": f"t={now};{signature(body, canary('infisical'))}"}
    async with delivering(there, passes=False) as it:
        assert (await it.deliver({"content": body, "headers": signed})).status_code == 202
        assert (await it.deliver(pushed("org/spec", secret))).status_code == 202
        assert [kept.kind for kept in it.primary.journal.deliveries.open()] == ["SecretsModified", "Pushed"]
    async with delivering(there) as it:
        await it.passes_reach(1)
        mock_clock.jump(60)
        await it.passes_reach(2)
        while it.primary.journal.deliveries.open():
            mock_clock.jump(2)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert all(kept.acted_at for kept in it.primary.journal.deliveries.newest())
