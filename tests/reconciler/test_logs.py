"""Logs: masked whatever way a secret gets in, one line an event, ids of the work they belong to."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing

from reconciler.logs import NOISY, NORMAL, QUIET, VERBOSE, Mask, configure_logging, get_logger
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret
from reconciler.tracing import trace
from tests.canaries import canary

SECRET = canary("in-a-log")
MASKER = Masker([Secret(SECRET), Secret(f"{canary('first-line')}\n{canary('second-line')}")])


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    levels = {name: logging.getLogger(name).level for name in NOISY}
    yield
    root.handlers.clear()
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    structlog.reset_defaults()


def start(log_format: str = "json", verbosity: int = NORMAL, mask: Mask = MASKER.mask) -> io.StringIO:
    # pytest's own handlers would print what these tests log, unmasked.
    logging.getLogger().handlers.clear()
    out = io.StringIO()
    configure_logging(
        verbosity=verbosity, log_format="json" if log_format == "json" else "text", mask=mask, stream=out
    )
    return out


def events(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_one_json_object_an_event() -> None:
    out = start()
    get_logger("reconciler.plan").info(
        "planned", steps=3, resource="services/staging/web", ok=True, none=None
    )
    (event,) = events(out)
    assert str(event.pop("timestamp")).endswith("Z")
    assert event == {
        "event": "planned",
        "level": "info",
        "logger": "reconciler.plan",
        "steps": 3,
        "resource": "services/staging/web",
        "ok": True,
        "none": None,
    }


def test_text_is_one_plain_line() -> None:
    out = start("text")
    get_logger("reconciler.plan").info("planned", steps=3)
    (line,) = out.getvalue().splitlines()
    assert "planned" in line
    assert "steps=3" in line
    assert "\x1b" not in line


class Holder:
    """A value whose text holds a secret."""

    def __str__(self) -> str:
        return f"holds {SECRET}"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_secret_is_masked_whatever_way_it_comes(log_format: str) -> None:
    out = start(log_format)
    log = get_logger("reconciler.x")
    log.info(f"in the event {SECRET}")
    log.info("as a value", value=SECRET, other=Secret(SECRET), nested={"a": [SECRET, {SECRET: (SECRET,)}]})
    log.info("positional %s", SECRET)
    log.info("an object", thing=Holder(), data=SECRET.encode(), error=ValueError(SECRET))
    log.info("several lines", value=f"x {canary('first-line')}\n{canary('second-line')} y")
    logging.getLogger("some.library").warning("from a library: %s", SECRET)
    logging.getLogger("some.library").warning("with a bad format %d", SECRET)
    try:
        raise RuntimeError(f"in an exception {SECRET}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("some.library").exception("failed there")
    text = out.getvalue()
    for value in (SECRET, canary("first-line"), canary("second-line")):
        assert value not in text
    assert "in the event ***" in text
    assert "from a library: ***" in text
    assert "in an exception ***" in text
    assert "<" in text and " bytes>" in text


def test_a_bad_log_call_prints_nothing_of_its_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    out = start()
    logging.getLogger("some.library").warning("%d", SECRET)
    captured = capfd.readouterr()
    assert SECRET not in out.getvalue() + captured.out + captured.err


def test_the_mask_may_learn_while_the_process_runs() -> None:
    known: list[Secret] = []
    out = start(mask=lambda text: Masker(known).mask(text))
    known.append(Secret(SECRET))
    get_logger("reconciler.x").info(SECRET)
    assert events(out)[0]["event"] == "***"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_value_cannot_forge_a_line(log_format: str) -> None:
    out = start(log_format)
    get_logger("reconciler.x").info("name\n2026 [info] all is well", resource="a\r\n\x1b[2Jb‮")
    (line,) = out.getvalue().splitlines()
    for character in "\r\x1b‮":
        assert character not in line


def test_a_deep_value_is_cut() -> None:
    value: object = SECRET
    for _ in range(50):
        value = [value]
    out = start()
    get_logger("reconciler.x").info("deep", value=value)
    assert "…" in out.getvalue()


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (QUIET, ["warning"]),
        (NORMAL, ["info", "warning"]),
        (VERBOSE, ["debug", "info", "warning"]),
        (5, ["debug", "info", "warning"]),
    ],
)
def test_levels(verbosity: int, shown: list[str]) -> None:
    out = start(verbosity=verbosity)
    log = get_logger("reconciler.x")
    for level in ("debug", "info", "warning"):
        getattr(log, level)("said")
    assert [event["level"] for event in events(out)] == shown


@pytest.mark.parametrize("name", NOISY)
def test_libraries_only_warn(name: str) -> None:
    out = start(verbosity=VERBOSE)
    child = logging.getLogger(f"{name}.inner")
    child.info("chatter")
    child.warning("trouble")
    assert [event["event"] for event in events(out)] == ["trouble"]


def test_configuring_again_does_not_double_lines() -> None:
    start()
    out = io.StringIO()
    configure_logging(log_format="json", mask=MASKER.mask, stream=out)
    get_logger("reconciler.x").info("once")
    assert len(events(out)) == 1


async def test_traces_follow_child_tasks_and_do_not_mix() -> None:
    out = start()
    log = get_logger("reconciler.x")
    inner: dict[str, str] = {}

    async def step(resource: str) -> None:
        with trace(resource=resource) as trace_id:
            inner[resource] = trace_id
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(lambda: log.info("worked"))

    with trace(run="1") as outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, "services/a")
            nursery.start_soon(step, "services/b")
    log.info("after")
    *worked, after = events(out)
    assert {event["resource"] for event in worked} == {"services/a", "services/b"}
    assert {event["run"] for event in worked} == {"1"}
    assert {event["trace"] for event in worked} == {outer} == set(inner.values())
    assert "trace" not in after
    assert "resource" not in after
