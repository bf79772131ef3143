"""What a live command says where there is no primary to ask, or none that it may ask."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from reconciler.errors import SettingsError
from reconciler.live import MAX_ANSWER, NoPrimary, PrimaryRefused, PrimaryUnreachable, request
from reconciler.settings import Settings, load_settings
from tests.canaries import canary


def settings_at(state: Path, **variables: str) -> Settings:
    return load_settings({"HOME": "/home/op", "TRUEUP_STATE_DIR": str(state), **variables}, root=False)


async def test_no_socket_names_it_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoPrimary) as raised:
        await request(settings_at(tmp_path), "GET", "/api/secrets")
    assert str(raised.value) == (
        f"no running primary at {tmp_path}/trueup.sock; start `trueup serve`,"
        " or name one elsewhere with TRUEUP_SERVER and TRUEUP_TOKEN"
    )
    assert raised.value.exit_code == 1


async def test_the_socket_of_a_killed_primary_is_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "trueup.sock"))
    with pytest.raises(NoPrimary):
        await request(settings_at(tmp_path), "GET", "/api/secrets")


async def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is too long for a socket"):
        await request(settings_at(tmp_path / ("x" * 120)), "GET", "/health")


async def test_no_token_goes_out_unprotected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TRUEUP_SERVER is set and TRUEUP_TOKEN is not"):
        await request(settings_at(tmp_path, TRUEUP_SERVER="https://trueup.example"), "GET", "/health")
    settings = settings_at(tmp_path, TRUEUP_SERVER="http://trueup.example", TRUEUP_TOKEN=canary("token"))
    with pytest.raises(SettingsError, match="plain http"):
        await request(settings, "GET", "/health")


class _Answering(ThreadingHTTPServer):
    """Answers every request with `answer`; keeps what came in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = (200, b"{}")
        self.asked: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Answering

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def elsewhere() -> Iterator[_Answering]:
    server = _Answering()
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_primary_elsewhere_gets_the_token(tmp_path: Path, elsewhere: _Answering) -> None:
    token = canary("live-token")
    settings = settings_at(tmp_path, TRUEUP_SERVER=elsewhere.url, TRUEUP_TOKEN=token)
    elsewhere.answer = (200, b'{"success": true}')
    document = await request(settings, "POST", "/api/secrets/cache/clear", params={"source": "a b"})
    assert document == {"success": True}
    assert elsewhere.asked == [("POST", "/api/secrets/cache/clear?source=a+b", f"Bearer {token}")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b'{"message": "Secret x not found"}'), "Secret x not found"),
        ((503, b'{"message": "bad\\u001b[2J\\nline"}'), r"bad\x1b[2J\nline"),
        ((401, b""), "does not accept TRUEUP_TOKEN; set a token"),
        ((302, b""), "answered with status 302"),
        ((200, b"<html>"), "answered with status 200"),
    ],
)
async def test_what_it_refuses_is_said(
    tmp_path: Path, elsewhere: _Answering, answer: tuple[int, bytes], said: str
) -> None:
    settings = settings_at(tmp_path, TRUEUP_SERVER=elsewhere.url, TRUEUP_TOKEN=canary("live-token"))
    elsewhere.answer = answer
    with pytest.raises(PrimaryRefused) as raised:
        await request(settings, "POST", "/api/secrets/x/sync")
    assert said in str(raised.value)
    assert raised.value.status == answer[0]


async def test_an_answer_without_end_is_cut_off(tmp_path: Path, elsewhere: _Answering) -> None:
    settings = settings_at(tmp_path, TRUEUP_SERVER=elsewhere.url, TRUEUP_TOKEN=canary("live-token"))
    elsewhere.answer = (200, b" " * (MAX_ANSWER + 1))
    with pytest.raises(PrimaryUnreachable, match="more than"):
        await request(settings, "POST", "/api/secrets/x/sync")
