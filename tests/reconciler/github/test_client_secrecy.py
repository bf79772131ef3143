"""The client of GitHub: no error shows its token or a value, also with its frames' variables printed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
import trio
from nacl.public import PrivateKey
from trio.testing import MockClock

from reconciler.github.client import MAX_WAIT, GitHub, PublicKey, sealed, waiting_time
from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.pace import Pace
from reconciler.github.scopes import MAX_VALUE, OrganizationScope, RepositoryScope
from reconciler.secrets.values import Secret
from tests.canaries import canary
from tests.contracts.github_double import Fault, GitHubDouble, slow_down
from tests.reconciler.secrets.test_secret_leaks import assert_silent, printed_error

REPO = RepositoryScope("acme/app")
KEY = PublicKey("key-1", bytes(PrivateKey.generate().public_key))
VALUE = Secret(canary("pushed"))


async def put(github: GitHub) -> None:
    await github.put_secret(REPO, "NAME", VALUE, KEY)


CALLS: list[Callable[[GitHub], Awaitable[object]]] = [
    put,
    lambda github: github.list_secrets(REPO),
    lambda github: github.public_key(REPO),
    lambda github: github.dispatch(REPO.repo, "export-secret", {"secret_name": "A"}),
]
ANSWERS = [
    *(Fault(status) for status in (302, 400, 401, 403, 404, 409, 422, 429, 500, 503)),
    slow_down(3600),
    Fault(200, body=b"no json"),
    Fault(200, body=b'"' + b"x" * (5 << 20) + b'"'),
    Fault(200, body=b"[]"),
]


@pytest.mark.parametrize("fault", ANSWERS, ids=lambda fault: f"{fault.status}-{len(fault.body)}")
async def test_no_answer_makes_an_error_that_shows_anything(fault: Fault) -> None:
    with GitHubDouble() as double:
        double.add(REPO.repo)
        async with GitHub(double.url, Secret(double.token), pace=Pace(0.0)) as github:
            for kind in ("put", "list", "key", "dispatch"):
                double.fail_with(fault, on=kind)
            errors = []
            for call in CALLS:
                try:
                    await call(github)
                except (GitHubDown, GitHubRefused) as error:
                    errors.append(error)
    assert errors
    for each in errors:
        assert_silent(printed_error(each))


async def test_nor_does_a_server_that_is_not_there() -> None:
    with GitHubDouble() as double:
        url = double.url
    async with GitHub(url, Secret(double.token), pace=Pace(0.0)) as github:
        with pytest.raises(GitHubDown, match="cannot be reached") as caught:
            await put(github)
    assert_silent(printed_error(caught.value))


async def test_nor_does_a_deadline(mock_clock: MockClock) -> None:
    with GitHubDouble() as double:
        double.fail_with(Fault(hold=True), on="put")
        token = Secret(double.token)
        async with GitHub(double.url, token, pace=Pace(0.0)) as github, trio.open_nursery() as nursery:

            async def pass_time() -> None:
                await trio.to_thread.run_sync(double.holding.wait)
                mock_clock.jump(120)

            nursery.start_soon(pass_time)
            with pytest.raises(GitHubDown, match="no answer in time") as caught:
                await put(github)
            double.release()
    assert_silent(printed_error(caught.value))


@pytest.mark.parametrize("more", ["\n x", "€", "\ud800", "\0"])
async def test_a_token_that_no_header_carries(more: str) -> None:
    with GitHubDouble() as double:
        async with GitHub(double.url, Secret(double.token + more), pace=Pace(0.0)) as github:
            with pytest.raises(GitHubRefused, match="has characters that no header") as caught:
                await github.list_secrets(REPO)
    assert double.requests == []
    assert_silent(printed_error(caught.value))


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        (canary("big") * MAX_VALUE, KEY, "the value is larger than GitHub takes"),
        (canary("short-key"), PublicKey("1", b"short"), "GitHub's public key: not what GitHub's API answers"),
        (canary("half") + "\ud800", KEY, "the value is not valid text"),
    ],
    ids=["large", "key", "half"],
)
async def test_a_value_that_cannot_be_sealed(value: str, key: PublicKey, words: str) -> None:
    with pytest.raises((GitHubRefused, GitHubDown), match=words) as caught:
        sealed(Secret(value), key, "acme/app: writing NAME")
    assert_silent(printed_error(caught.value))


async def test_a_value_without_a_visibility() -> None:
    with GitHubDouble() as double:
        async with GitHub(double.url, Secret(double.token)) as github:
            with pytest.raises(GitHubRefused, match="needs a visibility") as caught:
                await github.put_secret(OrganizationScope("acme"), "NAME", VALUE, KEY)
    assert_silent(printed_error(caught.value))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 1.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT"}, 1.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:20 GMT"}, 10.0),
        ({"Retry-After": "9" * 400}, MAX_WAIT),
        ({"Retry-After": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1792567710"}, 30.0),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1792567710"}, None),
        ({}, None),
    ],
)
def test_the_waiting_time_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert waiting_time(headers, now=datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds
