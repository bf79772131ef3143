"""One Infisical source through the real SDK: what it reads, what it refuses, and what each fault becomes."""

import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from reconciler.errors import SecretSourceUnavailable
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical_answers import Entry, collect
from reconciler.secrets.source import HttpTimeouts
from reconciler.secrets.values import Secret
from reconciler.spec.model import InfisicalSettings
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import Fault, Import, InfisicalDouble
from tests.reconciler.secrets.sources import context_for, fetched, place, source_of

# --- what it reads -----------------------------------------------------------------------------


async def test_imports_are_merged_own_first_then_the_last_import(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"OWN": "own"}
    double.secrets[place(double, "/a")] = {"OWN": "a", "BOTH": "a", "A": "a"}
    double.secrets[place(double, "/b")] = {"OWN": "b", "BOTH": "b"}
    double.imports = [Import(place(double), place(double, "/a")), Import(place(double), place(double, "/b"))]
    assert await fetched(source_of(double)) == {"OWN": "own", "BOTH": "b", "A": "a"}


async def test_a_folder_with_imports_alone_is_not_empty(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {}
    double.secrets[place(double, "/a")] = {"A": "a"}
    double.imports = [Import(place(double), place(double, "/a"))]
    assert await fetched(source_of(double)) == {"A": "a"}


async def test_personal_secrets_are_left_out(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"KEY": "shared"}
    double.personal[place(double)] = {"KEY": "personal", "MINE": "personal"}
    assert await fetched(source_of(double)) == {"KEY": "shared"}


async def test_recursion_reads_folders_below(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.secrets[place(double, "/x/y")] = {"B": "2"}
    assert await fetched(source_of(double)) == {"A": "1"}
    assert await fetched(source_of(double, recursive=True)) == {"A": "1", "B": "2"}


async def test_recursion_refuses_one_key_with_two_values(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.secrets[place(double, "/x")] = {"A": "2"}
    with pytest.raises(SourceRefused, match="the key A stands in / and in /x with different values"):
        await source_of(double, recursive=True).fetch("production")


async def test_the_list_is_asked_for_with_its_flags(double: InfisicalDouble) -> None:
    double.secrets[place(double, "/x")] = {"A": "1"}
    double.tags = {"A": {"two"}}
    await source_of(double, secret_path="/x", tags=("one", "two")).fetch("production")
    asked = double.requests[-1].query
    assert asked == {
        "workspaceId": double.project,
        "environment": "prod",
        "secretPath": "/x",
        "viewSecretValue": "true",
        "expandSecretReferences": "true",
        "recursive": "false",
        "include_imports": "true",
        "tagSlugs": "one,two",
    }


async def test_the_api_s_own_address_is_understood(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    assert await fetched(source_of(double, host=f"{double.url}/api/")) == {"A": "1"}


# --- what must not be used ---------------------------------------------------------------------


async def test_a_hidden_value_is_refused_by_name(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1", "B": "2"}
    double.hidden = {"B"}
    with pytest.raises(SourceRefused, match="hides the value of B;"):
        await source_of(double).fetch("production")


def test_a_hidden_value_that_nobody_gets_does_no_harm() -> None:
    settings = InfisicalSettings(project_id="p", environment_slug="prod")
    imported = [Entry("A", "<hidden-by-infisical>", "shared", hidden=True, path="/a")]
    answer = collect([Entry("A", "own", "shared", hidden=False, path="/")], [imported], settings)
    assert answer == {"A": Secret("own")}


@pytest.mark.parametrize(
    "left", ["${NOWHERE}", "${dev.db.PASSWORD}", "x${@other.dev.KEY}", "${slug::dev.KEY}"]
)
async def test_a_leftover_reference_is_refused_by_name(double: InfisicalDouble, left: str) -> None:
    double.secrets[place(double)] = {"GOOD": "1", "BAD": left}
    with pytest.raises(SourceRefused, match=r"a reference \$\{\.\.\.\} is left unresolved in BAD;"):
        await source_of(double).fetch("production")


@pytest.mark.parametrize("value", ["$HOME", "${VAR:-default}", "${}", "$(x)"])
async def test_what_is_no_reference_stays(double: InfisicalDouble, value: str) -> None:
    double.secrets[place(double)] = {"KEY": value}
    assert await fetched(source_of(double)) == {"KEY": value}


# --- faults ------------------------------------------------------------------------------------

DOWN: dict[str, tuple[Fault, str]] = {
    "too many requests": (faults.too_many_requests(30), r"too many requests \(status 429 RateLimitError\)"),
    "500": (faults.server_error(), r"it has a fault \(status 500 InternalServerError\)"),
    "502 of a proxy": (Fault(502, b"<html>bad gateway", "text/html"), r"it has a fault \(status 502\)"),
    "HTML with 200": (faults.html(), "not with what Infisical's API answers"),
    "a list with 200": (Fault(200, b"[]"), "not with what Infisical's API answers"),
    "a list without its fields": (Fault(200, b'{"secrets": [{"secretKey": "A"}]}'), "not with what"),
    "a null for the list": (Fault(200, b'{"secrets": null}'), "not with what"),
    "deep nesting": (Fault(200, b"[" * 200_000), "not with what"),
    "cut in the middle": (Fault(200, b'{"secrets": [], "imports": []}', cut=True), "the connection broke"),
}
REFUSED: dict[str, tuple[Fault, str]] = {
    "422 with a list": (faults.invalid_request(), r"does not accept the request \(status 422 Validation"),
    "400": (faults.api_error(400, "BadRequest", canary("echo")), r"does not accept the request \(status 400"),
    "403": (
        faults.api_error(403, "PermissionDenied", canary("echo")),
        r"no right to read this \(status 403 Perm",
    ),
    "404": (
        faults.api_error(404, "NotFound", canary("echo")),
        r"knows no such project.*\(status 404 NotFound\)",
    ),
    "a redirect": (
        Fault(307, headers=(("Location", "http://127.0.0.1:9/"),)),
        "redirects to another address",
    ),
    "an error that is a list": (Fault(418, b'["x"]'), r"does not accept the request \(status 418\)"),
}


@pytest.mark.parametrize("name", DOWN)
async def test_an_outage(double: InfisicalDouble, name: str) -> None:
    fault, text = DOWN[name]
    double.secrets[place(double)] = {"KEY": "value"}
    double.fail_with(fault)
    source = source_of(double)
    with pytest.raises(SourceDown, match=text) as caught:
        await source.fetch("production")
    assert str(caught.value).startswith(f"secret source prod: {double.url}: ")
    assert "\n" not in str(caught.value)
    assert double.calls("list") == 1, "one attempt: waiting and trying again is the store's"
    assert await fetched(source) == {"KEY": "value"}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal(double: InfisicalDouble, name: str) -> None:
    fault, text = REFUSED[name]
    double.secrets[place(double)] = {"KEY": "value"}
    double.fail_with(fault)
    with pytest.raises(SourceRefused, match=text) as caught:
        await source_of(double).fetch("production")
    assert caught.value.retryable is False
    assert canary("echo") not in str(caught.value)
    assert double.calls("list") == 1


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (faults.too_many_requests(30), 30.0),
        (faults.api_error(429, "RateLimitError", "Rate limit exceeded, retry in 1 minute"), 60.0),
        (faults.api_error(429, "RateLimitError", "slow down", Retry_After="17"), 17.0),
        (faults.api_error(503, "Unavailable", "", Retry_After="5"), 5.0),
        (faults.api_error(429, "RateLimitError", "try again in 999999 seconds"), 3600.0),
        (faults.api_error(429, "RateLimitError", "slow down"), None),
    ],
)
async def test_a_waiting_time_is_honoured(
    double: InfisicalDouble, fault: Fault, seconds: float | None
) -> None:
    double.fail_with(fault)
    with pytest.raises(SourceDown) as caught:
        await source_of(double).fetch("production")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("legacy", [True, False])
async def test_a_wrong_slug_is_never_an_empty_source(double: InfisicalDouble, legacy: bool) -> None:
    double.secrets[place(double)] = {"KEY": "value"}
    double.empty_for_unknown = legacy
    with pytest.raises(SecretSourceUnavailable) as caught:
        await source_of(double, environment_slug="production").fetch("production")
    assert caught.value.retryable is legacy, "an empty list proves nothing, a 404 is an answer"


async def test_nobody_listens(double: InfisicalDouble) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SourceDown, match="it cannot be reached, or the connection broke"):
            await source_of(double, host=host).fetch("production")


async def test_a_server_that_hangs(double: InfisicalDouble) -> None:
    double.fail_with(faults.held())
    context = context_for(double, timeouts=HttpTimeouts(read=0.05))
    with pytest.raises(SourceDown, match="no answer in time"):
        await source_of(double, context).fetch("production")


async def test_the_whole_fetch_has_a_deadline(double: InfisicalDouble, mock_clock: MockClock) -> None:
    double.secrets[place(double)] = {"KEY": "value"}
    double.fail_with(faults.held(), on="login")
    source = source_of(double)
    async with trio.open_nursery() as nursery:

        async def fetch() -> None:
            with pytest.raises(SourceDown, match="no answer within 60 s"):
                await source.fetch("production")

        nursery.start_soon(fetch)
        await wait_all_tasks_blocked()
        mock_clock.jump(60)
    double.release()
    assert await fetched(source) == {"KEY": "value"}, "the abandoned call does not hold up the next"


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("http://infisical.example", "plain http"),
        ("ftp://infisical.example", "is no http:// or https:// address"),
        ("infisical.example", "is no http:// or https:// address"),
        ("https://user@infisical.example", "address alone"),
        ("https://infisical.example/?x=1", "address alone"),
        ("https://[::1", "its host or port is not valid"),
    ],
)
async def test_nothing_is_sent_to_such_a_host(double: InfisicalDouble, host: str, text: str) -> None:
    with pytest.raises(SourceRefused, match=text):
        await source_of(double, host=host).fetch("production")


async def test_the_meaning_of_errors_holds_for_a_host_that_requests_writes_in_another_way(
    double: InfisicalDouble,
) -> None:
    double.fail_with(faults.api_error(403, "PermissionDenied", "no"))
    with pytest.raises(SourceRefused, match="no right to read this"):
        await source_of(double, host=f"{double.url}/away/..").fetch("production")
