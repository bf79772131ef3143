"""Every trap of Infisical and its SDK by name: those that only the double can show, and the list of all."""

import re
from collections.abc import Hashable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trio

from reconciler.retry_after import retry_after
from reconciler.secrets import infisical_client
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.source import HttpTimeouts, SourceContext
from reconciler.spec.model import EnvCredential
from tests.canaries import canary
from tests.contracts import infisical_double as faults
from tests.contracts.infisical_double import Fault, InfisicalDouble
from tests.reconciler.secrets.sources import context_for, fetched, source_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

TRAPS = {
    # The SDK.
    "the_sdk_has_no_timeout",
    "the_sdk_retries_with_blocking_sleeps",
    "the_sdk_renews_no_token",
    "a_netrc_replaces_the_token",
    "a_proxy_variable_sends_secrets_elsewhere",
    "the_sdk_s_cache_survives_what_changed",
    "imports_are_raw_and_not_merged",
    "the_sdk_s_objects_print_values",
    "a_missing_field_is_a_bare_type_error",
    "an_error_body_that_is_a_list_is_an_attribute_error",
    "html_with_status_200",
    "names_are_not_quoted",
    "a_304_is_an_error",
    "the_sdk_drops_the_header_retry_after",
    # The server.
    "an_empty_list_proves_nothing",
    "a_wrong_place_is_an_empty_list",
    "a_hidden_value_has_status_200",
    "a_reference_without_a_target_stays_literal",
    "one_forbidden_reference_spoils_the_list",
    "the_version_stays_when_a_referenced_value_changes",
    "personal_secrets_are_in_the_list",
    "an_expired_token_is_a_403",
    "a_revoked_token_is_a_401",
    "a_missing_right_is_a_403_too",
    "three_bad_logins_lock_out",
    "one_identity_under_many_names",
    "a_changed_spec_forgets_a_refused_login",
    "a_login_counts_as_a_write",
    "the_message_of_a_422_is_an_array",
    "rate_limits_and_faults_pass",
    "a_redirect_would_take_the_token_along",
    "an_answer_of_any_size",
    "an_answer_without_an_end",
}


def test_every_trap_has_its_test() -> None:
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_infisical_*.py")]
    assert {name for text in texts for name in re.findall(r"def test_trap_(\w+)\(", text)} == TRAPS


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        running.secrets[running.project, "prod", "/"] = {"KEY": canary("trap")}
        yield running


async def down(source: InfisicalSource) -> SourceDown:
    with pytest.raises(SourceDown) as caught:
        await source.fetch("production")
    return caught.value


async def refused(source: InfisicalSource) -> SourceRefused:
    with pytest.raises(SourceRefused) as caught:
        await source.fetch("production")
    return caught.value


# --- the SDK -----------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["login", "list"])
async def test_trap_the_sdk_has_no_timeout(double: InfisicalDouble, on: faults.On) -> None:
    double.fail_with(faults.held(), on=on)
    error = await down(source_of(double, context_for(double, timeouts=HttpTimeouts(read=0.05))))
    assert "no answer in time" in str(error)


async def test_trap_the_sdk_retries_with_blocking_sleeps(double: InfisicalDouble) -> None:
    double.fail_with(Fault(200, b'{"secrets": [], "imports": []}', cut=True))
    assert "the connection broke" in str(await down(source_of(double)))
    assert double.calls("list") == 1, "waiting and trying again is the store's"


@pytest.mark.parametrize("on", ["login", "list"])
@pytest.mark.parametrize("body", [b"{}", b'{"secrets": [{}], "imports": []}', b'{"accessToken": null}', b"7"])
async def test_trap_a_missing_field_is_a_bare_type_error(
    double: InfisicalDouble, on: faults.On, body: bytes
) -> None:
    double.fail_with(Fault(200, body), on=on)
    assert "not with what Infisical's API answers" in str(await down(source_of(double)))


@pytest.mark.parametrize(("status", "kind"), [(400, SourceRefused), (500, SourceDown)])
async def test_trap_an_error_body_that_is_a_list_is_an_attribute_error(
    double: InfisicalDouble, status: int, kind: type[Exception]
) -> None:
    double.fail_with(Fault(status, b'["no"]'))
    with pytest.raises(kind, match=f"status {status}"):
        await source_of(double).fetch("production")


@pytest.mark.parametrize("on", ["login", "list"])
async def test_trap_html_with_status_200(double: InfisicalDouble, on: faults.On) -> None:
    double.fail_with(faults.html(), on=on)
    error = await down(source_of(double))
    assert "not with what Infisical's API answers" in str(error)
    assert canary("echo") not in str(error)


@pytest.mark.parametrize("name", ["A/B", "A?B=C", "A B", "Ä#", "../../x"])
async def test_trap_names_are_not_quoted(double: InfisicalDouble, name: str) -> None:
    """So a secret is never asked for by its name: lists are, and have any name."""
    double.secrets[double.project, "prod", "/"] = {name: "1"}
    assert await fetched(source_of(double)) == {name: "1"}
    assert {request.path for request in double.requests if request.on == "list"} == {"/api/v3/secrets/raw"}


async def test_trap_a_304_is_an_error(double: InfisicalDouble) -> None:
    double.fail_with(Fault(304))
    assert "(status 304)" in str(await down(source_of(double)))


@pytest.mark.parametrize("on", ["login", "list"])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("0", 1.0),
        (format_datetime(NOW + timedelta(days=99999), usegmt=True), 3600.0),
        (format_datetime(NOW - timedelta(days=99999), usegmt=True), 1.0),
        ("soon", 30.0),
    ],
)
async def test_trap_the_sdk_drops_the_header_retry_after(
    double: InfisicalDouble, on: faults.On, header: str, seconds: float
) -> None:
    message = "Rate limit exceeded. Please try again in 30 seconds"
    double.fail_with(faults.api_error(429, "RateLimitError", message, Retry_After=header), on=on)
    assert (await down(source_of(double))).retry_after == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("Fri, 02 Jan 2026 03:05:35 GMT", 90.0),
        ("Fri, 02 Jan 2026 03:05:35 -0000", 90.0),
        ("Friday, 02-Jan-26 03:05:35 GMT", 90.0),
        ("Fri, 02 Jan 2026 03:04:04 GMT", 0.0),
        *((nonsense, None) for nonsense in ("", "soon", "-5", "1.5", "²", "Fri, 99 Jan 2026 03:05:35 GMT")),
    ],
)
def test_both_forms_of_a_waiting_time(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}, NOW) == seconds


def test_a_date_counts_from_the_clock_of_the_one_who_gave_it() -> None:
    headers = {"Retry-After": "Fri, 02 Jan 2026 10:00:30 GMT", "Date": "Fri, 02 Jan 2026 10:00:00 GMT"}
    assert retry_after(headers, NOW) == 30
    assert retry_after({}, NOW) is None


# --- the server --------------------------------------------------------------------------------


async def test_trap_a_hidden_value_has_status_200(double: InfisicalDouble) -> None:
    double.hidden = {"KEY"}
    assert "it hides the value of KEY" in str(await refused(source_of(double)))


async def test_trap_one_forbidden_reference_spoils_the_list(double: InfisicalDouble) -> None:
    double.secrets[double.project, "prod", "/"]["URL"] = "${dev.other.PASSWORD}"
    double.unreadable = {(double.project, "dev", "/other")}
    error = await refused(source_of(double))
    assert "no right to read this (status 403 PermissionDenied)" in str(error)
    assert "everything that its secrets refer to" in str(error)


async def test_trap_the_version_stays_when_a_referenced_value_changes(double: InfisicalDouble) -> None:
    """So values are compared, by their fingerprints, and versions are not looked at."""
    double.secrets[double.project, "prod", "/"] = {"PASSWORD": "1", "URL": "db://${PASSWORD}"}
    source = source_of(double)
    assert (await fetched(source))["URL"] == "db://1"
    double.secrets[double.project, "prod", "/"]["PASSWORD"] = "2"
    assert (await fetched(source))["URL"] == "db://2"


async def test_trap_personal_secrets_are_in_the_list(double: InfisicalDouble) -> None:
    double.personal[double.project, "prod", "/"] = {"KEY": "personal", "MINE": "personal"}
    assert await fetched(source_of(double)) == {"KEY": canary("trap")}


async def test_trap_an_expired_token_is_a_403(double: InfisicalDouble) -> None:
    source = source_of(double)
    await source.fetch("production")
    double.expire_tokens()
    assert await fetched(source) == {"KEY": canary("trap")}
    assert (double.calls("login"), double.calls("list")) == (2, 3)


async def test_trap_a_missing_right_is_a_403_too(double: InfisicalDouble) -> None:
    double.forbidden = True
    await refused(source_of(double))
    assert (double.calls("login"), double.calls("list")) == (1, 1), "no new login could help"


async def test_trap_one_identity_under_many_names(double: InfisicalDouble) -> None:
    """Five sources name one wrong secret by five variables: one bad login, at once or one after the other."""
    environ = {f"SECRET_{n}": canary("wrong") for n in range(5)}
    context = SourceContext.from_environ({"ID": double.client_id, "SECRET": double.client_secret, **environ})
    sources = [
        source_of(double, context, name=f"s{n}", client_secret=EnvCredential(name=f"SECRET_{n}"))
        for n in range(5)
    ]
    async with trio.open_nursery() as nursery:
        for source in sources:
            nursery.start_soon(refused, source)
    assert "no further login for" in str(await refused(sources[0]))
    assert double.calls("login") == 1
    assert not double.locked_out
    # Another identity is not held up.
    assert await fetched(source_of(double, context)) == {"KEY": canary("trap")}


async def test_trap_a_changed_spec_forgets_a_refused_login(double: InfisicalDouble) -> None:
    """A spec with other sources gets a new store, and the identity is as near to a lockout as before."""
    environ, lasting = {"ID": double.client_id, "SECRET": canary("wrong")}, dict[Hashable, object]()
    for number in range(5):
        context = SourceContext.from_environ(environ, lasting=lasting)
        await refused(source_of(double, context, name=f"s{number}", secret_path=f"/{number}"))
    assert double.calls("login") == 1


@pytest.mark.parametrize("on", ["login", "list"])
async def test_trap_the_message_of_a_422_is_an_array(double: InfisicalDouble, on: faults.On) -> None:
    double.fail_with(faults.invalid_request(), on=on)
    error = await refused(source_of(double))
    assert "status 422 ValidationFailure" in str(error)
    assert canary("echo") not in str(error)


@pytest.mark.parametrize("on", ["login", "list"])
@pytest.mark.parametrize(
    "fault",
    [faults.too_many_requests(), *(faults.server_error(status) for status in (500, 502, 503, 504))],
    ids=lambda fault: str(fault.status),
)
async def test_trap_rate_limits_and_faults_pass(double: InfisicalDouble, on: faults.On, fault: Fault) -> None:
    double.fail_with(fault, on=on)
    source = source_of(double)
    assert (await down(source)).retryable
    assert await fetched(source) == {"KEY": canary("trap")}, "nothing is remembered against it"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_trap_a_redirect_would_take_the_token_along(double: InfisicalDouble, status: int) -> None:
    with InfisicalDouble() as other:
        double.fail_with(Fault(status, headers=(("Location", f"{other.url}/api/v3/secrets/raw"),)))
        assert "redirects to another address" in str(await refused(source_of(double)))
        assert other.requests == []


async def test_trap_an_answer_of_any_size(double: InfisicalDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infisical_client, "MAX_ANSWER", 100_000)
    double.fail_with(Fault(200, b" " * 200_000))
    assert "larger than 100000 bytes" in str(await down(source_of(double)))


async def test_trap_an_answer_without_an_end(
    double: InfisicalDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes in time and the whole never does: a fetch has a deadline as a whole."""
    monkeypatch.setattr(infisical_client, "MAX_ANSWER", 10**12)
    double.fail_with(Fault(endless=True), on="login")
    source = source_of(double, context_for(double, timeouts=HttpTimeouts(total=0.2)))
    assert re.search("no (complete )?answer (in time|within)", str(await down(source)))


# --- what is asked for -------------------------------------------------------------------------


async def test_tags_choose_among_the_secrets_of_a_folder(double: InfisicalDouble) -> None:
    double.secrets[double.project, "prod", "/"] |= {"WEB": "1", "DB": "2"}
    double.tags = {"WEB": {"web"}, "DB": {"db", "slow"}}
    assert await fetched(source_of(double, tags=("web", "db"))) == {"WEB": "1", "DB": "2"}
    assert await fetched(source_of(double, tags=("slow",))) == {"DB": "2"}
    assert "check environment_slug, secret_path and tags" in str(await down(source_of(double, tags=("no",))))


async def test_several_projects_environments_and_paths(double: InfisicalDouble) -> None:
    places = [("one", "prod", "/"), ("two", "prod", "/"), ("two", "dev", "/"), ("two", "dev", "/x/y")]
    context = context_for(double)
    for project, slug, path in places:
        double.secrets[project, slug, path] = {"WHERE": f"{project} {slug} {path}"}
    for project, slug, path in places:
        source = source_of(double, context, project_id=project, environment_slug=slug, secret_path=path)
        assert await fetched(source) == {"WHERE": f"{project} {slug} {path}"}
    assert double.calls("login") == 1
