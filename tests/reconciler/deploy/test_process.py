"""Child processes: exact environment, masked and bounded output, and no process left behind."""

import os
import pwd
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from reconciler.deploy.build_user import BuildUser
from reconciler.deploy.output import DEFAULT_MAX_OUTPUT
from reconciler.deploy.process import Completed, StartFailed, run_captured
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from tests.canaries import canary
from tests.reconciler.deploy.processes import is_running, wait_gone

ENV = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
NO_SECRETS = Masker([])

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")


async def run(
    *argv: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109 - passed on to the child
    masker: Masker = NO_SECRETS,
    user: BuildUser | None = None,
    on_line: Callable[[str], None] | None = None,
    max_output: int = DEFAULT_MAX_OUTPUT,
    grace: float = 5.0,
) -> Completed:
    return await run_captured(
        argv,
        cwd=cwd,
        env=ENV if env is None else env,
        timeout=timeout,
        masker=masker,
        user=user,
        on_line=on_line,
        max_output=max_output,
        grace=grace,
    )


async def test_output_and_exit_code(tmp_path: Path) -> None:
    lines: list[str] = []
    done = await run(
        "sh", "-c", "echo one; echo two >&2; printf three; exit 7", cwd=tmp_path, on_line=lines.append
    )
    assert (done.exit_code, done.output, done.timed_out) == (7, "one\ntwo\nthree", False)
    assert lines == ["one", "two", "three"]
    assert done.duration >= 0


async def test_it_runs_in_its_directory_with_nothing_to_read(tmp_path: Path) -> None:
    done = await run("sh", "-c", "pwd -P; cat; echo end", cwd=tmp_path)
    assert done.output == f"{tmp_path}\nend\n"


async def test_the_environment_is_exactly_the_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_MASTER_KEY", canary("primary-only"))
    env = {"PATH": ENV["PATH"], "A": "1", "WITH_LINES": "x\ny", "EMPTY": ""}
    done = await run("env", "-0", cwd=tmp_path, env=env)
    assert sorted(done.output.split("\0")) == sorted([*(f"{k}={v}" for k, v in env.items()), ""])


async def test_a_signal_shows_as_a_negative_exit_code(tmp_path: Path) -> None:
    done = await run("sh", "-c", "kill -USR1 $$", cwd=tmp_path)
    assert done.exit_code == -signal.SIGUSR1


# --- the whole group ends -------------------------------------------------------------------------

# A leader and a grandchild that both refuse to go on SIGTERM, each in the background of a shell.
STUBBORN = """
trap 'echo asked' TERM
sh -c 'trap "" TERM; echo grandchild $$; while :; do sleep 1000 & wait; done' &
echo leader $$
while :; do wait; done
"""


class Watch:
    """Notes the pids that a script prints, and acts on what it says."""

    def __init__(self, **actions: Callable[[], object]) -> None:
        self.pids: dict[str, int] = {}
        self._actions = actions

    def __call__(self, line: str) -> None:
        word, _, number = line.partition(" ")
        if number:
            self.pids[word] = int(number)
        if {"leader", "grandchild"} == self.pids.keys() and number:
            self._actions["ready"]()
        if word in self._actions:
            self._actions[word]()


async def test_a_timeout_ends_the_whole_tree(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    watch = Watch(ready=lambda: mock_clock.jump(60), asked=lambda: mock_clock.jump(5))
    done = await run("sh", "-c", STUBBORN, cwd=tmp_path, timeout=60, grace=5, on_line=watch)
    assert done.timed_out
    assert done.exit_code == -signal.SIGKILL
    assert "asked" in done.output, "SIGTERM comes first"
    assert not is_running(watch.pids["leader"])
    assert await wait_gone(watch.pids["grandchild"])


async def test_a_tree_that_goes_when_asked_is_not_killed(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    # The sleeper says ready itself: before its exec it would still have the shell's handler, and survive.
    script = "trap 'echo tidied up > marker; exit 3' TERM; sh -c 'echo ready; exec sleep 1000' & wait"
    done = await run(
        "sh",
        "-c",
        script,
        cwd=tmp_path,
        timeout=60,
        on_line=lambda line: mock_clock.jump(60) if line == "ready" else None,
    )
    assert done.timed_out
    assert done.exit_code == 3
    assert (tmp_path / "marker").read_text() == "tidied up\n"


async def test_cancellation_ends_the_whole_tree(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    with trio.CancelScope() as scope:
        watch = Watch(ready=scope.cancel, asked=lambda: mock_clock.jump(5))
        await run("sh", "-c", STUBBORN, cwd=tmp_path, grace=5, on_line=watch)
    assert scope.cancelled_caught
    assert not is_running(watch.pids["leader"])
    assert await wait_gone(watch.pids["grandchild"])


@pytest.mark.parametrize("redirect", [">/dev/null 2>&1", ""])
async def test_what_stays_in_the_background_is_ended(tmp_path: Path, redirect: str) -> None:
    done = await run("sh", "-c", f"sleep 1000 {redirect} & echo $!; exit 0", cwd=tmp_path)
    assert (done.exit_code, done.timed_out) == (0, False)
    assert await wait_gone(int(done.output))


async def test_a_process_in_a_session_of_its_own_is_left_and_not_waited_for(tmp_path: Path) -> None:
    script = "setsid sh -c 'echo $$; exec sleep 1000' & while [ ! -e go ]; do sleep 0.01; done"
    done = await run(
        "sh", "-c", script, cwd=tmp_path, grace=0.01, on_line=lambda _: (tmp_path / "go").touch()
    )
    assert done.exit_code == 0
    daemon = int(done.output)
    assert is_running(daemon)
    os.kill(daemon, signal.SIGKILL)
    assert await wait_gone(daemon)


async def test_two_hundred_children_leave_no_descriptor_open(tmp_path: Path) -> None:
    await run("true", cwd=tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        limit = trio.CapacityLimiter(8)

        async def one() -> None:
            async with limit:
                assert (await run("true", cwd=tmp_path)).exit_code == 0

        for _ in range(200):
            nursery.start_soon(one)
    assert len(os.listdir("/proc/self/fd")) == before


# --- output ---------------------------------------------------------------------------------------


async def test_a_secret_is_masked_across_two_writes(tmp_path: Path) -> None:
    secret = canary("two-writes")
    script = """
import os, time
value = os.environ["VALUE"].encode()
os.write(1, b"first\\nbefore " + value[:9])
while not os.path.exists("go"):
    time.sleep(0.005)
os.write(1, value[9:] + b" after\\n")
"""
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        (tmp_path / "go").touch()

    done = await run(
        sys.executable,
        "-c",
        script,
        cwd=tmp_path,
        env={**ENV, "VALUE": secret},
        masker=Masker([Secret(secret)]),
        on_line=on_line,
    )
    assert done.output == "first\nbefore *** after\n"
    assert lines == ["first", "before *** after"]


async def test_a_secret_at_the_very_end_is_masked(tmp_path: Path) -> None:
    secret = canary("at-the-end")
    done = await run(
        "sh",
        "-c",
        'printf "x %s" "$VALUE"',
        cwd=tmp_path,
        env={**ENV, "VALUE": secret},
        masker=Masker([Secret(secret)]),
    )
    assert done.output == "x ***"


async def test_a_secret_of_several_lines_is_masked(tmp_path: Path) -> None:
    secret = f"-----BEGIN KEY-----\n{canary('line-one')}\n{canary('line-two')}\n-----END KEY-----\n"
    done = await run(
        "sh",
        "-c",
        'echo "$VALUE"; echo "$VALUE" | head -2 | tail -1',
        cwd=tmp_path,
        env={**ENV, "VALUE": secret},
        masker=Masker([Secret(secret)]),
    )
    assert canary("line-one") not in done.output
    assert canary("line-two") not in done.output
    assert "***" in done.output


async def test_a_flood_is_kept_in_part(tmp_path: Path) -> None:
    size, limit = 8_000_000, 10_000
    longest, lines = 0, 0

    def on_line(line: str) -> None:
        nonlocal longest, lines
        longest, lines = max(longest, len(line)), lines + 1

    done = await run(
        "sh",
        "-c",
        f"echo the beginning; head -c {size} /dev/zero | tr '\\0' x; echo; echo the end",
        cwd=tmp_path,
        max_output=limit,
        on_line=on_line,
    )
    assert done.exit_code == 0
    assert done.output.startswith("the beginning\nxxx")
    assert done.output.endswith("xxx\nthe end\n")
    assert len(done.output) < limit + 100
    assert "characters left out" in done.output
    assert longest <= 4096
    assert lines >= size // 4096


async def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    done = await run("printf", r"a\377b\303", cwd=tmp_path)
    assert done.output == "a�b�"


# --- starting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        (["no-such-command-here"], ENV, ["cannot start no-such-command-here", "No such file"]),
        (["/etc/passwd"], ENV, ["cannot start /etc/passwd", "Permission denied"]),
        (["true"], {**ENV, "A=B": "x"}, ["variable 'A=B'"]),
        (["true"], {**ENV, "": "x"}, ["variable ''"]),
        (["true"], {**ENV, "NUL": "x\0" + canary("behind-nul")}, ["variable 'NUL'"]),
        (["true"], {**ENV, "HUGE": "x" * 8_000_000}, ["cannot start true", "too long"]),
    ],
)
async def test_what_cannot_be_started(
    tmp_path: Path, argv: list[str], env: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(StartFailed) as raised:
        await run(*argv, cwd=tmp_path, env=env)
    for word in words:
        assert word in str(raised.value)
    assert canary("behind-nul") not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"cannot start true in .*/nowhere: No such file"):
        await run("true", cwd=tmp_path / "nowhere")


@needs_root
async def test_it_runs_as_another_user(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    user = BuildUser("nobody", nobody.pw_uid, nobody.pw_gid, ())
    done = await run("sh", "-c", "id -u; id -g; id -G", cwd=tmp_path, user=user)
    assert done.output.split() == [str(nobody.pw_uid), str(nobody.pw_gid), str(nobody.pw_gid)]
