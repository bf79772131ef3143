"""`examples/reverse-proxy/`: real proxies before two real primaries, of which one stands by."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from tests.canaries import canary
from tests.github_deliveries import headers_of, payload, pushed
from tests.proxies import NAME, Proxy, caddy, needs_proxies, nginx
from tests.serving import Serving, serving
from tests.world import PATIENCE, World, beside, make_world

WEBHOOK_SECRET = canary("webhook-secret-behind-a-proxy")

TOO_LARGE = 25 * 1024 * 1024 + 1

ATTEMPTS = 4
"""So that a proxy that takes turns has met both primaries."""


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    """As a browser on another machine is: it knows the name, and checks the certificate."""
    headers = {"Host": NAME}
    base_url = f"https://127.0.0.1:{proxy.https}"
    async with httpx.AsyncClient(
        base_url=base_url, headers=headers, verify=trusting(proxy), trust_env=False, timeout=PATIENCE
    ) as client:
        yield client


def trusting(proxy: Proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(proxy.certificate))


@needs_proxies
async def test_each_example_stands_before_the_primary_that_leads(tmp_path: Path) -> None:
    async with make_world(tmp_path) as (world, _):
        tokens = tmp_path / "tokens"
        tokens.write_text("")
        tokens.chmod(0o600)
        world.environment |= {
            "TRUEUP_API_TOKENS_FILE": str(tokens),
            "TRUEUP_HTTP_HOSTS": NAME,
            "TRUEUP_TRUSTED_PROXIES": "127.0.0.1",
            "TRUEUP_INTERVAL": "24h",
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
        world.commit_spec("version: 1\n")
        token = (await world.trueup("token", "new", "rita", "--role", "read")).stdout.strip()
        async with serving(world) as leader:
            await leader.said("pass ended")
            async with serving(beside(world, "standby")) as standby:
                await stands_by(standby)
                addresses = [each.http.removeprefix("http://") for each in (standby, leader)]
                agents = f"127.0.0.1:{world.port}"
                async with nginx(tmp_path / "nginx", addresses, agents) as proxy, client(proxy) as asking:
                    await check(leader, proxy, asking, token)
                    await check_agent(world, leader, proxy)
                async with caddy(tmp_path / "caddy", addresses) as proxy, client(proxy) as asking:
                    await check(leader, proxy, asking, token)
                assert await standby.end() == 0
            assert await leader.end() == 0


async def stands_by(primary: Serving) -> None:
    await primary.until(
        lambda: next((it for it in primary.lines if it["event"].startswith("standby:")), None), "standby: …"
    )


async def check(leader: Serving, proxy: Proxy, asking: httpx.AsyncClient, token: str) -> None:
    await check_deliveries(leader, asking, f"through-{proxy.https}")
    await check_too_large(proxy)
    await check_page(asking, token)
    await check_events(proxy, token)
    await check_whose_address_counts(leader, asking)


async def check_deliveries(leader: Serving, asking: httpx.AsyncClient, name: str) -> None:
    """A body is passed on byte for byte, to the one that leads."""
    for number in range(ATTEMPTS):
        body = payload("ping", zen=f"{name} {number}")
        told = await asking.post(
            "/webhook", content=body, headers=headers_of(body, WEBHOOK_SECRET, "ping", f"{name}-{number}")
        )
        assert told.status_code == 202, told.text
        await leader.said("webhook", delivery=f"{name}-{number}")
    forged = pushed("org/app", canary("another-webhook-secret"))
    assert (await asking.post("/webhook", **forged)).status_code == 401


async def check_too_large(proxy: Proxy) -> None:
    """Refused by what it announces, before it is sent."""
    head = f"POST /webhook HTTP/1.1\r\nContent-Length: {TOO_LARGE}\r\nX-Hub-Signature-256: sha256={'0' * 64}"
    assert (await heard(proxy, head, b"\r\n")).startswith(b"HTTP/1.1 413 ")


async def check_events(proxy: Proxy, token: str) -> None:
    """The few bytes of a stream's beginning come while it goes on: nothing waits for more."""
    head = f"GET /api/events HTTP/1.1\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}"
    said = await heard(proxy, head, b"retry: 2000\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"text/event-stream" in said


async def heard(proxy: Proxy, head: str, mark: bytes) -> bytes:
    """What comes after the head of a request until a mark, while neither side has ended."""
    stream = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", proxy.https, ssl_context=trusting(proxy), https_compatible=True
    )
    said = b""
    with trio.fail_after(PATIENCE):
        async with stream:
            await stream.send_all(f"{head}\r\nHost: {NAME}\r\n\r\n".encode())
            while mark not in said:
                chunk = await stream.receive_some(4096)
                assert chunk, said
                said += chunk
    return said


async def check_page(asking: httpx.AsyncClient, token: str) -> None:
    """Its form is taken as its own, and the cookie is one that goes over https alone."""
    assert "API token" in (await asking.get("/")).text
    origin = {"Origin": f"https://{NAME}"}  # from a browser that says no more
    told = await asking.post("/page/login", data={"token": token}, headers=origin)
    assert (told.status_code, told.headers["location"]) == (303, "/")
    cookie = told.headers["set-cookie"]
    assert cookie.startswith("__Host-trueup-session=")
    assert "Secure" in cookie
    page = await asking.get("/", headers={"Cookie": cookie.partition(";")[0]})
    assert "rita, read" in page.text
    asking.cookies.clear()


async def check_whose_address_counts(leader: Serving, asking: httpx.AsyncClient) -> None:
    """The one that the proxy saw, whatever its client claims."""
    seen = len(leader.lines)
    claimed = {"Authorization": "Bearer trueup_" + "0" * 64, "X-Forwarded-For": "203.0.113.9"}
    assert (await asking.get("/api/environments", headers=claimed)).status_code == 401
    assert (await leader.said("a token was refused", after=seen))["client"] == "127.0.0.1"


async def check_agent(world: World, leader: Serving, proxy: Proxy) -> None:
    """It pairs and connects through a proxy that understands nothing of what it says."""
    host = await world.add_host("web-1", f"127.0.0.1:{proxy.agents}")
    assert (await leader.ask_locally("POST", "/api/reconcile")).status_code == 202
    await world.start_agent(host)

    def connected() -> dict[str, str] | None:
        return next((it for it in leader.lines if it["event"].startswith("node web-1 connected")), None)

    await leader.until(connected, "node web-1 connected")
    await world.stop_agents()
