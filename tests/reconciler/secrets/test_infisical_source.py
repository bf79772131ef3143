"""One Infisical source through the real SDK: what it reads, how it logs in, and what each fault becomes."""

import socket
from typing import Any

import pytest
import trio
import trio.testing

from reconciler.errors import SecretSourceUnavailable, SettingsError
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.infisical_answers import Entry, collect
from reconciler.secrets.source import HttpTimeouts, SourceContext
from reconciler.secrets.values import Secret
from reconciler.spec.model import EnvCredential, InfisicalSettings
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import Fault, Import, InfisicalDouble
from tests.reconciler.secrets.sources import context_for, infisical

MockClock = trio.testing.MockClock


def source_for(
    double: InfisicalDouble, context: SourceContext | None = None, **changes: Any
) -> InfisicalSource:
    return InfisicalSource(infisical(double, **changes), context or context_for(double))


def place(double: InfisicalDouble, path: str = "/", environment: str = "prod") -> tuple[str, str, str]:
    return (double.project, environment, path)


async def fetched(source: InfisicalSource) -> dict[str, str]:
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}


# --- what it reads -----------------------------------------------------------------------------


async def test_imports_are_merged_own_first_then_the_last_import(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"OWN": "own"}
    double.secrets[place(double, "/a")] = {"OWN": "a", "BOTH": "a", "A": "a"}
    double.secrets[place(double, "/b")] = {"OWN": "b", "BOTH": "b"}
    double.imports = [Import(place(double), place(double, "/a")), Import(place(double), place(double, "/b"))]
    assert await fetched(source_for(double)) == {"OWN": "own", "BOTH": "b", "A": "a"}


async def test_a_folder_with_imports_alone_is_not_empty(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {}
    double.secrets[place(double, "/a")] = {"A": "a"}
    double.imports = [Import(place(double), place(double, "/a"))]
    assert await fetched(source_for(double)) == {"A": "a"}


async def test_personal_secrets_are_left_out(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"KEY": "shared"}
    double.personal[place(double)] = {"KEY": "personal", "MINE": "personal"}
    assert await fetched(source_for(double)) == {"KEY": "shared"}


async def test_recursion_reads_folders_below(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.secrets[place(double, "/x/y")] = {"B": "2"}
    assert await fetched(source_for(double)) == {"A": "1"}
    assert await fetched(source_for(double, recursive=True)) == {"A": "1", "B": "2"}


async def test_recursion_refuses_one_key_with_two_values(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.secrets[place(double, "/x")] = {"A": "2"}
    with pytest.raises(SourceRefused, match="the key A stands in / and in /x with different values"):
        await source_for(double, recursive=True).fetch("production")


async def test_the_list_is_asked_for_with_its_flags(double: InfisicalDouble) -> None:
    double.secrets[place(double, "/x")] = {"A": "1"}
    double.tags = {"A": {"two"}}
    await source_for(double, secret_path="/x", tags=("one", "two")).fetch("production")
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
    assert await fetched(source_for(double, host=f"{double.url}/api/")) == {"A": "1"}


# --- what must not be used ---------------------------------------------------------------------


async def test_a_hidden_value_is_refused_by_name(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1", "B": "2"}
    double.hidden = {"B"}
    with pytest.raises(SourceRefused, match="hides the value of B;"):
        await source_for(double).fetch("production")


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
        await source_for(double).fetch("production")


@pytest.mark.parametrize("value", ["$HOME", "${VAR:-default}", "${}", "$(x)"])
async def test_what_is_no_reference_stays(double: InfisicalDouble, value: str) -> None:
    double.secrets[place(double)] = {"KEY": value}
    assert await fetched(source_for(double)) == {"KEY": value}


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
    source = source_for(double)
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
        await source_for(double).fetch("production")
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
        await source_for(double).fetch("production")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("legacy", [True, False])
async def test_a_wrong_slug_is_never_an_empty_source(double: InfisicalDouble, legacy: bool) -> None:
    double.secrets[place(double)] = {"KEY": "value"}
    double.empty_for_unknown = legacy
    with pytest.raises(SecretSourceUnavailable) as caught:
        await source_for(double, environment_slug="production").fetch("production")
    assert caught.value.retryable is legacy, "an empty list proves nothing, a 404 is an answer"


async def test_nobody_listens(double: InfisicalDouble) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SourceDown, match="it cannot be reached, or the connection broke"):
            await source_for(double, host=host).fetch("production")


async def test_a_server_that_hangs(double: InfisicalDouble) -> None:
    double.fail_with(faults.held())
    context = context_for(double, timeouts=HttpTimeouts(read=0.05))
    with pytest.raises(SourceDown, match="no answer in time"):
        await source_for(double, context).fetch("production")


async def test_the_whole_fetch_has_a_deadline(double: InfisicalDouble, mock_clock: MockClock) -> None:
    double.secrets[place(double)] = {"KEY": "value"}
    double.fail_with(faults.held(), on="login")
    source = source_for(double)
    async with trio.open_nursery() as nursery:

        async def fetch() -> None:
            with pytest.raises(SourceDown, match="no answer within 60 s"):
                await source.fetch("production")

        nursery.start_soon(fetch)
        await trio.testing.wait_all_tasks_blocked()
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
        await source_for(double, host=host).fetch("production")


async def test_the_meaning_of_errors_holds_for_a_host_that_requests_writes_in_another_way(
    double: InfisicalDouble,
) -> None:
    double.fail_with(faults.api_error(403, "PermissionDenied", "no"))
    with pytest.raises(SourceRefused, match="no right to read this"):
        await source_for(double, host=f"{double.url}/away/..").fetch("production")


# --- logins ------------------------------------------------------------------------------------


async def test_a_token_is_used_again_and_by_all_sources_of_the_identity(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.secrets[place(double, "/x")] = {"B": "2"}
    context = context_for(double)
    first, second = source_for(double, context), source_for(double, context, secret_path="/x")
    assert [await fetched(first), await fetched(first), await fetched(second)] == [
        {"A": "1"},
        {"A": "1"},
        {"B": "2"},
    ]
    assert (double.calls("login"), double.calls("list")) == (1, 3)


async def test_a_token_is_renewed_after_two_thirds_of_its_life(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.token_lifetime = 300
    source = source_for(double)
    await source.fetch("production")
    mock_clock.jump(199)
    await source.fetch("production")
    assert (double.calls("login"), double.calls("renew")) == (1, 0)
    mock_clock.jump(2)
    await source.fetch("production")
    assert (double.calls("login"), double.calls("renew")) == (1, 1)
    mock_clock.jump(199)
    await source.fetch("production")
    assert (double.calls("login"), double.calls("renew")) == (1, 1), "the renewed token has its own life"


async def test_a_renewal_that_is_refused_becomes_a_login(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_for(double)
    await source.fetch("production")
    double.revoke_tokens()
    mock_clock.jump(7000)
    assert await fetched(source) == {"A": "1"}
    assert (double.calls("login"), double.calls("renew")) == (2, 1)


async def test_a_renewal_in_an_outage_leaves_the_token_in_use(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_for(double)
    await source.fetch("production")
    mock_clock.jump(5000)
    double.fail_with(faults.server_error(), on="renew")
    assert await fetched(source) == {"A": "1"}
    assert double.calls("login") == 1


@pytest.mark.parametrize("end", ["expire", "revoke"])
async def test_a_dead_token_leads_to_one_new_login(double: InfisicalDouble, end: str) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_for(double)
    await source.fetch("production")
    double.expire_tokens() if end == "expire" else double.revoke_tokens()
    assert await fetched(source) == {"A": "1"}
    assert (double.calls("login"), double.calls("list")) == (2, 3)


async def test_a_missing_right_leads_to_no_new_login(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.forbidden = True
    with pytest.raises(SourceRefused, match="PermissionDenied"):
        await source_for(double).fetch("production")
    assert (double.calls("login"), double.calls("list")) == (1, 1)


async def test_tokens_that_never_work_end_after_one_new_login(double: InfisicalDouble) -> None:
    double.fail_with(faults.api_error(401, "UnauthorizedError", "no"), times=5)
    with pytest.raises(SourceRefused, match="does not accept the access token"):
        await source_for(double).fetch("production")
    assert (double.calls("login"), double.calls("list")) == (2, 2)


async def test_a_refused_login_is_not_repeated_for_300_seconds(
    double: InfisicalDouble, mock_clock: MockClock
) -> None:
    double.secrets[place(double)] = {"A": "1"}
    context = context_for(double, SECRET=canary("wrong-secret"))
    one, other = source_for(double, context), source_for(double, context, secret_path="/x")
    with pytest.raises(SourceRefused, match=r"refused the login \(status 401 .*no further login for 300 s"):
        await one.fetch("production")
    mock_clock.jump(299)
    for source in (one, other, one, other):
        with pytest.raises(SourceRefused, match="no further login for 1 s") as caught:
            await source.fetch("production")
        assert caught.value.retry_after == pytest.approx(1)
    assert double.calls("login") == 1
    assert not double.locked_out
    mock_clock.jump(2)
    with pytest.raises(SourceRefused, match="no further login for 300 s"):
        await one.fetch("production")
    assert double.calls("login") == 2


async def test_corrected_credentials_are_tried_at_once(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    environ = {"ID": double.client_id, "SECRET": canary("wrong-secret")}
    source = source_for(double, SourceContext.from_environ(environ))
    with pytest.raises(SourceRefused):
        await source.fetch("production")
    environ["SECRET"] = double.client_secret
    assert await fetched(source) == {"A": "1"}


async def test_an_outage_at_the_login_is_no_refusal(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    double.fail_with(faults.too_many_requests(9), on="login")
    source = source_for(double)
    with pytest.raises(SourceDown) as caught:
        await source.fetch("production")
    assert caught.value.retry_after == 9
    assert await fetched(source) == {"A": "1"}


async def test_token_auth(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    environ = {"TOKEN": double.issue_token()}
    source = source_for(
        double, SourceContext.from_environ(environ), auth="token", token=EnvCredential(name="TOKEN")
    )
    assert await fetched(source) == {"A": "1"}
    double.revoke_tokens()
    with pytest.raises(SourceRefused, match="does not accept the token; make a new token"):
        await source.fetch("production")
    environ["TOKEN"] = double.issue_token()
    assert await fetched(source) == {"A": "1"}
    assert double.calls("login") == 0


async def test_oidc_auth(double: InfisicalDouble) -> None:
    double.secrets[place(double)] = {"A": "1"}
    source = source_for(
        double,
        context_for(double, JWT=double.jwt),
        auth="oidc",
        identity_id=EnvCredential(name="ID"),
        jwt=EnvCredential(name="JWT"),
    )
    assert await fetched(source) == {"A": "1"}


async def test_a_missing_credential_names_its_variable(double: InfisicalDouble) -> None:
    source = source_for(double, SourceContext.from_environ({"ID": "x"}))
    with pytest.raises(SettingsError, match="the variable SECRET is not set; set SECRET, or SECRET_FILE"):
        await source.fetch("production")
    with pytest.raises(SettingsError, match="auth universal needs client_secret"):
        await source_for(double, client_secret=None).fetch("production")
    assert double.requests == []
