"""Whatever is printed, logged, raised, pickled or copied: no value is in it."""

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from reconciler.errors import TrueupError
from reconciler.secrets.credentials import FileData
from reconciler.secrets.env_file import EnvFileSource
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.infisical_answers import Entry, OidcLogin, Token, UniversalLogin
from reconciler.secrets.merge import merge
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import Secret
from reconciler.spec.model import EnvCredential, SecretUse
from tests.canaries import canary, redact, search_text
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import Fault, InfisicalDouble
from tests.reconciler.secrets.sources import context_for, env_file, infisical, store_of, write_env_file

VALUE = canary("leaks")


def ways_to_print(thing: object) -> Iterator[str]:
    yield repr(thing)
    yield str(thing)
    yield f"{thing} {thing!r} {thing:>5}" if isinstance(thing, Secret) else f"{thing} {thing!r}"
    yield "%s %r" % (thing, thing)  # noqa: UP031 - this is what is tested
    yield repr([thing]) + repr({"x": thing})
    yield json.dumps(thing, default=str, skipkeys=True)
    attempts: tuple[Callable[..., object], ...] = (pickle.dumps, copy.copy, copy.deepcopy, vars)
    for attempt in attempts:
        yield repr(outcome_of(attempt, thing))
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield repr(outcome_of(dataclasses.fields, thing)) + repr(outcome_of(dataclasses.astuple, thing))


def outcome_of(attempt: Callable[..., object], thing: object) -> object:
    """What an attempt gives, or the error that it ends in; both get printed."""
    try:
        return attempt(thing)
    except Exception as error:
        return "".join(traceback.format_exception(error))


def assert_silent(*texts: str) -> None:
    for text in texts:
        assert search_text(text, "printed") == [], redact(text)


def printed_error(error: BaseException) -> str:
    """As a crash report would have it: with all that it is chained to, and our frames' variables."""
    parts = []
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop()
        parts += [repr(one), str(one), repr(one.args), repr(vars(one))]
        parts += traceback.format_exception(one)
        frames = traceback.TracebackException.from_exception(one, capture_locals=True).stack
        parts += [repr(frame.locals) for frame in frames if "/tests/" not in frame.filename]
        waiting += [linked for linked in (one.__cause__, one.__context__) if linked is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return "\n".join(parts)


async def test_every_object_on_the_way(double: InfisicalDouble, tmp_path: Path) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    context = context_for(double)
    store = store_of(context, infisical(double))
    values = await store.values("prod", "production")
    merged = merge(env={}, secrets=[(SecretUse(source="prod"), values)], environ={"MORE": VALUE})
    things: list[object] = [
        Secret(VALUE),
        values,
        values["KEY"],
        store,
        *vars(store).values(),
        *store._cache.entries.values(),
        *vars(store._cache).values(),
        *store._sources.values(),
        store.freshness(),
        context,
        context.credentials,
        Token(Secret(VALUE), 1.0),
        UniversalLogin(Secret(VALUE), Secret(VALUE)),
        OidcLogin(Secret(VALUE), Secret(VALUE)),
    ]
    for thing in things:
        assert_silent(*ways_to_print(thing))
    # These hold plain text by their nature; they show none of it.
    for plain in (merged, Entry("K", VALUE, "shared", False, "/"), FileData(VALUE.encode(), 0o600)):
        assert_silent(repr(plain), str(plain), f"{plain}")


def scripted_faults() -> Iterator[tuple[str, str, Fault]]:
    echo = json.dumps({"secrets": [{"secretKey": "K", "secretValue": VALUE}], "imports": []}).encode()
    token = json.dumps({"accessToken": VALUE, "expiresIn": "soon"}).encode()
    for on in ("login", "list"):
        for status in (400, 401, 403, 404, 422, 429, 500, 502):
            yield f"{status} at {on}", on, faults.api_error(status, VALUE, [VALUE])
        yield f"a page at {on}", on, faults.html()
        yield f"a cut answer at {on}", on, Fault(200, echo, cut=True)
        yield f"a redirect at {on}", on, Fault(302, headers=(("Location", f"http://127.0.0.1/{VALUE}"),))
        yield f"missing fields at {on}", on, Fault(200, echo)
        yield f"wrong types at {on}", on, Fault(200, token)


@pytest.mark.parametrize(("on", "fault"), [pytest.param(on, f, id=name) for name, on, f in scripted_faults()])
async def test_errors_and_logs_of_infisical(
    double: InfisicalDouble, caplog: pytest.LogCaptureFixture, on: faults.On, fault: Fault
) -> None:
    caplog.set_level(logging.DEBUG)
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    double.fail_with(fault, on=on, times=5)
    store = store_of(context_for(double), infisical(double))
    with pytest.raises(TrueupError) as caught:
        await store.values("prod", "production")
    assert_silent(printed_error(caught.value), caplog.text, *(repr(vars(one)) for one in caplog.records))
    source = InfisicalSource(infisical(double), context_for(double))
    with pytest.raises(TrueupError) as direct:
        await source.fetch("production")
    assert direct.value.__cause__ is direct.value.__context__ is None
    assert_silent(printed_error(direct.value))


@pytest.mark.parametrize("hidden", [True, False])
async def test_errors_about_values(double: InfisicalDouble, hidden: bool) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE, "BAD": f"{VALUE}${{NOWHERE}}"}
    double.hidden = {"BAD"} if hidden else set()
    source = InfisicalSource(infisical(double), context_for(double))
    with pytest.raises(TrueupError, match="BAD") as caught:
        await source.fetch("production")
    assert_silent(printed_error(caught.value))


async def test_a_wrong_credential_is_in_no_error(double: InfisicalDouble) -> None:
    environ = {"ID": canary("id"), "SECRET": canary("wrong")}
    source = InfisicalSource(infisical(double), SourceContext.from_environ(environ))
    with pytest.raises(TrueupError, match="refused the login") as caught:
        await source.fetch("production")
    assert_silent(printed_error(caught.value))
    token = infisical(double, auth="token", token=EnvCredential(name="ID"))
    with pytest.raises(TrueupError, match="does not accept the token") as caught:
        await InfisicalSource(token, SourceContext.from_environ(environ)).fetch("production")
    assert_silent(printed_error(caught.value))


@pytest.mark.parametrize("text", ["A='{}\n", "{}\n", "A=1\n{} x\n"])
async def test_errors_about_env_files(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    caplog.set_level(logging.DEBUG)
    path = write_env_file(tmp_path / ".env", text.format(VALUE), 0o644)
    with pytest.raises(TrueupError) as caught:
        await EnvFileSource(env_file(path), SourceContext.from_environ({})).fetch("production")
    assert_silent(printed_error(caught.value), caplog.text)


async def test_errors_of_merging(double: InfisicalDouble) -> None:
    double.secrets[double.project, "prod", "/"] = {"KEY": f"{VALUE}\0", "bad-name": VALUE}
    store: SecretStore = store_of(context_for(double), infisical(double))
    values = await store.values("prod", "production")
    for use in (SecretUse(source="prod", keys=("KEY",)), SecretUse(source="prod", keys=("bad-name",))):
        with pytest.raises(VariableUnusable) as caught:
            merge(env={}, secrets=[(use, values)], environ={})
        assert_silent(printed_error(caught.value))


def test_the_search_would_find_them() -> None:
    assert search_text(quote(f"<{VALUE}>"), "here") != []
