"""Rendered files and the commands that come after: placed safely, run only when something changed."""

import base64
import json
import os
import pwd
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from agent.commands import MAX_OUTPUT, last_lines, run_command
from agent.errors import PathRefused
from agent.owners import UNCHANGED, resolve_owner
from agent.rendered import check_rendered, hide
from agent.wire.messages import RenderedContent
from tests.agent.syncing import Host, observe, read_tree, synchronise, write_tree
from tests.canaries import canary, may_hold

SECRET = canary("rendered")
QUOTED = f'say "{SECRET}" in two\nlines, ü'


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    for name in (".env", "conf/app.toml"):
        may_hold(host.target / name)
    return host


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", {"a": b"1", "d/b": b"2"})


def a_file(path: str = ".env", content: str = f"PASSWORD={SECRET}\n", **changes: object) -> RenderedContent:
    return RenderedContent(path=path, content=content.encode(), **changes)  # type: ignore[arg-type]


async def test_rendered_files_are_placed_next_to_the_tree(source: Path, host: Host) -> None:
    files = [a_file(), a_file("conf/app.toml", "x = 1\n", mode=0o640)]
    outcome = await synchronise(source, host, rendered=files)
    assert outcome.state == "SUCCESS"
    assert (host.target / ".env").read_text() == f"PASSWORD={SECRET}\n"
    assert stat.S_IMODE((host.target / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((host.target / "conf/app.toml").stat().st_mode) == 0o640
    again = await synchronise(source, host, rendered=files)
    assert again.from_agent.messages == ["TaskReport"]
    assert (await observe(host, rendered=tuple(files))).rendered_equal


@pytest.mark.parametrize("damage", ["content", "mode", "gone", "symlink"])
async def test_only_a_rendered_file_that_differs_is_written(
    source: Path, host: Host, damage: str, tmp_path: Path
) -> None:
    files = [a_file(), a_file("conf/app.toml", "x = 1\n", mode=0o640)]
    await synchronise(source, host, rendered=files)
    other = (host.target / "conf/app.toml").stat().st_ino
    path = host.target / ".env"
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    if damage == "content":
        path.write_text("PASSWORD=wrong\n")
    elif damage == "mode":
        path.chmod(0o644)
    else:
        path.unlink()
        if damage == "symlink":
            path.symlink_to(outside)
    report = await observe(host, rendered=tuple(files))
    assert not report.rendered_equal
    outcome = await synchronise(source, host, rendered=files)
    assert outcome.state == "SUCCESS"
    assert outcome.from_agent.messages == ["TaskReport"]  # the tree is equal: no index was needed
    assert outcome.report.files_written == 1
    assert path.read_text() == f"PASSWORD={SECRET}\n"
    assert not path.is_symlink()
    assert outside.read_text() == "theirs"
    assert (host.target / "conf/app.toml").stat().st_ino == other


async def test_rendered_files_win_over_the_tree_and_are_never_deleted(source: Path, host: Host) -> None:
    write_tree(source, {".env": b"from the tree", "conf": b"a file where a directory must be"})
    files = [a_file(), a_file("conf/app.toml", "x = 1\n")]
    outcome = await synchronise(source, host, rendered=files, delete_foreign=True)
    assert outcome.state == "SUCCESS"
    (source / "a").unlink()
    again = await synchronise(source, host, rendered=files, delete_foreign=True)
    assert again.report.files_deleted == 1
    assert set(read_tree(host.target)) == {".env", "conf", "conf/app.toml", "d", "d/b"}
    assert (host.target / ".env").read_text() == f"PASSWORD={SECRET}\n"


async def test_a_file_that_is_rendered_no_more_is_no_foreign_one(source: Path, host: Host) -> None:
    files = [RenderedContent(path=path, content=SECRET.encode()) for path in (".env", "conf/app.toml")]
    await synchronise(source, host, rendered=files)
    (source / "a").write_bytes(b"another")
    assert (await synchronise(source, host)).report.foreign == 0
    assert (await observe(host)).foreign == 0
    (source / "a").write_bytes(b"yet another")
    assert (await synchronise(source, host)).report.foreign == 0
    assert (await observe(host)).foreign == 0


async def test_a_directory_in_the_way_of_a_rendered_file(source: Path, host: Host) -> None:
    write_tree(host.target, {".env/mine": b"1"})
    outcome = await synchronise(source, host, rendered=[a_file()])
    assert outcome.state == "FAILED PathOccupied"
    assert (host.target / ".env/mine").read_bytes() == b"1"


async def test_a_symlink_above_a_rendered_file_is_not_followed(
    source: Path, host: Host, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    host.target.mkdir()
    (host.target / "conf").symlink_to(outside)
    outcome = await synchronise(source, host, rendered=[a_file("conf/app.toml")])
    assert outcome.state == "FAILED PathRefused"
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        [a_file("../x")],
        [a_file("/etc/x")],
        [a_file("a"), a_file("a")],
        [a_file("a"), a_file("a/b")],
        [a_file(mode=0o4755)],
        [a_file(".trueup-staging/x")],
    ],
)
def test_rendered_paths_that_are_refused(files: list[RenderedContent]) -> None:
    with pytest.raises(PathRefused) as caught:
        check_rendered(files)
    assert SECRET not in str(caught.value)


async def test_owners_are_the_hosts_own_choice(source: Path, host: Host) -> None:
    files = [a_file(owner="daemon", group="no-such-group")]
    outcome = await synchronise(source, host, rendered=files)
    assert outcome.state == "SUCCESS"
    assert (host.target / ".env").stat().st_uid == os.geteuid()
    assert len(outcome.report.warnings) == 2
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    host.allow(owners=("daemon",))
    assert (await synchronise(source, host, rendered=files)).report.files_written == 1
    assert (host.target / ".env").stat().st_uid == pwd.getpwnam("daemon").pw_uid
    assert (await synchronise(source, host, rendered=files)).report.files_written == 0


@pytest.mark.parametrize("name", ["no-such-user", "0", "", "root\0"])
def test_an_unknown_name_is_nobody(name: str) -> None:
    assert resolve_owner(name, name, [name])[:2] == (UNCHANGED, UNCHANGED)


# --- after ---------------------------------------------------------------------------------------


def allow(host: Host, **commands: str) -> None:
    host.allow(commands={name: (sys.executable, "-c", code) for name, code in commands.items()})


APPEND = "open('ran', 'a').write('x')"


def runs(host: Host) -> int:
    path = host.target / "ran"
    return len(path.read_text()) if path.exists() else 0


async def test_commands_run_after_a_change_and_only_then(source: Path, host: Host) -> None:
    allow(host, restart=APPEND)
    first = await synchronise(source, host, after=("restart",))
    assert first.state == "SUCCESS"
    assert [result.exit_code for result in first.report.after] == [0]
    assert runs(host) == 1
    again = await synchronise(source, host, after=("restart",))
    assert (again.from_agent.messages, runs(host)) == (["TaskReport"], 1)
    (source / "a").write_bytes(b"new")
    await synchronise(source, host, after=("restart",))
    assert runs(host) == 2
    await synchronise(source, host, after=("restart",), rendered=[a_file()])
    assert runs(host) == 3
    assert (await observe(host, after=("restart",), rendered=(a_file(),))).after_done


async def test_a_command_that_failed_runs_again(source: Path, host: Host) -> None:
    code = f"{APPEND}; import os, sys; sys.exit('no' if not os.path.exists('ready') else 0)"
    allow(host, restart=code)
    first = await synchronise(source, host, after=("restart",))
    assert first.state == "FAILED CommandFailed"
    assert first.report.after[0].exit_code == 1
    assert first.report.established == b""
    assert not (await observe(host, after=("restart",))).after_done
    (host.target / "ready").touch()
    second = await synchronise(source, host, after=("restart",))
    assert second.state == "SUCCESS"
    assert second.from_agent.messages == ["TaskReport"]
    assert runs(host) == 2
    # Another list of commands has not run yet.
    allow(host, restart=code, other=APPEND)
    assert (await synchronise(source, host, after=("restart", "other"))).state == "SUCCESS"
    assert runs(host) == 4


async def test_a_command_that_the_host_does_not_allow_stops_the_task_first(source: Path, host: Host) -> None:
    allow(host, restart=APPEND)
    outcome = await synchronise(source, host, after=("restart", "rm -rf /"))
    assert outcome.state == "FAILED CommandNotAllowed"
    assert not host.target.exists()


async def test_secrets_that_a_command_prints_are_hidden(source: Path, host: Host) -> None:
    allow(host, show="print(open('.env').read()); raise SystemExit(3)")
    outcome = await synchronise(source, host, after=("show",), rendered=[a_file()])
    assert outcome.state == "FAILED CommandFailed"
    assert "***" in outcome.report.after[0].output
    assert "ended with 3 (" in outcome.report.message
    assert "***" in outcome.report.message
    assert SECRET not in repr(outcome.report)


async def test_why_a_command_failed_is_in_the_message(source: Path, host: Host) -> None:
    allow(
        host,
        up="print('1'); print('2'); print('no such  network\\n'); print('gave up'); exit(7)",
        quiet="exit(1)",
    )
    outcome = await synchronise(source, host, after=("up",))
    assert "'up' ended with 7 (2 | no such network | gave up)" in outcome.report.message
    outcome = await synchronise(source, host, after=("quiet",))
    assert "'quiet' ended with 1 (it printed nothing)" in outcome.report.message
    host.allow(commands={"up": ("/no/such/program",)})
    outcome = await synchronise(source, host, after=("up",))
    assert "'up' ended with 127 (could not be started: No such file or directory)" in outcome.report.message
    assert last_lines("x" * 1000) == "…" + "x" * 299


async def run(code: str, tmp_path: Path, seconds: float = 60) -> tuple[int, str]:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        result = await run_command(
            "c",
            [sys.executable, "-c", code],
            directory_fd=fd,
            environment={"A": "1"},
            seconds=seconds,
        )
    finally:
        os.close(fd)
    return result.exit_code, result.output


async def test_a_command_sees_its_directory_and_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_NODE_TOKEN", SECRET)
    code, output = await run("import os; print(os.getcwd(), sorted(os.environ))", tmp_path)
    assert code == 0
    assert str(tmp_path) in output
    assert "SYNC_NODE_TOKEN" not in output
    assert "'A'" in output


async def test_output_is_bounded_and_clean(tmp_path: Path) -> None:
    code, output = await run("print('x' * 3_000_000); print('\\x1b[31mend')", tmp_path)
    assert code == 0
    assert len(output) <= MAX_OUTPUT
    assert output.endswith("\ufffd[31mend")


async def test_a_command_that_cannot_start(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    result = await run_command("c", ["/no/such/program"], directory_fd=fd, environment={}, seconds=5)
    os.close(fd)
    assert result.exit_code == 127


FORK_AND_HANG = """
import os, time
child = os.fork()
if child == 0:
    while True: time.sleep(60)
open('pids', 'w').write(f'{os.getpid()} {child}')
while True: time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    """Polls what another process does; a worker thread's work."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def pids_in(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []


async def test_a_cancelled_command_dies_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, FORK_AND_HANG, tmp_path)
        await trio.to_thread.run_sync(wait_until, lambda: len(pids_in(path)) == 2)
        assert all(alive(pid) for pid in pids_in(path))
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(wait_until, lambda: not any(alive(pid) for pid in pids_in(path)))


async def test_a_command_that_takes_too_long_dies_with_its_children(tmp_path: Path) -> None:
    code, output = await run(FORK_AND_HANG, tmp_path, seconds=1)
    assert code == 124
    assert "stopped after" in output
    pids = pids_in(tmp_path / "pids")  # none if the machine was too slow for it to come so far
    await trio.to_thread.run_sync(wait_until, lambda: not any(alive(pid) for pid in pids))


async def test_what_a_command_leaves_running_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    )
    with trio.fail_after(120):
        status, output = await run(code, tmp_path)
    assert status == 0
    assert alive(int(output))
    os.kill(int(output), 9)


def test_hiding_takes_whole_values() -> None:
    files = [a_file(content="A=short\nTOKEN='a much longer value'\njust-a-line-of-text\n")]
    shown = hide("got a much longer value and short and just-a-line-of-text", files)
    assert shown == "got *** and short and ***"


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"PASSWORD": QUOTED, "USER": "somebody-else"}, indent=2),
        json.dumps({"PASSWORD": QUOTED, "USER": "somebody-else"}),
        f"PASSWORD: {json.dumps(QUOTED)}\n",
        f"url: [{json.dumps(QUOTED)}, 'somebody-else']\n",
    ],
    ids=["json", "json in one line", "yaml", "a list"],
)
def test_hiding_takes_values_as_a_program_reads_them(content: str) -> None:
    """Not as they are written: without quotes and escapes, and without what follows them in their line."""
    files = [a_file(content=content)]
    assert hide(f"PASSWORD is {QUOTED}, so", files) == "PASSWORD is ***, so"
    encoded = base64.b64encode(QUOTED.encode()).decode()
    assert hide(f"PASSWORD is {encoded}, so", files) == "PASSWORD is ***, so"


async def test_a_secret_cut_in_two_by_the_bound_is_not_shown(tmp_path: Path) -> None:
    """Hiding makes the output so short that its very beginning, the rest of a secret, would be shown."""
    secret = "a-secret-that-is-long-" * 40
    fd = os.open(tmp_path, os.O_RDONLY)
    program = f"import sys; [print({secret!r}) for _ in range(200)]"
    result = await run_command(
        "c",
        [sys.executable, "-c", program],
        directory_fd=fd,
        environment={},
        seconds=30,
        hide=lambda text: text.replace(secret, "***"),
    )
    os.close(fd)
    assert result.exit_code == 0
    assert "***" in result.output
    assert "secret" not in result.output
