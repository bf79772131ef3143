"""The https transport against git's own http backend behind TLS on loopback."""

import base64
import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import GitUnavailable
from reconciler.git.mirror import GitOptions, Mirror
from tests.canaries import canary, may_hold
from tests.gitrepo import GitRepo, git_environment


class Backend(BaseHTTPRequestHandler):
    """Passes requests to `git http-backend`; asks for a password below /private/."""

    root: Path
    authorization: str

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/private/"):
            if self.headers.get("Authorization") != self.authorization:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = path.removeprefix("/private")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = git_environment() | {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "tester",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, timeout=60
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Server:
    url: str
    certificate: Path
    password: str


def self_signed(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_file, key_file


@pytest.fixture
def server(tmp_path: Path, remote: GitRepo) -> Iterator[Server]:
    password = canary("git-https")
    certificate, key = self_signed(tmp_path)
    authorization = "Basic " + base64.b64encode(f"robot:{password}".encode()).decode()
    handler = type("Handler", (Backend,), {"root": remote.path.parent, "authorization": authorization})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listener:
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield Server(f"https://127.0.0.1:{listener.server_address[1]}", certificate, password)
        finally:
            listener.shutdown()
            thread.join()


async def test_fetch_and_push_over_https(
    server: Server, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
    remote.git("config", "http.receivepack", "true")
    first = remote.commit({"a": "1"})
    mirror = Mirror(f"{server.url}/remote.git", tmp_path / "m.git")
    assert (await mirror.refresh()).heads == {"main": first}
    second = await mirror.write_commit(await mirror.write_tree(first, {"a": b"2"}), [first], "m\n")
    assert await mirror.push("refs/heads/main", second, expected=first)
    assert remote.files() == {"a": b"2"}


async def test_a_password_comes_from_askpass_and_is_kept_nowhere(
    server: Server, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
    commit = remote.commit({"a": "1"})
    askpass = may_hold(tmp_path / "askpass")
    askpass.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print('robot' if 'Username' in sys.argv[1] else {server.password!r})\n"
    )
    askpass.chmod(0o700)
    url = f"{server.url}/private/remote.git"
    with pytest.raises(GitUnavailable, match="did not accept our credentials"):
        await Mirror(url, tmp_path / "m.git").refresh()
    mirror = Mirror(url, tmp_path / "m.git", options=GitOptions(askpass=str(askpass)))
    assert (await mirror.refresh()).heads == {"main": commit}
    held = [
        path
        for path in mirror.path.rglob("*")
        if path.is_file() and server.password.encode() in path.read_bytes()
    ]
    assert held == []


async def test_each_refusal_over_https_is_named(
    server: Server, remote: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GitUnavailable, match="certificate was not accepted"):
        await Mirror(f"{server.url}/remote.git", tmp_path / "m.git").refresh()
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
    with pytest.raises(GitUnavailable, match="no such repository"):
        await Mirror(f"{server.url}/nowhere.git", tmp_path / "m.git").refresh()
    assert "m.git" not in os.listdir(tmp_path)
