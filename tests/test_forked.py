"""Commands that are forked do what commands that are started do."""

from pathlib import Path

import pytest
import trio

from tests.forked import can_fork, run_forked
from tests.gitrepo import git_environment
from tests.world import World, make_world

COMMANDS = {
    "help": ["--help"],
    "no such command": ["no-such-command"],
    "no such option": ["plan", "--no-such-option"],
    "a plan without a spec": ["plan", "-o", "json"],
    "the key": ["key", "show"],
}


async def started(world: World, arguments: list[str]) -> tuple[int, str, str]:
    ran = await world.run(["-m", "reconciler", *arguments])
    return ran.exit_code, ran.stdout, ran.stderr


async def test_a_forked_command_says_what_a_started_one_says(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        assert can_fork(world.environment)
        for name, arguments in COMMANDS.items():
            ran = await world.trueup(*arguments, expect=None)
            assert (ran.exit_code, ran.stdout, ran.stderr) == await started(world, arguments), name


async def test_many_at_once_keep_their_own(tmp_path: Path) -> None:
    """Each has its own directory, environment and output, and leaves nothing to the next."""
    said: dict[int, tuple[int, bytes, bytes]] = {}

    async def show(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        variables = {"TRUEUP_STATE_DIR": f"state-{number}"} if number else {}
        environment = {**git_environment(), **variables, "TRUEUP_SPEC_REPO": "/nowhere.git"}
        arguments = ["key", "new"] if number else ["key", "--no-such-option"]
        said[number] = await run_forked(arguments, environment=environment, cwd=directory)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(show, number)
    assert {number: code for number, (code, _, _) in said.items()} == {0: 1, **dict.fromkeys(range(1, 6), 0)}
    keys = {(tmp_path / f"{number}/state-{number}/master.key").read_bytes() for number in range(1, 6)}
    assert len(keys) == 5


def forked_now() -> str:
    """The numbers of the processes that were forked and have not ended."""
    children = Path("/proc/thread-self/children").read_text().split()
    [server] = [pid for pid in children if b"tests.forked" in Path("/proc", pid, "cmdline").read_bytes()]
    return Path("/proc", server, "task", server, "children").read_text()


async def test_one_that_is_given_up_ends(tmp_path: Path) -> None:
    """`trueup serve` would go on for ever."""
    async with make_world(tmp_path) as (world, _):
        variables = {**world.environment, "TRUEUP_HTTP_ADDR": "127.0.0.1:0"}
        for _ in range(3):
            with trio.move_on_after(0) as given_up:
                await run_forked(["serve"], environment=variables, cwd=tmp_path)
            assert given_up.cancelled_caught
            assert forked_now() == ""
        assert (await world.trueup("key", "show")).exit_code == 0


@pytest.mark.parametrize(("name", "answer"), [("PATH", True), ("LC_ALL", True), ("PYTHONPATH", False)])
def test_what_decides_how_python_starts_is_not_forked(name: str, answer: bool) -> None:
    assert can_fork({name: "C"}) is answer
