"""Who is let into the API over the network, how often, and under which names of hosts."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import structlog.testing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from reconciler.errors import TrueupError
from reconciler.token_file import TokenFile, append_token, new_token
from reconciler.web.addresses import client_of, group_of, is_ours
from reconciler.web.answers import http_error, trueup_error
from reconciler.web.door import Door
from reconciler.web.endpoints import Call, Caller, Endpoint, Model, Nothing, Role, routes_of
from reconciler.web.hosts import HostCheck
from reconciler.web.rates import Rates
from tests.canaries import canary


class Seen(Model, frozen=True):
    by: str


async def seen(call: Call[Nothing, Nothing]) -> Seen:
    return Seen(by=call.caller.name)


ENDPOINTS = [
    Endpoint(
        method=method, path="/api/things", summary="", tag="", handler=seen, role=role, answer=Seen
    )
    for method, role in (("GET", Role.READ), ("POST", Role.OPERATE))
]  # fmt: skip


class Site:
    """An app behind a door, with tokens in a file and a time that the test sets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = 0.0
        self.tokens = {
            name: self.add(name, role, lasts)
            for name, role, lasts in (("ann", "read", None), ("ci", "operate", None), ("old", "operate", 1.0))
        }
        self.time = 10.0
        self.door = Door(
            TokenFile(path), trusted=(ip_network("10.0.0.0/8"),), now=self.now, clock=lambda: self.time
        )
        self.app = Starlette(
            routes=routes_of(ENDPOINTS, self.door),
            exception_handlers={HTTPException: http_error, TrueupError: trueup_error},
        )

    def now(self) -> datetime:
        return datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=self.time)

    def add(self, name: str, role: Any, lasts: float | None) -> str:
        token, entry = new_token(name, role, lasts=lasts, now=self.now)
        append_token(self.path, entry)
        return token.reveal()

    async def ask(
        self, token: str | None, method: str = "GET", client: str = "192.0.2.1", **headers: str
    ) -> httpx.Response:
        given = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(cast(Any, self.app), client=(client, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://primary") as asking:
            return await asking.request(method, "/api/things", headers=given | headers)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "tokens")


async def test_tokens_and_roles(site: Site) -> None:
    ann, ci, old = site.tokens["ann"], site.tokens["ci"], site.tokens["old"]
    for token, method, status in (
        (ann, "GET", 200), (ann, "POST", 403), (ci, "GET", 200), (ci, "POST", 200), (old, "GET", 401),
        (None, "GET", 401), (canary("guess"), "GET", 401), (ann + "0", "GET", 401), ("", "GET", 401),
    ):  # fmt: skip
        answered = await site.ask(token, method)
        assert answered.status_code == status, (token, method)
        if status == 200:
            assert answered.json() == {"by": "ann" if token == ann else "ci"}
        else:
            assert answered.json()["success"] is False
        if status == 401:
            assert answered.headers["www-authenticate"] == 'Bearer realm="trueup"'


async def test_only_the_authorization_header_counts(site: Site) -> None:
    ci = site.tokens["ci"]
    transport = httpx.ASGITransport(cast(Any, site.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://primary") as client:
        assert (await client.get("/api/things", params={"access_token": ci})).status_code == 401
        assert (await client.get("/api/things", headers={"cookie": f"token={ci}"})).status_code == 401
        for given in (ci, f"Basic {ci}", f"Token {ci}", f"Bearer{ci}", "Bearer \xff"):
            raw = [(b"authorization", given.encode("latin-1"))]
            assert (await client.get("/api/things", headers=raw)).status_code == 401
        twice = [("Authorization", f"Bearer {ci}"), ("Authorization", f"Bearer {ci}")]
        assert (await client.get("/api/things", headers=twice)).status_code == 401
        once = [("authorization", f"bearer   {ci} ")]
        assert (await client.get("/api/things", headers=once)).status_code == 200


async def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(site: Site) -> None:
    with structlog.testing.capture_logs() as logged:
        statuses = [(await site.ask(canary("guess"))).status_code for _ in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        told = await site.ask(canary("guess"))
        assert (told.headers["retry-after"], told.json()["reason"]) == ("6", "TooManyRequests")
        # Whoever has a token is not hurt by who guesses behind the same address; nor is another address.
        assert (await site.ask(site.tokens["ann"])).status_code == 200
        assert (await site.ask(canary("guess"), client="192.0.2.2")).status_code == 401
        site.time += 6
        assert (await site.ask(canary("guess"))).status_code == 401
        assert (await site.ask(canary("guess"))).status_code == 429
    refused = [line for line in logged if line["event"] == "a token was refused"]
    assert len(refused) == 12
    assert canary("guess") not in str(logged)


async def test_wrong_tokens_from_everywhere_are_slowed_down_together(site: Site) -> None:
    statuses = [
        (await site.ask(canary("guess"), client=f"192.0.{number // 250}.{number % 250}")).status_code
        for number in range(505)
    ]
    assert statuses == [401] * 500 + [429] * 5
    assert (await site.ask(site.tokens["ci"])).status_code == 200


async def test_requests_of_one_token_are_bounded(site: Site) -> None:
    statuses = {(await site.ask(site.tokens["ci"])).status_code for _ in range(600)}
    assert statuses == {200}
    answered = await site.ask(site.tokens["ci"])
    assert (answered.status_code, answered.headers["retry-after"]) == (429, "1")
    assert (await site.ask(site.tokens["ann"])).status_code == 200
    site.time += 1
    assert (await site.ask(site.tokens["ci"])).status_code == 200


async def test_tokens_come_and_go_while_it_runs(site: Site) -> None:
    ann = site.tokens["ann"]
    assert (await site.ask(ann)).status_code == 200
    lines = site.path.read_text().splitlines(keepends=True)
    site.path.write_text("".join(line for line in lines if not line.startswith("ann ")))
    assert (await site.ask(ann)).status_code == 401
    site.path.write_text("nonsense\n")
    answered = await site.ask(site.tokens["ci"])
    assert (answered.status_code, answered.json()["reason"]) == (503, "TokensClosed")
    assert "nonsense" not in answered.text and str(site.path) not in answered.text
    site.path.write_text("".join(lines))
    assert (await site.ask(ann)).status_code == 200
    entries = {each.name: each for each in TokenFile(site.path).tokens()}
    assert site.door.known(entries["ann"].digest) == Caller("ann", Role.READ)
    assert site.door.known(entries["old"].digest) is None


async def test_without_a_file_of_tokens_the_api_is_closed(site: Site) -> None:
    site.app = Starlette(
        routes=routes_of(ENDPOINTS, Door(None, now=site.now)),
        exception_handlers={HTTPException: http_error, TrueupError: trueup_error},
    )
    for token in (None, site.tokens["ci"]):
        answered = await site.ask(token)
        assert (answered.status_code, answered.json()["reason"]) == (403, "TokensClosed")


async def test_whom_a_proxy_speaks_for(site: Site) -> None:
    """Behind a trusted proxy each client has limits of its own; nobody else can claim to be another."""
    for _ in range(10):
        await site.ask(canary("guess"), client="10.0.0.1", **{"X-Forwarded-For": "192.0.2.7"})
    assert (
        await site.ask(canary("guess"), client="10.0.0.1", **{"X-Forwarded-For": "192.0.2.8"})
    ).status_code == 401
    assert (
        await site.ask(canary("guess"), client="10.0.0.1", **{"X-Forwarded-For": "9.9.9.9, 192.0.2.7"})
    ).status_code == 429
    assert (await site.ask(canary("guess"), **{"X-Forwarded-For": "192.0.2.7"})).status_code == 401


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["1.1.1.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", ["1.1.1.1, 2.2.2.2, 10.0.0.2"], "2.2.2.2"),
        ("10.0.0.1", ["1.1.1.1", "2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["1.1.1.1, nonsense"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("", ["1.1.1.1"], ""),
    ],
)
def test_the_client_of_a_request(peer: str, forwarded: list[str], client: str) -> None:
    assert client_of(peer, forwarded, (ip_network("10.0.0.0/8"),)) == client


def test_a_network_of_ipv6_counts_as_one_client() -> None:
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:2") != group_of("2001:db8:0:1::1")
    assert group_of("192.0.2.1") == "192.0.2.1"
    assert group_of("") == ""


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:9000", True), ("LOCALHOST", True), ("127.0.0.1:9000", True), ("127.8.8.8", True),
        ("[::1]:9000", True), ("trueup.example", True), ("Trueup.Example.:443", True), ("192.0.2.5", True),
        ("evil.example", False), ("trueup.example.evil.example", False), ("192.0.2.6", False), ("", False),
        ("trueup.example/x", False), ("evil@trueup.example", False), ("trueup.example:x", False),
        ("localhost.evil.example", False), ("[::1", False), ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_hosts_that_are_ours(host: str, ours: bool) -> None:
    assert is_ours(host, {"trueup.example"}, "192.0.2.5") is ours


async def test_a_request_for_another_host_reaches_nothing(site: Site) -> None:
    site.app = cast(Any, HostCheck(cast(Any, site.app), {"primary"}, ["/open"]))
    assert (await site.ask(site.tokens["ann"])).status_code == 200
    answered = await site.ask(site.tokens["ann"], Host="evil.example")
    assert (answered.status_code, answered.json()["reason"]) == (421, "HostRefused")
    transport = httpx.ASGITransport(cast(Any, site.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as client:
        for path, status in (("/open", 404), ("/open/x", 404), ("/opened", 421), ("/", 421)):
            assert (await client.get(path)).status_code == status


def test_permits_come_back_and_memory_is_bounded() -> None:
    rates = Rates(burst=2, every=10.0, most=3)
    assert [rates.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 10.0]
    assert rates.take("a", 4.0) == 6.0
    assert rates.take("a", 10.0) == 0.0
    assert rates.take("a", 1000.0) == rates.take("a", 1000.0) == 0.0
    assert rates.take("a", 1000.0) == 10.0
    for number in range(100):
        assert rates.take(number, 1000.0) == 0.0
    assert len(rates) == 3
