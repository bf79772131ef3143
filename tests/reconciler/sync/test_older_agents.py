"""Agents of earlier versions against this primary: real processes of what was kept of them."""

from pathlib import Path

import pytest
import trio

from agent.node_token import NodeToken
from agent.wire.messages import PROTOCOL_VERSIONS
from reconciler.deploy.request import NodeCommand
from reconciler.fleet import Fleet
from reconciler.journal import Journal
from reconciler.spec.model import Retry
from reconciler.sync.enrolment import Enrolment
from reconciler.sync.hub import AgentTooOld, Hub
from reconciler.sync.selection import Selection
from reconciler.sync.serving import TreeSource, serve_task
from reconciler.sync.streamed import Growing
from tests import older_agents
from tests.agentprocess import agent_process, run_agent_command
from tests.connected import running_hub
from tests.reconciler.facts import only_sync
from tests.world import tree_of

ONCE = Retry(attempts=1, backoff=0.001, max_backoff=0.001)
PATIENCE = 60.0
SPEC = (
    "projects: {{site: {{repository: app, branch: main, path: site, sync: {{nodes: [{{node_id: web-1,"
    " target_path: {target}}}]}}}}}}\n"
)
RELEASES = SPEC.replace("sync: {{nodes", "sync: {{strategy: release, nodes")


def fill(source: Path) -> None:
    source.mkdir()
    (source / "page.html").write_text("hello\n")
    (source / "many").mkdir()
    for number in range(300):
        (source / "many" / f"{number:03}.txt").write_text(f"{number}\n" * 9)
    (source / "large.bin").write_bytes(bytes(range(256)) * 2_000)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "empty").mkdir()
    (source / "link").symlink_to("page.html")


async def updated(hub: Hub) -> None:
    """Until the agent of today is connected, in place of the older one."""
    while (peer := hub.peer("web-1")) is None or peer.protocol != PROTOCOL_VERSIONS[0]:
        await hub.wait_change()


@pytest.mark.parametrize("protocol", PROTOCOL_VERSIONS[1:])
async def test_an_older_agent_is_served(tmp_path: Path, protocol: int) -> None:
    environ = older_agents.install(protocol, tmp_path / "installed")
    token = NodeToken.generate()
    source, root, config = tmp_path / "source", tmp_path / "srv", tmp_path / "agent.toml"
    root.mkdir()
    fill(source)
    sync = only_sync(SPEC.format(target=root / "site"))
    with Journal(tmp_path / "journal.sqlite") as journal:
        async with running_hub(tmp_path, [Enrolment("web-1", token.public_text)], serve=serve_task) as setup:
            joined = await run_agent_command(
                *("join", "--primary", str(setup.address), "--node", "web-1", "--token", token.to_text()),
                *("--pin", setup.hub.fingerprint, "--config", str(config), "--root", str(root)),
                *("--state-dir", str(tmp_path / "state")),
                *("--allow", "greet=/bin/sh -c 'printf %s \"$GREETING\" > greeting'"),
                environ=environ,
            )
            assert joined.returncode == 0, joined.stderr
            agents = Fleet(setup.hub, journal, patience=PATIENCE)
            async with agent_process(config, environ=environ):
                assert await agents.wait_connected(["web-1"]) == {"web-1"}
                peer = setup.hub.peer("web-1")
                assert peer is not None
                assert (peer.protocol, peer.agent_version) == (protocol, f"0.1.0+protocol.{protocol}")
                assert await setup.hub.ping("web-1") > 0

                # Everything is copied, found unchanged, and brought up to date with what it has.
                # It cannot take a tree that is still being hashed, so it waits for the whole of it.
                growing = await Growing.begin(source, Selection())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(growing.run)
                    first = await agents.sync(sync, growing.source, ONCE)
                tree = await growing.whole()
                assert first.established == tree.tree
                assert tree_of(root / "site") == tree_of(source)
                assert first.bytes_received > 500_000
                # Of a checkout it gets the time when that was made, as it knows nothing of trees without.
                assert (root / "site" / "page.html").stat().st_mtime_ns == tree.mtime_ns
                with pytest.raises(AgentTooOld, match="too old to say what a sync would do"):
                    await agents.itemise(sync, tree)
                again = await agents.sync(sync, tree, ONCE)
                assert (again.observed, again.files_written, again.bytes_received) == (tree.tree, 0, 0)
                with (source / "large.bin").open("r+b") as file:
                    file.seek(300_000)
                    file.write(b"changed")
                (source / "many" / "007.txt").unlink()
                tree = await TreeSource.build(source)
                changed = await agents.sync(sync, tree, ONCE)
                assert tree_of(root / "site") == tree_of(source)
                assert (changed.files_written, changed.files_deleted) == (1, 1)
                assert changed.bytes_received < 200_000 < changed.bytes_reused

                # What it does not give, it says nothing of, and so it is said for it.
                owned = await TreeSource.build(source, owners=True)
                ownerless = await agents.sync(sync, owned, ONCE)
                assert ownerless.warnings[0].startswith("owners and groups were left as they are: the agent")
                assert (await agents.look(sync, owned.tree, owned.owners)).owners_equal

                command = NodeCommand(
                    resource="services/production/site",
                    node="web-1",
                    project="site",
                    target_path=str(root / "site"),
                    command="greet",
                    variables={"GREETING": "good day"},
                    timeout=30.0,
                    retry=ONCE,
                )
                await agents.run_command(command)
                assert (root / "site" / "greeting").read_text() == "good day"

                # What it does not know is said before it is asked.
                releases = only_sync(RELEASES.format(target=root / "releases"))
                with pytest.raises(AgentTooOld, match="update trueup on that host"):
                    await agents.sync(releases, tree, ONCE)
                assert list(root.iterdir()) == [root / "site"]

            # Updated, it finds that they are missing, and gives them.
            async with agent_process(config):
                await updated(setup.hub)
                seen = await agents.look(sync, owned.tree, owned.owners)
                assert (seen.observed, seen.owners_equal) == (owned.tree, False)
                given = await agents.sync(sync, owned, ONCE)
                assert (given.warnings, given.bytes_received) == ((), 0)
                assert (await agents.look(sync, owned.tree, owned.owners)).owners_equal
                removed = await agents.remove(sync.id, node="web-1", target_path=str(root / "site"))
                assert removed.files_deleted > 300
                assert list(tree_of(root)) == ["site", "site/greeting"]
