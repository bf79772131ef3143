"""The value type shows its mask to everything that prints, serialises, copies or reports a crash."""

import copy
import dataclasses
import faulthandler
import io
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import structlog
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from reconciler.logs import configure_logging
from reconciler.secrets.values import MASK, Masked, Plain, Secret, SecretValue
from tests.canaries import canary, redact, search_text

VALUE = canary("the-type")
SECRET = Secret(VALUE)


@dataclasses.dataclass
class Holder:
    secret: Secret
    number: int = 1


def silent(text: str) -> str:
    assert search_text(text, "printed") == [], redact(text)
    return text


def failure(function: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(repr(SECRET), id="repr"),
        pytest.param(str(SECRET), id="str"),
        pytest.param(f"{SECRET}", id="f-string"),
        pytest.param(f"{SECRET!r}", id="f-string with repr"),
        pytest.param(f"{SECRET!s}", id="f-string with str"),
        pytest.param(f"{SECRET!a}", id="f-string with ascii"),
        pytest.param("{}".format(SECRET), id="format"),  # noqa: UP032 - this is what is tested
        pytest.param("%s" % SECRET, id="percent s"),  # noqa: UP031
        pytest.param("%r" % SECRET, id="percent r"),  # noqa: UP031
        pytest.param(json.loads(json.dumps(SECRET, default=str)), id="json with default=str"),
        pytest.param(json.loads(json.dumps(SECRET, default=repr)), id="json with default=repr"),
        pytest.param(msgspec.json.decode(msgspec.json.encode(SECRET, enc_hook=str)), id="msgspec"),
        pytest.param(pretty_repr(SECRET), id="rich"),
        pytest.param(repr(pickle.loads(pickle.dumps(SECRET))), id="pickle"),
    ],
)
def test_it_shows_the_mask(shown: str) -> None:
    assert shown == MASK


def test_a_format_works_on_the_mask() -> None:
    assert f"{SECRET:>6}|{SECRET:<5}|{SECRET:.1}" == "   ***|***  |*"
    silent(str(failure(lambda: f"{SECRET:d}")))


@pytest.mark.parametrize(
    "serialise",
    [
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        msgspec.to_builtins,
        lambda secret: json.dumps({"a": [secret]}),
        lambda secret: json.dumps({secret: 1}),
        vars,
    ],
)
def test_what_does_not_know_it_refuses_it(serialise: Callable[[object], object]) -> None:
    error = failure(lambda: serialise(SECRET))
    assert isinstance(error, TypeError)
    silent("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_has_the_mask_alone(protocol: int) -> None:
    data = pickle.dumps({"secret": SECRET, "holder": Holder(SECRET)}, protocol)
    silent(data.decode("latin-1"))
    back = pickle.loads(data)
    assert isinstance(back["secret"], Masked)
    assert str(back) == "{'secret': ***, 'holder': Holder(secret=***, number=1)}"
    with pytest.raises(TypeError, match="only its mask"):
        back["secret"].reveal()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_secret_itself(duplicate: Callable[[Secret], Secret]) -> None:
    assert duplicate(SECRET) is SECRET
    assert copy.deepcopy(Holder(SECRET)) == Holder(SECRET)


def test_inside_other_objects() -> None:
    holder = Holder(SECRET)
    value = SecretValue("KEY", SECRET, "prod", "infisical", False, datetime.now(UTC), "vault")
    for thing in (holder, value, [SECRET], {"a": (SECRET,)}, {SECRET}, {SECRET: SECRET}):
        assert MASK in silent(f"{thing} {thing!r} {pretty_repr(thing)}")
    assert silent(repr(dataclasses.asdict(holder))) == "{'secret': ***, 'number': 1}"
    assert silent(repr(dataclasses.astuple(holder))) == "(***, 1)"
    assert silent(repr(dataclasses.replace(holder, number=2))) == "Holder(secret=***, number=2)"
    silent(str(failure(lambda: msgspec.json.encode(holder))))


def test_values_in_the_clear_show_names_only() -> None:
    plain = Plain({"KEY": VALUE, "OTHER": "x"})
    assert json.loads(json.dumps(plain)) == dict(plain)
    assert silent(f"{plain}") == "Plain(names=('KEY', 'OTHER'))"
    assert "KEY" in silent(f"{plain!r} {pretty_repr(plain)} {pretty_repr([plain])}")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        silent(str(failure(lambda attempt=attempt: attempt(plain))))  # type: ignore[misc]


def raise_with_it(secret: Secret, holder: Holder) -> None:
    everything = {"secret": secret, "list": [secret, holder], "plain": Plain(KEY=secret.reveal())}
    assert everything
    error = ValueError("went wrong with", secret, holder)
    error.add_note(f"it was {secret}")
    raise error


@pytest.fixture
def crash() -> BaseException:
    return failure(lambda: raise_with_it(SECRET, Holder(SECRET)))


def test_an_exception_that_holds_it(crash: BaseException) -> None:
    assert silent(str(crash)) == "('went wrong with', ***, Holder(secret=***, number=1))"
    silent(repr(crash))
    silent("".join(traceback.format_exception(crash)))
    silent("".join(traceback.format_exception(ExceptionGroup("several", [ValueError(SECRET)]))))


def test_a_traceback_with_local_variables(crash: BaseException) -> None:
    report = "".join(traceback.TracebackException.from_exception(crash, capture_locals=True).format())
    assert "everything = " in silent(report)


def test_rich_s_traceback_with_local_variables(crash: BaseException) -> None:
    out = io.StringIO()
    report = Traceback.from_exception(type(crash), crash, crash.__traceback__, show_locals=True)
    Console(file=out, width=200).print(report)
    assert "everything" in silent(out.getvalue())


def test_a_dump_of_the_interpreter(tmp_path: Path) -> None:
    def dump(secret: Secret, plain: str) -> None:
        assert secret.reveal() == plain
        with (tmp_path / "dump").open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)

    dump(SECRET, VALUE)
    assert "in dump" in silent((tmp_path / "dump").read_text())


@pytest.fixture
def unconfigured() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.usefixtures("unconfigured")
def test_logs_without_a_net(log_format: str, crash: BaseException) -> None:
    """No mask is given here: the type alone keeps the value out."""
    out = io.StringIO()
    configure_logging(log_format="json" if log_format == "json" else "text", stream=out)
    log, old = structlog.stdlib.get_logger("new"), logging.getLogger("old")
    log.info("event", secret=SECRET, holder=Holder(SECRET), nested={"a": [SECRET]})
    log.info("percent %s %r", SECRET, Holder(SECRET))
    old.warning("args %s %r %s", SECRET, [SECRET], {"a": SECRET})
    old.warning("extra", extra={"secret": SECRET})
    try:
        raise crash
    except ValueError:
        log.exception("structlog's", secret=SECRET)
        old.exception("logging's %s", SECRET)
    shown = silent(out.getvalue())
    assert shown.count("went wrong with") >= 2
    assert shown.count(MASK) >= 10


@pytest.mark.parametrize("renderer", [structlog.dev.ConsoleRenderer(), structlog.processors.JSONRenderer()])
@pytest.mark.usefixtures("unconfigured")
def test_structlog_as_others_set_it_up(
    renderer: structlog.typing.Processor, capsys: pytest.CaptureFixture[str], crash: BaseException
) -> None:
    rich_or_dicts = (
        [structlog.processors.dict_tracebacks]
        if isinstance(renderer, structlog.processors.JSONRenderer)
        else []
    )
    structlog.configure(processors=[*rich_or_dicts, renderer])
    structlog.get_logger().info("event", secret=SECRET, holder=Holder(SECRET))
    try:
        raise crash
    except ValueError:
        structlog.get_logger().exception("failed", secret=SECRET)
    captured = capsys.readouterr()
    assert "everything" in silent(captured.out + captured.err)
