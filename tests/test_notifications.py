"""Notifications as they arrive: from a single pass and from `serve`, killed in between, channels down."""

import os
import signal
from pathlib import Path

import trio

from tests.bad_world import DATABASE, Case, make_case
from tests.canaries import canary, may_hold
from tests.notified import Receiver
from tests.serving import serving
from tests.world import PATIENCE, beside

STATUS_PUSHED = """\
#!/bin/sh
while read old new ref; do
  if [ "$ref" = refs/heads/trueup/status ] && [ -p "{fifo}" ]; then
    echo pushed > "{fifo}"
    cat "{fifo}"
  fi
done
"""
"""Lets a push of the status branch end on the server's side, tells of it, and never answers."""


def with_channels(case: Case, receiver: Receiver, *, on: str = "[failed, recovered]", more: str = "") -> None:
    """The good spec with a channel whose address is in a file."""
    address = may_hold(case.world.root / "address")
    address.write_text(receiver.address(canary("notify-path")))
    case.head += f"notifications:\n  - {{url: {{file: {address}}}, on: {on}}}\n{more}"


def broken(case: Case) -> str:
    return case.good.replace("task: deploy}", "task: broken}", 1)


async def killed_after_the_push(case: Case) -> None:
    """A pass that is killed when its push of the status branch is there, and not answered yet."""
    fifo = case.world.root / "pushed"
    os.mkfifo(fifo)
    hook = case.world.spec.path / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(STATUS_PUSHED.format(fifo=fifo))
    hook.chmod(0o755)
    await case.world.kill_during(fifo.read_text, "reconcile")
    with trio.fail_after(PATIENCE):
        await trio.to_thread.run_sync(fifo.write_text, "", abandon_on_cancel=True)
    hook.unlink()
    fifo.unlink()


async def test_transitions_are_told_once(tmp_path: Path) -> None:
    secret = canary("notify-path")
    with Receiver() as receiver:
        async with make_case(tmp_path) as case:
            with_channels(case, receiver)
            case.commit(case.good)
            await case.reconcile(expect=0)
            assert receiver.seen == []  # what is well from the start is no recovery

            spec = case.commit(broken(case))
            ran = await case.reconcile(expect=4)
            [post] = receiver.taken
            assert (post.path, post.title, post.type) == (f"/{secret}", "trueup: 1 failed", "failure")
            [line] = post.told
            assert line.startswith(f"failed: {DATABASE} at v1.0.0 ")
            assert ": DeployFailed: " in line
            assert canary("db-password") not in post.body
            assert f" UTC, spec {spec[:12]}, trace " in post.body
            commit = case.world.status_commits()[0]
            message = case.world.spec.git("show", "-s", "--format=%B", commit)
            assert post.body.splitlines()[-1].partition(" trace ")[2][:32] in message
            assert secret not in ran.stderr
            assert "notification sent" in ran.stderr

            await case.reconcile(expect=4)
            assert len(receiver.seen) == 1
            case.commit(case.good)
            await case.reconcile(expect=0)
            [_, post] = receiver.taken
            assert (post.title, post.type) == ("trueup: 1 recovered", "success")
            assert post.told == [
                f"recovered: {DATABASE} at v1.0.0 {case.world.app.resolve('v1.0.0^{commit}')[:12]}: "  # type: ignore[index]
                "ReconciliationSucceeded"
            ]


async def test_killed_after_the_status_commit(tmp_path: Path) -> None:
    """What is recorded in git and was told nobody is told by the next pass, which has nothing else to do."""
    with Receiver() as receiver:
        async with make_case(tmp_path) as case:
            with_channels(case, receiver)
            case.commit(case.good)
            await case.reconcile(expect=0)
            case.commit(broken(case))
            await killed_after_the_push(case)
            assert case.ready(DATABASE)[:2] == ("False", "DeployFailed")
            assert receiver.seen == []
            for _ in range(2):
                await case.reconcile(expect=4)
                assert [post.title for post in receiver.taken] == ["trueup: 1 failed"]

            # Another primary, with a journal of its own, takes things as they are.
            case.commit(case.good)
            await killed_after_the_push(case)
            assert case.ready(DATABASE)[0] == "True"
            other = beside(case.world, "other")
            await other.trueup("reconcile", "--force", DATABASE, expect=0)
            assert len(receiver.seen) == 1
            case.commit(broken(case))
            await other.trueup("reconcile", expect=4)
            assert [post.title for post in receiver.taken] == ["trueup: 1 failed", "trueup: 1 failed"]
            # And the first one leaves to it what it has told since.
            case.commit(case.good)
            await case.reconcile(expect=0)
            assert receiver.taken[-1].title == "trueup: 1 recovered"
            assert len(receiver.taken) == 3


async def test_killed_while_it_sends(tmp_path: Path) -> None:
    """Nobody can know whether it had arrived: it is sent once more, and says that it is the same."""
    with Receiver() as receiver:
        async with make_case(tmp_path) as case:
            with_channels(case, receiver)
            case.commit(broken(case))
            with receiver.not_answering():
                await case.world.kill_during(lambda: receiver.wait_seen(1), "reconcile")
            await case.reconcile(expect=4)
            [first, again] = receiver.seen
            assert first == again and len(first.key) == 12


async def test_a_channel_that_is_down_delays_nothing(tmp_path: Path) -> None:
    with Receiver(status=503) as receiver, Receiver() as well:
        async with make_case(tmp_path) as case:
            wrong, secret = canary("not-an-address"), canary("notify-path")
            others = (
                "  - {url: {env: WRONG}}\n  - {url: {env: NOT_SET}}\n"
                "  - {url: {env: WELL}, on: [degraded, failed]}\n"
            )
            with_channels(case, receiver, more=others)
            case.world.environment |= {"WRONG": wrong, "WELL": well.address()}
            case.commit(broken(case))
            ran = await case.reconcile("-v", expect=4)
            assert (len(receiver.seen), receiver.taken) == (1, [])
            assert [post.title for post in well.taken] == ["trueup: 1 failed"]
            for said in (
                "the service did not take it",
                "the address is none that apprise knows",
                "the variable NOT_SET is not set",
            ):
                assert said in ran.stderr
            assert wrong not in ran.stderr and secret not in ran.stderr

            tried = await case.world.trueup("notify", "test", expect=1)
            assert [line.partition(": ")[2][:8] for line in tried.stdout.splitlines()] == [
                *("not sent", "not sent", "not sent", "sent, me"),
            ]
            assert "notifications/1 (env WRONG): not sent: the address is none" in tried.stdout
            assert wrong not in tried.stdout + tried.stderr
            alone = await case.world.trueup("notify", "test", "3")
            assert [post.title for post in well.taken[1:]] == ["trueup: a test"] * 2
            assert well.taken[2].told == ["this channel is told of: degraded, failed"]
            assert alone.stdout.split()[-1] == well.taken[2].key
            assert "no notifications/4" in (await case.world.trueup("notify", "test", "4", expect=1)).stderr

            # What waits is sent by the next pass, in its order, also by one that runs on.
            case.commit(case.good)
            receiver.status = 200
            async with serving(case.world) as primary:
                await primary.said("notification sent", channel="0", told="trueup: 1 failed")
                await primary.said("notification sent", channel="0", told="trueup: 1 recovered")
                await primary.said("a notification could not be sent", channel="1")
                titles = ["trueup: 1 failed", "trueup: 1 recovered"]
                assert [post.title for post in receiver.taken] == titles
                assert receiver.taken[0].key == receiver.seen[0].key
                metrics = (await primary.ask_locally("GET", "/metrics")).text
                assert 'trueup_notifications_total{channel="0",outcome="sent"} 2.0' in metrics
                assert 'trueup_notifications_total{channel="1",outcome="failed"}' in metrics
                assert "trueup_notifications_waiting 4.0" in metrics
                assert await primary.end(signal.SIGTERM) == 0
            assert all(secret not in str(line) and wrong not in str(line) for line in primary.lines)
