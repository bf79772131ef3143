"""`examples/container/`: the file is sound, takes what is there, and its settings are ones that trueup knows.

No container is built here: that takes a base image from somewhere else.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from reconciler.settings import Settings, load_settings
from reconciler.settings_values import Address
from tests.canaries import canary, may_hold

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "container"
FILE = (EXAMPLE / "Containerfile").read_text()
COMPOSE = (EXAMPLE / "compose.yaml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

COPIED = {
    source
    for line in re.findall(r"^COPY (?!--)(.+)$", FILE, re.MULTILINE)
    for source in line.split()[:-1]  # the last one is where to
}

COMMENTED = re.compile(r"^( *)# ((?:- )?(?:[A-Z_]+|[a-z-]+)(?:: \S.*)?)$", re.MULTILINE)
"""Lines that are there to be taken into use."""

SECRETS = "/run/secrets/"


def test_a_linter_finds_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", EXAMPLE / "Containerfile"], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_it_takes_all_of_trueup_and_nothing_else() -> None:
    for source in COPIED:
        assert (ROOT / source).exists(), source
    packages = {
        each.partition(".")[0] for each in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= COPIED
    let_in = (EXAMPLE / "Containerfile.dockerignore").read_text().splitlines()
    assert let_in[1] == "*"
    assert {line.removeprefix("!") for line in let_in if line.startswith("!")} == COPIED


def test_nothing_is_installed_that_no_hash_covers() -> None:
    installs = re.findall(r"pip install (.+)", FILE)
    assert installs == [
        "--no-cache-dir --require-hashes -r requirements/reconciler.lock",
        "--no-cache-dir --no-deps --no-build-isolation .",
    ]
    assert re.search(r"^ARG BASE=\S+/python:3\.\d+\.\d+-slim-\w+$", FILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", FILE, re.MULTILINE)) == {"${BASE}"}


def test_what_runs_is_trueup_as_nobody_special() -> None:
    assert instruction("USER") == "10001:10001"
    [command] = json.loads(instruction("ENTRYPOINT"))
    assert Path(command).name in PROJECT["project"]["scripts"]
    assert json.loads(instruction("CMD")) == ["serve"]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)], ids=["well", "ill"])
def test_it_is_healthy_if_it_answers_well(status: int, code: int) -> None:
    with answering(status) as port:
        assert health(port) == code


def test_it_is_not_healthy_if_nobody_answers() -> None:
    with answering(200) as port:
        pass
    assert health(port) == 1


@pytest.mark.parametrize("all_of_it", [False, True], ids=["as it is", "all taken into use"])
def test_compose_gives_it_settings_and_secrets_that_are_there(tmp_path: Path, all_of_it: bool) -> None:
    compose = yaml.safe_load(COMMENTED.sub(r"\1\2", COMPOSE) if all_of_it else COMPOSE)
    service = compose["services"]["trueup"]
    given = set(service["secrets"])
    assert given == set(compose["secrets"])
    named = set(re.findall(rf"{SECRETS}([\w-]+)", " ".join(service["environment"].values())))
    assert named == given
    settings = settings_of(service, tmp_path)
    assert settings.master_key is not None
    assert (settings.webhook_secret is not None) == all_of_it
    assert (settings.api_tokens_file is not None) == all_of_it
    # What the image says of addresses and state is what is published and kept.
    assert settings.http_addr == Address(None, 9000)
    assert settings.tcp_addr == Address(None, 9001)
    assert service["ports"] == ["127.0.0.1:9000:9000", "9001:9001"]
    assert service["volumes"] == [f"state:{settings.state_dir}"]
    build = service["build"]
    assert (EXAMPLE / build["context"] / build["dockerfile"]).resolve() == EXAMPLE / "Containerfile"


def settings_of(service: dict[str, Any], tmp_path: Path) -> Settings:
    """What a primary reads in that container, whose secrets are files here."""
    image = dict(re.findall(r"([A-Z_]+)=(\S+)", instruction("ENV")))
    for name in service["secrets"]:
        may_hold(tmp_path / name).write_text(canary(f"container-{name}"))
    environment = {
        name: value.replace(SECRETS, f"{tmp_path}/") for name, value in service["environment"].items()
    }
    return load_settings(image | environment, root=False)


def instruction(name: str) -> str:
    """What stands behind the last instruction of that name, its further lines included."""
    return re.findall(rf"^{name} ((?:.*\\\n)*.*)$", FILE, re.MULTILINE)[-1]  # type: ignore[no-any-return]


def health(port: int) -> int:
    command = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert "9000" in command[2]
    return subprocess.run(
        [sys.executable, command[1], command[2].replace("9000", str(port))], capture_output=True, timeout=60
    ).returncode


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
