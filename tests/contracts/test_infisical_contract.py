"""What the reconciler relies on at Infisical, against the double, and against a real server if one is named.

How to name one stands in `infisical_servers.py`. Tests that are called `test_trap_…` are about what went
wrong for others or is easily overlooked; the list of all of them is in `test_infisical_traps.py`, with those
that only a double can show.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from reconciler.errors import SecretSourceUnavailable
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical import InfisicalSource
from tests.canaries import canary, may_hold
from tests.contracts.infisical_servers import SERVERS, Server, make_context, make_source, plain, running


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as server:
        yield server


async def test_values_come_back_unchanged(server: Server) -> None:
    values = {
        "PLAIN": canary("contract"),
        "QUOTES": 'it\'s "quoted" \\ and $HOME `x`',
        "LINES": "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n".rstrip(),
        "UNICODE": "grüße – 你好",
    }
    server.put(values)
    assert await plain(make_source(server)) == values


async def test_a_reference_is_expanded(server: Server) -> None:
    server.put({"PASSWORD": "xyz", "URL": "postgres://u:${PASSWORD}@db"})
    assert (await plain(make_source(server)))["URL"] == "postgres://u:xyz@db"


async def test_trap_a_reference_without_a_target_stays_literal(server: Server) -> None:
    server.put({"GOOD": "good", "URL": "postgres://u:${NOWHERE}@db"})
    with pytest.raises(SourceRefused, match="unresolved in URL;"):
        await make_source(server).fetch("production")


async def test_trap_an_empty_list_proves_nothing(server: Server) -> None:
    with pytest.raises(SourceDown, match="no secrets for environment"):
        await make_source(server).fetch("production")


@pytest.mark.parametrize("wrong", [{"secret_path": "/no-such-folder"}, {"environment_slug": "no-such-slug"}])
async def test_trap_a_wrong_place_is_an_empty_list(server: Server, wrong: dict[str, str]) -> None:
    server.put({"KEY": "value"})
    with pytest.raises(SecretSourceUnavailable):
        await make_source(server, None, **wrong).fetch("production")


async def test_trap_three_bad_logins_lock_out(server: Server) -> None:
    server.put({"KEY": "value"})
    source = make_source(server, client_secret=canary("wrong"))
    with pytest.raises(SourceRefused, match="refused the login"):
        await source.fetch("production")
    with pytest.raises(SourceRefused, match="no further login for"):
        await source.fetch("production")


async def test_trap_a_login_counts_as_a_write(server: Server) -> None:
    server.put({"KEY": "value"})
    source = make_source(server)
    assert await plain(source) == {"KEY": "value"}
    token = await source._login.token("", "production")
    assert await plain(source) == {"KEY": "value"}
    assert await source._login.token("", "production") is token, "one login, many lists"


async def test_trap_the_sdk_renews_no_token(server: Server, mock_clock: trio.testing.MockClock) -> None:
    server.put({"KEY": "value"})
    source = make_source(server)
    await source.fetch("production")
    token = await source._login.token("", "production")
    mock_clock.jump(token.lifetime * 0.66)
    assert await source._login.token("", "production") is token
    mock_clock.jump(token.lifetime * 0.01)
    assert await source._login.token("", "production") is not token, "renewed at two thirds of its life"
    assert await plain(source) == {"KEY": "value"}


async def test_trap_a_revoked_token_is_a_401(server: Server) -> None:
    server.put({"KEY": "value"})
    source = make_source(server)
    token = await source._login.token("", "production")
    server.revoke(token.value.reveal())
    assert await plain(source) == {"KEY": "value"}, "one new login"
    assert await source._login.token("", "production") != token


async def test_trap_imports_are_raw_and_not_merged(server: Server) -> None:
    """Own secrets win, then the last import does."""
    server.put({"OWN": "own"})
    server.put({"OWN": "a", "BOTH": "a", "A": "a"}, "/a")
    server.put({"OWN": "b", "BOTH": "b"}, "/b")
    server.import_from("/a")
    server.import_from("/b")
    assert await plain(make_source(server)) == {"OWN": "own", "BOTH": "b", "A": "a"}


async def test_recursion_reads_folders_below(server: Server) -> None:
    server.put({"A": "1"})
    server.put({"B": "2"}, "/below")
    assert await plain(make_source(server)) == {"A": "1"}
    assert await plain(make_source(server, recursive=True)) == {"A": "1", "B": "2"}


async def test_several_paths_of_one_identity_share_one_login(server: Server) -> None:
    server.put({"A": "1"})
    server.put({"B": "2"}, "/below")
    context = make_context(server)
    here = make_source(server, context)
    below = make_source(server, context, secret_path=server.folder + "/below")
    found: list[dict[str, str]] = []

    async def read(source: InfisicalSource) -> None:
        found.append(await plain(source))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, here)
        nursery.start_soon(read, below)
    assert sorted(found, key=str) == [{"A": "1"}, {"B": "2"}]
    assert await here._login.token("", "") is await below._login.token("", "")


async def test_trap_the_sdk_s_cache_survives_what_changed(server: Server) -> None:
    server.put({"KEY": canary("before")})
    source = make_source(server)
    assert await plain(source) == {"KEY": canary("before")}
    server.change("KEY", canary("after"))
    assert await plain(source) == {"KEY": canary("after")}


async def test_trap_a_netrc_replaces_the_token(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = may_hold(tmp_path / "netrc")
    netrc.write_text(f"machine {urlsplit(server.url).hostname} login me password {canary('netrc')}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.put({"KEY": "value"})
    assert await plain(make_source(server)) == {"KEY": "value"}


async def test_trap_a_proxy_variable_sends_secrets_elsewhere(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    server.put({"KEY": "value"})
    assert await plain(make_source(server)) == {"KEY": "value"}


async def test_trap_the_sdk_s_objects_print_values(server: Server) -> None:
    from infisical_sdk import InfisicalSDKClient

    server.put({"KEY": canary("printed")})
    client = InfisicalSDKClient(host=server.url, cache_ttl=None)
    client.auth.universal_auth.login(server.client_id, server.client_secret)
    listed = client.secrets.list_secrets(server.environment, server.folder, project_id=server.project)
    client.api.session.close()
    assert canary("printed") in repr(listed), "the trap is there"
    source = make_source(server)
    token = await source._login.token("", "production")
    for thing in (await source.fetch("production"), source, source._login, vars(source._login), token):
        assert canary("printed") not in repr(thing)
        assert token.value.reveal() not in repr(thing)
