"""Every git child process: hermetic, bounded in time and output, its whole group gone after it (threat 7)."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from reconciler.errors import GitRefused, GitUnavailable
from reconciler.git.failures import GitFailed
from reconciler.git.mirror import Mirror
from reconciler.git.process import GitOptions, git_result, run_git
from tests.canaries import canary


def processes_with(word: str) -> list[str]:
    """Command lines of live processes that hold `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if word in command:
                found.append(command)
    return found


async def wait_gone(word: str) -> None:
    """Until the kernel has taken away every killed process that has `word` in its command line."""
    with trio.fail_after(120):
        while processes_with(word):
            await trio.lowlevel.checkpoint()


@contextmanager
def silent_server() -> Iterator[tuple[int, trio.SocketListener]]:
    """A port on loopback where connections are accepted by the kernel and nobody ever answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        listener.setblocking(False)
        yield listener.getsockname()[1], trio.SocketListener(trio.socket.from_stdlib_socket(listener))


async def read_to_end(stream: trio.SocketStream) -> None:
    """Returns when the peer is gone."""
    with suppress(trio.BrokenResourceError):
        async with stream:
            async for _ in stream:
                pass


async def refreshed_in_vain(mirror: Mirror, listener: trio.SocketListener, clock: MockClock) -> str:
    """The error; time runs out once the transport helper has connected. Its connection is closed by then."""
    accepted: list[trio.SocketStream] = []

    async def run_out() -> None:
        accepted.append(await listener.accept())
        while True:  # whoever started git may count its time only from now on
            clock.jump(1.0)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_out)
        with pytest.raises(GitUnavailable) as raised:
            await mirror.refresh()
        nursery.cancel_scope.cancel()
    [stream] = accepted
    await read_to_end(stream)
    return str(raised.value)


async def test_a_hung_remote_ends_at_the_deadline_with_all_its_processes(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    with silent_server() as (port, listener):
        mirror = Mirror(f"https://127.0.0.1:{port}/repo", tmp_path / "m.git", deadline=1.0)
        error = await refreshed_in_vain(mirror, listener, mock_clock)
        assert "timed out after 1 s" in error
        assert f"https://127.0.0.1:{port}/repo" in error
        await wait_gone(f"127.0.0.1:{port}")
    assert not (tmp_path / "m.git").exists()


async def test_a_hung_ssh_remote_is_killed_with_its_group(tmp_path: Path, mock_clock: MockClock) -> None:
    with silent_server() as (port, listener):
        options = GitOptions(deadline=1.0, ssh_command=f"ssh -F /dev/null -o BatchMode=yes -p {port}")
        mirror = Mirror("git@127.0.0.1:org/repo.git", tmp_path / "m.git", options=options)
        assert "timed out" in await refreshed_in_vain(mirror, listener, mock_clock)
        await wait_gone(f"-p {port}")


async def test_cancelling_kills_the_whole_group() -> None:
    with silent_server() as (port, listener):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_git, ["ls-remote", "--", f"https://127.0.0.1:{port}/repo"])
            stream = await listener.accept()
            nursery.cancel_scope.cancel()
        await wait_gone(f"127.0.0.1:{port}")
        with trio.fail_after(120):
            await read_to_end(stream)


async def test_silence_ends_a_command_long_before_its_deadline(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with trio.fail_after(120), pytest.raises(GitUnavailable, match=r"timed out after 0\.5 s"):
        await run_git(["hash-object", str(fifo)], deadline=600, idle=0.5)
    await wait_gone(str(fifo))


async def test_output_over_the_bound_is_cut_off(tmp_path: Path) -> None:
    await run_git(["init", "-q", "--bare", str(tmp_path / "r")])
    blob = (
        await run_git(["hash-object", "-w", "--stdin"], git_dir=tmp_path / "r", stdin=b"x" * 500_000)
    ).strip()
    args = ["cat-file", "blob", blob.decode()]
    assert len(await run_git(args, git_dir=tmp_path / "r", max_output=500_000)) == 500_000
    with pytest.raises(GitFailed, match="more than 499999 bytes"):
        await run_git(args, git_dir=tmp_path / "r", max_output=499_999)


async def test_input_larger_than_a_pipe_is_written_while_output_is_read() -> None:
    lines = b"blob 1\n" * 200_000
    out = await run_git(["stripspace"], stdin=lines)
    assert len(out) == len(lines)


async def test_git_that_ends_without_reading_its_input_is_no_broken_pipe() -> None:
    result = await git_result(["no-such-command"], stdin=b"x" * 10_000_000)
    assert result.code == 1
    assert "no-such-command" in result.stderr


async def test_the_environment_is_built_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = canary("git-environment")
    monkeypatch.setenv("SOME_TOKEN", secret)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "alias.environ")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "!echo from the environment")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text('[alias]\n\tenviron = "!echo from the account"\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shown = (await run_git(["-c", "alias.show=!env", "show-env"], ok_codes=(0, 1))).decode()
    assert shown == ""
    shown = (await run_git(["-c", "alias.showenv=!env", "showenv"])).decode()
    assert secret not in shown
    assert "elsewhere" not in shown
    assert "LC_ALL=C\n" in shown and "GIT_TERMINAL_PROMPT=0\n" in shown and "BatchMode=yes" in shown
    assert (await git_result(["environ"])).code != 0


async def test_only_https_and_ssh_are_spoken(tmp_path: Path) -> None:
    await run_git(["init", "-q", "--bare", str(tmp_path / "r")])
    marker = tmp_path / "owned"
    for url in (
        f"file://{tmp_path}/r",
        f"ext::sh -c touch% {marker}",
        "http://127.0.0.1:1/r",
        "git://127.0.0.1:1/r",
    ):
        with pytest.raises(GitRefused, match="transport"):
            await run_git(["ls-remote", "--", url])
    await run_git(["ls-remote", "--", f"file://{tmp_path}/r"], allow_local=True)
    with pytest.raises(GitRefused):
        await run_git(["ls-remote", "--", f"ext::sh -c touch% {marker}"], allow_local=True)
    assert not marker.exists()


async def test_a_missing_git_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitFailed, match="git is not installed"):
        await run_git(["version"])


async def test_a_refused_connection_and_an_unknown_host_are_told_apart(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(GitUnavailable, match="connection was refused"):
            await Mirror(f"https://127.0.0.1:{port}/r", tmp_path / "a").refresh()
        options = GitOptions(ssh_command=f"ssh -F /dev/null -o BatchMode=yes -p {port}")
        with pytest.raises(GitUnavailable, match="connection was refused"):
            await Mirror("git@127.0.0.1:r", tmp_path / "b", options=options).refresh()


async def test_https_credentials_come_from_the_operators_askpass_alone(tmp_path: Path) -> None:
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!{sys.executable}\nprint('answer')\n")
    askpass.chmod(0o755)
    request = b"protocol=https\nhost=example.org\n\n"
    env = GitOptions(askpass=str(askpass)).environment()
    assert b"password=answer" in await run_git(["credential", "fill"], stdin=request, env=env)
    with pytest.raises(GitUnavailable, match="credentials"):
        await run_git(["credential", "fill"], stdin=request)
