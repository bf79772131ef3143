"""What `trueup-agent status` says of an agent that was killed in the middle of something."""

import json
from contextlib import suppress
from pathlib import Path

import trio

from agent.wire.channel import Channel
from agent.wire.messages import TaskReport
from reconciler.sync.hub import AgentUnreachable
from reconciler.sync.serving import TreeSource
from tests.agent.joined_host import Host
from tests.agentprocess import agent_process, run_agent_command
from tests.connected import DEADLINE, SOURCE, make_task, running_hub


async def last_task(host: Host) -> tuple[str, str]:
    """State and reason, as `status` tells them."""
    ran = await run_agent_command("status", "--config", str(host.config), "-o", "json")
    task = json.loads(ran.stdout)["lastTask"]
    return task["state"], task["reason"]


async def test_a_task_under_way_when_the_agent_was_killed_was_broken_off(tmp_path: Path) -> None:
    host = Host(tmp_path)
    sink, heard = trio.open_memory_channel[None](2)

    async def serve(channel: Channel, _source: TreeSource) -> TaskReport:
        await channel.receive()
        sink.send_nowait(None)
        return await trio.sleep_forever()

    async with running_hub(tmp_path, [host.enrolment], serve=serve) as setup, trio.open_nursery() as nursery:
        hub = setup.hub

        async def begin(name: str) -> None:
            """Returns when the agent has asked for what it needs of the task."""
            task = make_task(name, target=str(host.root / "site"), observe=False)

            async def run() -> None:
                with suppress(AgentUnreachable):  # it is killed
                    await hub.run_task("web-1", task, SOURCE)

            nursery.start_soon(run)
            with trio.fail_after(DEADLINE):
                await heard.receive()

        await run_agent_command(*host.join(setup, "--root", str(host.root)))
        async with agent_process(host.config) as agent:
            await hub.wait_connected(["web-1"], DEADLINE)
            await begin("t1")
            assert await last_task(host) == ("RUNNING", "")
            await agent.kill()
        assert await last_task(host) == ("FAILED", "Interrupted")
        said = await run_agent_command("status", "--config", str(host.config))
        assert f"p to {host.root}/site: FAILED Interrupted the agent ended in the middle of it" in said.stdout
        async with agent_process(host.config) as agent:
            await agent.wait_connected()
            assert await last_task(host) == ("FAILED", "Interrupted")
            await begin("t2")
            assert await last_task(host) == ("RUNNING", "")
            await agent.kill()
        # What an agent cannot read of the one before keeps it from nothing.
        (host.state / "status.json").write_bytes(b"{")
        async with agent_process(host.config) as agent:
            await agent.wait_connected()
            ran = await run_agent_command("status", "--config", str(host.config), "-o", "json")
            assert json.loads(ran.stdout)["lastTask"] is None
            await agent.kill()
        # Whether it runs cannot be looked at: that is no answer.
        (host.state / "agent.lock").unlink()
        (host.state / "agent.lock").symlink_to("elsewhere")
        unknown = await run_agent_command("status", "--config", str(host.config))
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "agent.lock: cannot be read" in unknown.stderr
        nursery.cancel_scope.cancel()
