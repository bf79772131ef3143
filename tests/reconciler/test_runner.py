"""What keeps a running primary running: mistakes are one line, and what should go on begins again."""

from itertools import pairwise

import pytest
import trio
import trio.testing

from reconciler.errors import Problem, SpecInvalid, StepFailed
from reconciler.mishaps import line_for_log
from reconciler.runner import lasting
from tests.canaries import canary


async def test_what_should_go_on_begins_again(autojump_clock: trio.testing.MockClock) -> None:
    began: list[float] = []

    async def breaking() -> None:
        began.append(trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            if len(began) < 4:
                raise ValueError(canary("error-of-ours"))
        await trio.sleep_forever()

    with trio.move_on_after(3600):
        await lasting("something", breaking)
    pauses = [later - earlier for earlier, later in pairwise(began)]
    assert len(began) == 4
    assert all(step / 2 <= pause <= step for pause, step in zip(pauses, (1, 2, 4), strict=True))


def test_the_line_on_an_error() -> None:
    problems = [Problem("trueup.yaml", line, 1, "", "bad") for line in (1, 2)]
    assert line_for_log(SpecInvalid(problems)) == "trueup.yaml:1:1: bad; trueup.yaml:2:1: bad"
    assert line_for_log(StepFailed("it failed", hint="mend it")) == "it failed; mend it"
    with pytest.raises(ValueError) as raised:
        raise ValueError(canary("error-of-ours"))
    line = line_for_log(raised.value)
    assert line.startswith("internal error: ValueError at ") and "test_runner.py:" in line
