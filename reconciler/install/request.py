"""The options of `trueup node install`, checked, as what the installation works from."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.node_token import NodeToken
from reconciler.errors import SettingsError
from reconciler.install.node import Request
from reconciler.install.plan import Wanted
from reconciler.install.ssh import SshHost
from reconciler.joining import addresses
from reconciler.nodes import labels_of, this_host
from reconciler.primary import load_key
from reconciler.settings import Settings

MAX_TOKEN: Final = 4096


def make_request(
    settings: Settings,
    *,
    name: str,
    destination: str,
    port: int | None,
    ssh_config: Path | None,
    sudo: bool,
    primaries: Sequence[str],
    roots: Sequence[str],
    owners: Sequence[str],
    allow: Sequence[str],
    labels: Sequence[str],
    user: str,
    prefix: str,
    config: str,
    host_state: str,
    unit: str,
    unit_dir: str,
    no_service: bool,
    python: str,
    offline: bool,
    wheel: Path | None,
    lock: Path | None,
    token_file: str | None,
    replace: bool,
    wait: float,
) -> Request:
    """Raises SettingsError with the option that is wrong."""
    for command in allow:
        if "=" not in command:
            raise SettingsError(f"--allow {command!r} is not NAME=COMMAND")
    wanted = Wanted(
        node=name,
        primaries=tuple(addresses(primaries)),
        pin=load_key(settings).tls_fingerprint,
        roots=tuple(root.rstrip("/") or "/" for root in roots),
        owners=tuple(owners),
        allow=tuple(allow),
        user=user,
        prefix=prefix.rstrip("/"),
        config=config,
        state_dir=host_state.rstrip("/"),
        unit=unit,
        unit_dir=unit_dir.rstrip("/"),
        python=python,
        offline=offline,
        service=not no_service,
        wait=max(1, int(wait)),
    )
    environment = settings.tool_environment()
    # ssh is started elsewhere.
    own_config = None if ssh_config is None else ssh_config.absolute()
    host = SshHost(destination, environment, port=port, config=own_config, sudo=sudo)
    token = None if token_file is None else NodeToken.from_text(_read(token_file), where="--token-file")
    return Request(
        wanted=wanted,
        host=host,
        here=f"{this_host()}:{settings.tcp_addr.port}",
        labels=tuple(labels_of(labels).items()),
        wheel=wheel,
        lock=lock,
        token=token,
        replace=replace,
    )


def _read(path: str) -> str:
    if path == "-":
        return sys.stdin.readline(MAX_TOKEN)
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TOKEN)
    except OSError as error:
        raise SettingsError(f"--token-file {path}: {error.strerror}") from None
