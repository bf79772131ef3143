"""A node's life over the command line: joined, impersonated, set up anew, given a new token."""

from pathlib import Path

import trio

from tests.serving import serving
from tests.specs import ONE_SITE
from tests.world import Host, World, make_world

SPEC = (
    ONE_SITE
    + """\
      retry: {{attempts: 1}}
      nodes: [{{node_id: web-1, target_path: "{target}"}}]
"""
)


async def joined_in_a_pass(world: World, host: Host) -> tuple[int, str]:
    """Join while a pass listens; the exit code and what was said."""
    answers: list[tuple[int, str]] = []

    async def join() -> None:
        ran = await world.join(host)
        answers.append((ran.exit_code, ran.stderr))
        passing.cancel_scope.cancel()

    async with trio.open_nursery() as passing:
        passing.start_soon(lambda: world.trueup("reconcile", "--wait-agents", "100s", expect=None))
        passing.start_soon(join)
    return answers[0]


def another_host(world: World, host: Host, name: str) -> Host:
    """A host that was given the same join command."""
    directory = world.root / "hosts" / name
    (directory / "srv").mkdir(parents=True)
    return Host(host.node, directory, directory / "agent", directory / "agent.toml", host.join)


async def test_a_node_is_joined_defended_repaired_and_rotated(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, relay):
        world.app.commit({"site/index.html": "hello\n"})
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        world.commit_spec(SPEC.format(app=world.app.url, target=target))
        host = await world.add_host("web-1", relay.address)

        # A wrong token is refused with a reason, and nothing is recorded of it.
        stranger = another_host(world, host, "stranger")
        stranger.join = [*host.join]
        stranger.join[stranger.join.index("--token") + 1] = "trueup-token-1:" + "A" * 43
        code, said = await joined_in_a_pass(world, stranger)
        assert (code, "TokenRefused" in said) == (1, True), said

        # A wrong pin is refused by the host itself: this is what a man in the middle looks like.
        fooled = another_host(world, host, "fooled")
        fooled.join = [*host.join]
        fooled.join[fooled.join.index("--pin") + 1] = "0" * 64
        code, said = await joined_in_a_pass(world, fooled)
        assert (code, "fingerprint" in said) == (1, True), said

        assert (await joined_in_a_pass(world, host))[0] == 0
        # A second host with the same token is a stranger, until the operator says otherwise.
        second = another_host(world, host, "second")
        code, said = await joined_in_a_pass(world, second)
        assert (code, "AlreadyPaired" in said, "trueup node repair web-1" in said) == (1, True, True), said
        ran = await world.trueup("node", "repair", "web-1")
        assert "no primary is running here" in ran.stdout
        assert (await joined_in_a_pass(world, second))[0] == 0

        # The first one's certificate counts no more, whatever it still has.
        await world.start_agent(host, joined=True)
        done = await world.reconcile("--wait-agents", "3s", expect=4)
        assert [finding["reason"] for finding in done["findings"]] == ["AgentUnreachable"]

        # A new token: the old one pairs nobody.
        ran = await world.trueup("node", "rotate-token", "web-1", "--primary", relay.address)
        line = next(line.split() for line in ran.stdout.splitlines() if "trueup-agent join" in line)
        code, said = await joined_in_a_pass(world, another_host(world, host, "third"))
        assert (code, "TokenRefused" in said) == (1, True), said
        fourth = another_host(world, host, "fourth")
        fourth.join = line[1:]
        assert (await joined_in_a_pass(world, fourth))[0] == 0
        listed = await world.trueup("node", "list", "-o", "json")
        assert [(node["node"], node["paired"]) for node in listed.document] == [("web-1", True)]

        # Taken back without a primary: the next pass lets nobody in. Only a running one can say who is there.
        ran = await world.trueup("node", "revoke", "web-1", "--reason", "lost")
        assert ran.stdout.startswith("recorded 1: revoke nodes/web-1")
        await world.start_agent(fourth, joined=True)
        done = await world.reconcile("--wait-agents", "3s", expect=4)
        assert [finding["reason"] for finding in done["findings"]] == ["Revoked"]
        ran = await world.trueup("node", "test", "web-1", expect=1)
        assert f"error: no running primary at {world.state}/trueup.sock; start `trueup serve`" in ran.stderr
        listed = await world.trueup("node", "list", "-o", "json")
        assert [node["revoked"] for node in listed.document] == [True]
        assert "revoked" in (await world.trueup("node", "list")).stdout
        await world.trueup("resume", "nodes/web-1")
        done = await world.reconcile("--wait-agents", "60s", expect=4)
        # It is let in again, and asked: its host allows another directory than the spec's.
        assert [outcome["reason"] for outcome in done["outcomes"].values()] == ["PathRefused"]

        # To forget its certificate does not let back in who is revoked.
        await world.trueup("node", "revoke", "web-1")
        ran = await world.trueup("node", "repair", "web-1")
        assert "web-1 is revoked and may not join: `trueup node rotate-token web-1`" in ran.stdout
        await world.trueup("resume", "nodes/web-1")
        ran = await world.trueup("node", "repair", "web-1")
        assert "web-1 may join again with its token (it was not paired)" in ran.stdout


async def test_a_node_is_joined_right_after_it_was_added(tmp_path: Path) -> None:
    """A primary runs that would look again in a day: it is asked to look now, and the join goes on trying."""
    async with make_world(tmp_path) as (world, relay):
        world.environment["TRUEUP_INTERVAL"] = "24h"
        world.app.commit({"site/index.html": "hello\n"})
        target = tmp_path / "hosts" / "web-1" / "srv" / "site"
        labels = SPEC.replace("node_id: web-1", "labels: {{group: web}}")
        world.commit_spec(labels.format(app=world.app.url, target=target))
        async with serving(world) as primary:
            await primary.said("pass ended")
            host = await world.add_host("web-1", relay.address, "group=web")
            joined = await world.join(host)
            assert joined.exit_code == 0, joined.stderr
            assert await primary.end() == 0
