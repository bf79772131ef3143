"""The examples of reverse proxies as real processes before real primaries, with addresses of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.githttps import self_signed
from tests.ports import free_ports
from tests.world import PATIENCE

EXAMPLES = Path(__file__).parent.parent / "examples" / "reverse-proxy"
NAME = "trueup.example"
"""The examples' own."""

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NGINX, CADDY = (shutil.which(name, path=_PATH) for name in ("nginx", "caddy"))
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

needs_proxies = pytest.mark.skipif(
    NGINX is None or CADDY is None or not NGINX_STREAM.exists(),
    reason="nginx, its stream module or caddy is not installed (nginx, libnginx-mod-stream, caddy)",
)


@dataclass(frozen=True)
class Proxy:
    https: int
    """Its port, as `trueup.example`."""
    certificate: Path
    agents: int = 0
    """The port that leads to the primaries' agents."""


def adapted(name: str, changes: Mapping[str, str]) -> str:
    """An example with what is the reader's own as it is here; each change is one that it has a place for."""
    text = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def nginx(directory: Path, primaries: Sequence[str], agents: str) -> AsyncIterator[Proxy]:
    """Before two primaries' addresses, and the one where agents connect."""
    config, proxy = _nginx_config(directory, primaries, agents)
    command = [str(NGINX), "-p", str(directory), "-c", str(config), "-g", "daemon off;"]
    async with _running(command, ["start worker process"], {}):
        yield proxy


@asynccontextmanager
async def caddy(directory: Path, primaries: Sequence[str]) -> AsyncIterator[Proxy]:
    """Before two primaries' addresses, once it has seen that one of them stands by."""
    config, proxy = _caddy_config(directory, primaries)
    command = [str(CADDY), "run", "--config", str(config), "--adapter", "caddyfile"]
    home = {name: str(directory) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    # It looks at the primaries' health before it listens, and is quick with that or not.
    async with _running(command, ["failed expectations", "serving initial configuration"], home):
        yield proxy


def _nginx_config(directory: Path, primaries: Sequence[str], agents: str) -> tuple[Path, Proxy]:
    directory.mkdir()
    certificate, key = self_signed(directory, NAME)
    plain, https, passed = free_ports(3)
    bodies = "".join(
        f"{kind}_temp_path {directory / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    first, second = primaries
    config = directory / "nginx.conf"
    config.write_text(
        adapted(
            "nginx.conf",
            {
                "user www-data;": "user root;" if os.geteuid() == 0 else "",
                "pid /run/nginx.pid;": f"pid {directory / 'pid'};",
                "error_log /var/log/nginx/error.log;": "error_log stderr notice;",
                "access_log /var/log/nginx/access.log;": f"access_log off;\n{bodies}",
                "include /etc/nginx/modules-enabled/*.conf;": f"load_module {NGINX_STREAM};",
                "/etc/ssl/trueup/fullchain.pem": str(certificate),
                "/etc/ssl/trueup/key.pem": str(key),
                "listen 80;": f"listen 127.0.0.1:{plain};",
                "listen 443 ": f"listen 127.0.0.1:{https} ",
                "listen 9001;": f"listen 127.0.0.1:{passed};",
                "server 127.0.0.1:9000 ": f"server {first} ",
                "# server 10.0.0.2:9000 ": f"server {second} ",
                "server 127.0.0.1:9101 ": f"server {agents} ",
            },
        )
    )
    return config, Proxy(https, certificate, passed)


def _caddy_config(directory: Path, primaries: Sequence[str]) -> tuple[Path, Proxy]:
    directory.mkdir()
    certificate, key = self_signed(directory, NAME)
    [https] = free_ports(1)
    first, second = primaries
    config = directory / "Caddyfile"
    config.write_text(
        adapted(
            "Caddyfile",
            {
                "{\n\tservers {": "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {",
                f"\n{NAME} {{\n": f"\n{NAME}:{https} {{\n\ttls {certificate} {key}\n\tbind 127.0.0.1\n",
                "reverse_proxy 127.0.0.1:9000 ": f"reverse_proxy {first} ",
                "# to 10.0.0.2:9000": f"to {second}",
                "# health_": "health_",
            },
        )
    )
    return config, Proxy(https, certificate)


@asynccontextmanager
async def _running(
    command: list[str], ready: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[None]:
    """Once it has said all by which it is `ready`; ended with the block."""
    process = await trio.lowlevel.open_process(command, stderr=-1, env={**os.environ, **environment})
    said = bytearray()
    is_ready = trio.Event()

    async def read() -> None:
        assert process.stderr is not None
        async for data in process.stderr:
            said.extend(data)
            if all(each.encode() in said for each in ready):
                is_ready.set()
        is_ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        try:
            with trio.fail_after(PATIENCE):
                await is_ready.wait()
            assert process.poll() is None, said.decode()
            yield
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()
