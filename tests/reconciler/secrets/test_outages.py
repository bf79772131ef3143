"""What each way of failing leads to: one table, which `docs/secrets.md` shows and a test compares with it.

Each case goes through the same: a list is fetched, it expires, and from then on the source fails in one way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from reconciler.errors import SecretSourceUnavailable
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.infisical_answers import HIDDEN
from reconciler.secrets.source import HttpTimeouts
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import Fault, InfisicalDouble
from tests.reconciler.secrets.sources import context_for, env_file, infisical, store_of, write_env_file

DOC = Path(__file__).parents[3] / "docs/secrets.md"
HEAD = (
    "Infisical …",
    "counts as",
    "until `max_stale`",
    "after that, or at a start",
    "asked again after",
    "reach it: lists, logins",
    "causes a step",
)
VALUE, LOCAL = canary("outage"), canary("outage-fallback")
CACHE_TTL, MAX_STALE = 60.0, 600.0
ALWAYS = 1000


@dataclass(frozen=True)
class Case:
    """One way of failing and what is documented of it."""

    what: str
    fail: Callable[[InfisicalDouble], None]
    error: type[SecretSourceUnavailable]
    message: str
    """In the error, the log and the source's status."""
    again: float = 1.0
    """Seconds from the first failure to the next call."""
    lists: int = 1
    logins: int = 0
    """How many arrive at the server for one read."""
    hangs: bool = False

    @property
    def row(self) -> tuple[str, ...]:
        return (
            self.what,
            "outage" if self.error is SourceDown else "refusal",
            "old value",
            "fallback, else failure",
            f"{self.again:g} s",
            f"{self.lists}, {self.logins}",
            "no",
        )


def answering(fault: Fault, on: faults.On = "list") -> Callable[[InfisicalDouble], None]:
    return lambda double: double.fail_with(fault, on=on, times=ALWAYS)


def close(double: InfisicalDouble) -> None:
    double.close()


def refuse_logins(double: InfisicalDouble) -> None:
    double.revoke_tokens()
    double.fail_with(faults.api_error(401, "UnauthorizedError", "no"), on="login", times=ALWAYS)


def empty(double: InfisicalDouble) -> None:
    double.secrets[double.project, "prod", "/"] = {}


def hide(double: InfisicalDouble) -> None:
    double.hidden = {"KEY"}


def refer_to_nothing(double: InfisicalDouble) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": "${NOWHERE}"}


HALF = Fault(200, b'{"secrets": [{"secretKey": "KEY", "secretValue": "x"}], "imports": []}', cut=True)
MOVED = Fault(302, headers=(("Location", "http://127.0.0.1/"),))

CASES = (
    Case("is down: no connection", close, SourceDown, "it cannot be reached", lists=0),
    Case("hangs", answering(faults.held()), SourceDown, "no answer within 60 s", hangs=True),
    Case("answers 500, or another 5xx", answering(faults.server_error()), SourceDown, "status 500"),
    Case(
        "answers 429 with a wait of 30 s",
        answering(faults.too_many_requests(30)),
        SourceDown,
        "it asks to wait 30 s",
        again=30.0,
    ),
    Case("answers 200 with HTML", answering(faults.html()), SourceDown, "not with what Infisical's API"),
    Case("sends half a list: the connection is cut", answering(HALF), SourceDown, "the connection broke"),
    Case("answers with an empty list", empty, SourceDown, "it gave no secrets"),
    Case(
        "answers 401 at the list",
        answering(faults.api_error(401, "UnauthorizedError", "no")),
        SourceRefused,
        "status 401",
        lists=2,
        logins=1,
    ),
    Case(
        "answers 403 `TokenError` at the list",
        answering(faults.api_error(403, "TokenError", "no")),
        SourceRefused,
        "status 403 TokenError",
        lists=2,
        logins=1,
    ),
    Case(
        "answers 401 at the login",
        refuse_logins,
        SourceRefused,
        "it refused the login",
        again=300.0,
        logins=1,
    ),
    Case(
        "answers 403 `PermissionDenied`",
        answering(faults.api_error(403, "PermissionDenied", "no")),
        SourceRefused,
        "status 403 PermissionDenied",
    ),
    Case("answers 404", answering(faults.api_error(404, "NotFound", "no")), SourceRefused, "status 404"),
    Case("answers 400 or 422", answering(faults.invalid_request()), SourceRefused, "status 422"),
    Case("redirects", answering(MOVED), SourceRefused, "it redirects to another address"),
    Case("hides a value", hide, SourceRefused, "it hides the value of KEY"),
    Case("leaves a reference `${…}`", refer_to_nothing, SourceRefused, "is left unresolved in KEY"),
)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)


@dataclass
class Outage:
    case: Case
    double: InfisicalDouble
    store: SecretStore
    clock: MockClock
    failing: bool = False

    def begin(self) -> None:
        self.failing = True
        self.case.fail(self.double)

    async def read(self) -> Mapping[str, SecretValue] | SecretSourceUnavailable:
        """One read; where the source hangs, the time is let pass that it may take."""
        found: list[Mapping[str, SecretValue] | SecretSourceUnavailable] = []

        async def read() -> None:
            try:
                found.append(await self.store.values("prod", "production"))
            except SecretSourceUnavailable as error:
                found.append(error)

        calls = self.double.calls("list")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while not found:
                await trio.lowlevel.checkpoint()
                if self.failing and self.case.hangs and self.double.calls("list") > calls:
                    self.clock.jump(HttpTimeouts().total)
                    calls += 1
        return found[0]

    async def value(self) -> SecretValue:
        values = await self.read()
        assert isinstance(values, Mapping), values
        return values["KEY"]

    @property
    def reached(self) -> tuple[int, int]:
        return self.double.calls("list"), self.double.calls("login")


@pytest.fixture
def outage(double: InfisicalDouble, mock_clock: MockClock, case: Case) -> Outage:
    """Not failing yet."""
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    source = infisical(double, cache_ttl=CACHE_TTL, max_stale=MAX_STALE)
    return Outage(case, double, store_of(context_for(double), source), mock_clock)


@pytest.fixture
def cold(double: InfisicalDouble, mock_clock: MockClock, case: Case, tmp_path: Path) -> Outage:
    """With a fallback, and nothing fetched before."""
    local = env_file(write_env_file(tmp_path / "local.env", f"KEY={LOCAL}\n"))
    source = infisical(double, fallback=("local",))
    return Outage(case, double, store_of(context_for(double), source, local), mock_clock)


@each_case
async def test_an_old_value_serves_until_max_stale(outage: Outage, mock_clock: MockClock) -> None:
    case, clock = outage.case, outage.clock
    assert not (await outage.value()).is_stale
    fetched, before = trio.current_time(), outage.reached
    clock.jump(CACHE_TTL + 1)
    outage.begin()
    # However many read: one call, an old value, and nothing that it could cause.
    for _ in range(3):
        value = await outage.value()
        assert value.value.reveal() == VALUE
        assert (value.is_stale, value.may_cause_change) == (True, False)
    assert outage.reached == (before[0] + case.lists, before[1] + case.logins)
    status = outage.store.freshness()["prod"]
    assert status.state is SourceState.STALE
    assert case.message in (status.error or "")
    # The next call, not before its time.
    failed, reached = trio.current_time(), outage.reached
    clock.jump(case.again - 0.01)
    await outage.value()
    assert outage.reached == reached
    clock.jump(0.02)
    await outage.value()
    assert trio.current_time() >= failed + case.again
    if case.lists:
        assert outage.reached > reached
    # To the end of max_stale and no further, whether or not it is asked again by then.
    clock.jump(max(0.0, fetched + MAX_STALE - trio.current_time()) + 0.01)
    error = await outage.read()
    assert type(error) is case.error
    assert case.message.split(" s")[0] in str(error) or "no further login" in str(error)
    assert "\n" not in str(error)


@each_case
async def test_at_a_start_the_fallback_serves_and_causes_nothing(cold: Outage, mock_clock: MockClock) -> None:
    cold.begin()
    value = await cold.value()
    assert value.value.reveal() == LOCAL
    assert (value.origin, value.is_fallback, value.may_cause_change) == ("local", True, False)
    assert cold.store.freshness()["prod"].state is SourceState.FALLBACK


@each_case
async def test_at_a_start_without_a_fallback_it_fails(outage: Outage, mock_clock: MockClock) -> None:
    outage.begin()
    error = await outage.read()
    assert type(error) is outage.case.error
    assert error.reason == "SecretFetchFailed"
    assert outage.store.freshness()["prod"].state is SourceState.FAILED


@pytest.mark.parametrize("case", [one for one in CASES if one.fail is not close], ids=lambda case: case.what)
async def test_a_recovery_is_noticed_at_the_next_call(outage: Outage, mock_clock: MockClock) -> None:
    case, double = outage.case, outage.double
    await outage.value()
    outage.clock.jump(CACHE_TTL + 1)
    outage.begin()
    assert (await outage.value()).is_stale
    double.recover()
    double.release()
    double.hidden = set()
    double.secrets[double.project, "prod", "/"] = {"KEY": canary("recovered")}
    outage.clock.jump(case.again + 0.01)
    outage.failing = False
    value = await outage.value()
    assert value.value.reveal() == canary("recovered")
    assert value.may_cause_change


def test_the_documentation_has_the_same_table() -> None:
    def cells(line: str) -> tuple[str, ...]:
        return tuple(cell.strip() for cell in line.strip("|").split("|"))

    lines = [line for line in DOC.read_text().splitlines() if line.startswith("|")]
    start = lines.index(next(line for line in lines if cells(line) == HEAD))
    rows = [cells(line) for line in lines[start + 2 : start + 2 + len(CASES)]]
    expected = [case.row for case in CASES]
    assert rows == expected, "\n".join("| " + " | ".join(row) + " |" for row in (HEAD, *expected))


def test_the_double_hides_values_as_the_server_does() -> None:
    assert faults.HIDDEN == HIDDEN
