"""`trueup-agent` as people run it: real processes against a real hub."""

import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agent.node_token import NodeToken
from agent.settings import parse_config
from tests.agent.joined_host import Host
from tests.agentprocess import agent_command, agent_environment, agent_process, run_agent_command
from tests.connected import DEADLINE, make_node, make_task, running_hub, until
from tests.ports import free_port


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def test_join_run_status_stop(tmp_path: Path, host: Host) -> None:
    """A host's whole life: pairs, connects, reports a task, is asked how it stands, stops on SIGTERM."""
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        flags = ["--pin", setup.hub.fingerprint, "--root", str(host.root), "--owner", "app"]
        joined = await run_agent_command(*host.join(setup, *flags, "--allow", "hello=echo 'to you'"))
        assert joined.returncode == 0, joined.stderr
        assert (
            f"wrote {host.config}; start the agent with: trueup-agent run --config {host.config}"
            in joined.stdout
        )
        assert joined.stderr == ""
        assert setup.paired[0][2] is False

        config = parse_config(host.config.read_text(), "agent.toml")
        assert config.rules.roots == (str(host.root),)
        assert config.rules.commands == {"hello": ("echo", "to you")}
        assert config.fingerprint == setup.hub.fingerprint
        assert stat.S_IMODE(host.config.stat().st_mode) == 0o600
        assert host.token.to_text() not in host.config.read_text()

        before = await run_agent_command("status", "--config", str(host.config))
        assert (before.returncode, "not running" in before.stdout) == (1, True)

        async with agent_process(host.config) as agent:
            await agent.wait_connected()
            assert await setup.hub.wait_connected(["web-1"], DEADLINE) == {"web-1"}
            outside = make_task("t1", target=str(tmp_path / "elsewhere"))
            report = await setup.hub.run_task("web-1", outside, None)
            assert report.state == "FAILED", "the agent's own roots win"
            await agent.wait_event("task ended", task="t1", state="FAILED")

            during = await run_agent_command("status", "--config", str(host.config), "-o", "json")
            assert during.returncode == 0
            told = json.loads(during.stdout)
            assert (told["connected"], told["primary"]) == (True, str(setup.address))

            second = await run_agent_command("run", "--config", str(host.config))
            assert (second.returncode, second.stderr.count("\n")) == (1, 1)
            assert "another agent is running" in second.stderr
            again = await run_agent_command(*host.join(setup))
            assert "; stop it first if it is this node's own" in again.stderr

            assert await agent.stop() == 0
            await agent.wait_event("stopped")
        await until(setup, lambda: not setup.hub.connected())
        after = await run_agent_command("status", "--config", str(host.config))
        assert after.returncode == 1


async def test_a_killed_agent_comes_back_and_status_is_not_deceived(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup, "--root", str(host.root)))
        async with agent_process(host.config) as agent:
            await agent.wait_connected()
            await agent.kill()
        status = await run_agent_command("status", "--config", str(host.config))
        assert (status.returncode, "not running" in status.stdout) == (1, True)
        async with agent_process(host.config) as agent:
            await agent.wait_connected()
            assert await agent.stop() == 0


async def test_join_without_a_pin_warns_and_is_flagged(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        joined = await run_agent_command(*host.join(setup))
        assert joined.returncode == 0
        assert (
            f"no --pin was given: the primary with the fingerprint {setup.hub.fingerprint}" in joined.stderr
        )
        assert "no --root was given" in joined.stderr
        assert setup.paired[0][2] is True
        assert parse_config(host.config.read_text(), "x").fingerprint == setup.hub.fingerprint


async def test_join_says_which_root_is_no_directory(tmp_path: Path, host: Host) -> None:
    file, missing = tmp_path / "file", tmp_path / "missing"
    file.touch()
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        relative = await run_agent_command(*host.join(setup, "--root", "srv"))
        assert (relative.returncode, "--root: 'srv' is not an absolute path" in relative.stderr) == (1, True)
        assert setup.paired == []
        roots = [flag for root in (host.root, missing, file) for flag in ("--root", str(root))]
        joined = await run_agent_command(*host.join(setup, "--pin", setup.hub.fingerprint, *roots))
    assert joined.returncode == 0
    assert [line.partition("warning: ")[2].partition(":")[0] for line in joined.stderr.splitlines()] == [
        f"the root {missing} does not exist",
        f"the root {file} is not a directory",
    ]


async def test_joining_again_keeps_what_is_not_said_anew(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup, "--root", str(host.root), "--allow", "a=b c"))
        first = parse_config(host.config.read_text(), "x")
        again = await run_agent_command(*host.join(setup, "--owner", "app"))
        assert again.returncode == 0, again.stderr
        second = parse_config(host.config.read_text(), "x")
        assert second.rules.roots == first.rules.roots
        assert second.rules.commands == {"a": ("b", "c")}
        assert second.rules.owners == ("app",)
        assert len(setup.paired) == 1


async def test_a_host_that_has_paired_needs_no_token_to_join_again(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup))
        command = [
            *("join", "--primary", str(setup.address), "--node", "web-1", "--config", str(host.config)),
            *("--root", str(host.root)),
        ]
        again = await run_agent_command(*command)
        assert again.returncode == 0, again.stderr
        assert parse_config(host.config.read_text(), "x").rules.roots == (str(host.root),)


async def test_a_mistyped_node_name_leaves_nothing_behind(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        mistyped = await run_agent_command(*host.join(setup, "--node", "wbe-1"))
        assert (mistyped.returncode, "TokenRefused" in mistyped.stderr) == (1, True)
        joined = await run_agent_command(*host.join(setup))
        assert joined.returncode == 0, joined.stderr
        other = await run_agent_command(*host.join(setup, "--node", "web-2", "--config", str(tmp_path / "b")))
        assert "this key was made for another node" in other.stderr, "its own key is in use"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pin", "ab" * 32], "this is not the primary that was pinned"),
        (["--pin", "short"], "'short' is not a fingerprint"),
        (["--root", "relative"], "'relative' is not an absolute path"),
        (["--allow", "nothing"], "'nothing' is not NAME=COMMAND"),
        (["--primary", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--node", "a/b"], "'a/b' is not the name of a node"),
        (["--token", "trueup-token-1:canthisbe"], "--token is not a node's token"),
        (["--state-dir", "/proc/nowhere"], "/proc/nowhere"),
        (["--config", "/proc/nowhere/agent.toml"], "/proc/nowhere/agent.toml"),
    ],
)
async def test_a_join_that_fails_says_one_line_and_writes_no_configuration(
    tmp_path: Path, host: Host, flags: list[str], message: str
) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        joined = await run_agent_command(*host.join(setup, *flags))
        assert joined.returncode == 1
        assert joined.stderr.count("\n") == 1, joined.stderr
        assert joined.stderr.startswith("trueup-agent: ")
        assert message in joined.stderr
        assert "canthisbe" not in joined.stderr
        assert not host.config.exists()
        assert setup.paired == []


async def test_a_join_killed_anywhere_is_mended_by_the_same_command(tmp_path: Path) -> None:
    finished = False
    async with running_hub(tmp_path / "hub") as setup:
        for kill_at in range(1, 100):
            base = tmp_path / str(kill_at)
            base.mkdir()
            host = Host(base)
            await setup.hub.update([host.enrolment])
            join = host.join(setup, "--pin", setup.hub.fingerprint, "--root", str(host.root))
            with trio.fail_after(120):
                killed = await trio.run_process(
                    [sys.executable, "-m", "tests.agent.killed_join", str(kill_at), *join],
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    cwd=Path(__file__).parents[2],
                    env=agent_environment(),
                )
            if killed.returncode == 0:
                finished = True
                break
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            paired = len(setup.paired)
            again = await run_agent_command(*join)
            assert again.returncode == 0, (kill_at, again.stderr)
            assert len(setup.paired) <= paired + 1
            assert parse_config(host.config.read_text(), "x").fingerprint == setup.hub.fingerprint
            left = {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}
            secret = {f"state/tls/{name}" for name in ("client.key", "client.crt", "server.fp", "token")}
            assert left == {"etc/agent.toml", "state/agent.lock"} | secret, kill_at
    assert finished


async def test_a_wrong_token_says_what_to_do(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        joined = await run_agent_command(*host.join(setup, token=NodeToken.generate()))
        assert joined.returncode == 1
        assert "TokenRefused" in joined.stderr
        assert "trueup node rotate-token" in joined.stderr
        assert not host.config.exists()


async def test_nobody_at_any_address(tmp_path: Path, host: Host) -> None:
    port = free_port()
    command = ["join", "--node", "web-1", "--config", str(host.config), "--state-dir", str(host.state)]
    environ = agent_environment(SYNC_NODE_TOKEN=host.token.to_text())
    command += ["--primary", f"127.0.0.1:{port}"]
    joined = await run_agent_command(*command, "--wait", "0", environ=environ)
    assert joined.returncode == 1
    assert (
        f"127.0.0.1:{port}: cannot be reached: Connection refused; start `trueup reconcile` there"
        in joined.stderr
    )
    assert joined.stderr.count("\n") == 1
    missing = await run_agent_command(*command)
    assert "there is no token" in missing.stderr


async def test_join_waits_for_a_primary_that_is_not_there_yet(tmp_path: Path, host: Host) -> None:
    """One that only makes passes listens only meanwhile; until it does, join says what it waits for."""
    port = free_port()
    process = await trio.lowlevel.open_process(
        agent_command(
            *("join", "--node", "web-1", "--token", host.token.to_text(), "--primary", f"127.0.0.1:{port}"),
            *("--config", str(host.config), "--state-dir", str(host.state)),
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=agent_environment(),
    )
    assert process.stderr is not None
    said = b""
    async with process.stderr:
        with trio.fail_after(120):
            while b"Connection refused; trying for 60 seconds" not in said:
                said += await process.stderr.receive_some()
        async with running_hub(tmp_path, [host.enrolment], port=port) as setup:
            assert await process.wait() == 0
            assert len(setup.paired) == 1


async def test_the_seeds_variables_pair_and_run_without_a_file(tmp_path: Path, host: Host) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(host.token.to_text())
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        environ = agent_environment(
            SYNC_NODE_ID="web-1",
            SYNC_NODE_TOKEN_FILE=str(token_file),
            SYNC_TCP_ENDPOINT=str(setup.address),
            SYNC_AGENT_TLS_DIR=str(tmp_path / "agent_tls"),
            SYNC_SERVER_FINGERPRINT=setup.hub.fingerprint,
            SYNC_AGENT_STATE_DIR=str(host.state),
        )
        async with agent_process(environ=environ) as agent:
            await agent.wait_event("paired")
            await agent.wait_connected()
            assert await agent.stop() == 0
        assert (tmp_path / "agent_tls" / "client.key").exists()


@pytest.mark.parametrize("verb", ["run", "status"])
async def test_a_broken_configuration_is_one_line(tmp_path: Path, verb: str) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('node = "web-1"\nprimaries = ["h:1"]\nrotos = []\n')
    done = await run_agent_command(verb, "--config", str(config))
    assert done.returncode == 1
    assert done.stderr == (
        f"trueup-agent: {config}:3: rotos: there is no such setting; did you mean roots?\n"
    )


async def test_a_damaged_key_ends_the_agent_with_what_to_do(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup))
        (host.state / "tls" / "client.key").write_text("garbage")
        done = await run_agent_command("run", "--config", str(host.config))
        assert done.returncode == 1
        assert "damaged" in done.stderr
        assert "Traceback" not in done.stderr
        (host.state / "epoch").write_text("garbage")


async def test_a_mistake_found_while_running_is_one_line_too(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup))
        (host.state / "epoch").write_text("garbage")
        done = await run_agent_command("run", "--config", str(host.config))
        assert done.returncode == 1
        assert "epoch: is damaged" in done.stderr
        assert "Traceback" not in done.stderr


async def test_no_task_touches_the_agents_own_files(tmp_path: Path, host: Host) -> None:
    async with running_hub(tmp_path / "hub", [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup, "--root", str(tmp_path)))
        async with agent_process(host.config) as agent:
            await agent.wait_connected()
            await setup.hub.wait_connected(["web-1"], DEADLINE)
            for number, own in enumerate((host.config.parent / "agent.toml", host.state, host.state / "tls")):
                report = await setup.hub.run_task(
                    "web-1", make_task(f"t{number}", target=str(own), observe=False), None
                )
                assert (report.state, report.reason) == ("FAILED", "PathRefused"), own
            await agent.stop()


async def test_systemd_is_told(tmp_path: Path, host: Host) -> None:
    path = tmp_path / "notify"
    async with running_hub(tmp_path, [host.enrolment]) as setup:
        await run_agent_command(*host.join(setup))
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            await listening.bind(str(path))
            environ = agent_environment(NOTIFY_SOCKET=str(path))
            async with agent_process(host.config, environ=environ) as agent:
                await agent.wait_connected()
                await agent.stop()
            told = [(await listening.recv(4096)).decode() for _ in range(3)]
    assert told[0].startswith("READY=1\n")
    assert told[1] == f"STATUS=connected to {setup.address}"
    assert told[2] == "STOPPING=1"


async def test_usage_and_version() -> None:
    assert (await run_agent_command("--version")).stdout.startswith("trueup-agent ")
    wrong = await run_agent_command("jion")
    assert wrong.returncode == 2
    for verb in ("join", "run", "status"):
        shown = await run_agent_command(verb, "--help")
        assert (shown.returncode, "--config" in shown.stdout) == (0, True)


async def test_another_nodes_configuration_is_not_overwritten(tmp_path: Path, host: Host) -> None:
    other = make_node(tmp_path, "web-2")
    async with running_hub(tmp_path, [host.enrolment, other.enrolment()]) as setup:
        await run_agent_command(*host.join(setup))
        before = host.config.read_text()
        joined = await run_agent_command(*host.join(setup, "--node", "web-2", token=other.token))
        assert joined.returncode == 1
        assert "belongs to the node web-1" in joined.stderr
        assert host.config.read_text() == before
