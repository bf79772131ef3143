"""Deliveries of webhooks: what is genuine, what it says, and which secret sources it concerns."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.secrets.values import Secret
from reconciler.spec.secret_model import EnvFileSettings, InfisicalSettings, SecretSource
from reconciler.web.deliveries import (
    Acknowledged,
    DeliveryRefused,
    Pushed,
    RotationFailed,
    SecretsModified,
    WorkflowCompleted,
    read_github,
    read_infisical,
    sources_in,
)
from tests.canaries import canary

NOW = 1_700_000_000_000
BODY = (
    b'{"event":"secrets.modified","project":{"workspaceId":"p","projectId":"p","projectName":"n",'
    b'"environment":"dev","environmentName":"Dev","secretPath":"/"},"timestamp":1700000000000}'
)
SIGNATURE = b"t=1700000000000;9da605ff300e6730666e93968459bfff61b2960ca611bab443a9bdfead60f875"
"""Made by Infisical's own code with the key `k`."""

KEY = Secret("k")


def hex_of(body: bytes, key: str = "k") -> bytes:
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest().encode()


def infisical(event: str, **project: str) -> tuple[list[bytes], bytes]:
    body = json.dumps({"event": event, "project": project, "timestamp": NOW}).encode()
    return [b"t=%d;%s" % (NOW, hex_of(body))], body


def refusal(signatures: list[bytes], body: bytes, now_ms: int = NOW) -> int:
    with pytest.raises(DeliveryRefused) as raised:
        read_infisical(signatures, body, KEY, now_ms=now_ms)
    return raised.value.status


def test_infisicals_own_signature() -> None:
    assert read_infisical([SIGNATURE], BODY, KEY, now_ms=NOW) == SecretsModified("p", "dev", "/")


@pytest.mark.parametrize(
    "signatures",
    [
        [],
        [SIGNATURE, SIGNATURE],
        [b""],
        [SIGNATURE + b"\n"],
        [SIGNATURE.upper()],
        [SIGNATURE[:-1] + b"4"],
        [SIGNATURE.partition(b";")[2]],
        ["t=1700000000000;ü".encode()],
        ["t=١٧٠٠٠٠٠٠٠٠٠٠٠;".encode() + b"0" * 64],
        [b"\xff\x00" * 40],
        [b"t=" + b"9" * 5000 + b";" + b"0" * 64],
    ],
)
def test_a_signature_that_is_none(signatures: list[bytes]) -> None:
    assert refusal(signatures, BODY) == 401


@given(st.lists(st.binary(max_size=120), max_size=3), st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(signatures: list[bytes], body: bytes) -> None:
    assert refusal(signatures, body) == 401
    with pytest.raises(DeliveryRefused):
        read_github(signatures, "push", body, KEY)


def test_the_body_counts_byte_for_byte() -> None:
    assert refusal([SIGNATURE], BODY + b" ") == 401
    assert refusal([SIGNATURE], BODY.replace(b'"dev"', b'"prd"')) == 401
    with pytest.raises(DeliveryRefused):
        read_infisical([SIGNATURE], BODY, Secret(canary("another")), now_ms=NOW)


def test_an_old_delivery_and_one_whose_time_was_changed() -> None:
    assert refusal([SIGNATURE], BODY, NOW + 300_001) == 401
    assert refusal([SIGNATURE], BODY, NOW - 300_001) == 401
    read_infisical([SIGNATURE], BODY, KEY, now_ms=NOW + 300_000)
    # The time in the header is not signed: putting a new one there does not make it young.
    later = SIGNATURE.replace(b"t=1700000000000", b"t=1700000900000")
    assert refusal([later], BODY, NOW + 900_000) == 401


def test_signed_and_no_such_event() -> None:
    for body in (b"", b"[]", b"{}", b'{"event": 1, "timestamp": 2}', b'{"event": "test"}', b"\xff", b"x=1"):
        assert refusal([b"t=%d;%s" % (NOW, hex_of(body))], body) == 400


def test_what_infisical_says() -> None:
    def read(event: str, **project: str) -> object:
        signatures, body = infisical(event, **project)
        return read_infisical(signatures, body, KEY, now_ms=NOW)

    place = {"workspaceId": "p", "environment": "prod", "secretPath": "/app"}
    assert read("secrets.modified", **place) == SecretsModified("p", "prod", "/app")
    assert read("secrets.modified", projectId="q", environment="e") == SecretsModified("q", "e", "/")
    assert read("secrets.rotation-failed", **place) == RotationFailed("p", "prod", "/app")
    assert read("test") == Acknowledged("test")
    assert read("secrets.of-tomorrow", **place) == Acknowledged("secrets.of-tomorrow")


def test_what_github_says() -> None:
    def read(event: str, **content: object) -> object:
        body = json.dumps(content).encode()
        return read_github([b"sha256=" + hex_of(body)], event, body, KEY)

    repository = {"full_name": "org/app", "private": True}
    assert read("push", ref="refs/heads/main", repository=repository) == Pushed("org/app", "refs/heads/main")
    assert read("ping", zen="Keep it simple.") == Acknowledged("ping")
    assert read("workflow_run", action="completed", repository=repository) == WorkflowCompleted("org/app")
    assert read("workflow_run", action="requested", repository=repository) == Acknowledged("workflow_run")
    assert read("issues", action="opened") == Acknowledged("issues")
    form = b"payload=%7B%7D"
    with pytest.raises(DeliveryRefused, match="application/json") as raised:
        read_github([b"sha256=" + hex_of(form)], "push", form, KEY)
    assert raised.value.status == 400


def source(name: str, **settings: object) -> SecretSource:
    given = {"project_id": "p", "environment_slug": "dev", **settings}
    return SecretSource(name=name, kind="infisical", settings=InfisicalSettings(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("root", "deep")),
        ("/app", ("deep", "app", "app-deep")),
        ("/app/", ("deep", "app", "app-deep")),
        ("/app/db", ("deep", "app-deep")),
        ("/apple", ("deep",)),
        ("", ("root", "deep")),
    ],
)
def test_which_sources_read_a_folder(path: str, expected: tuple[str, ...]) -> None:
    sources = [
        source("root"),
        source("deep", recursive=True),
        source("app", secret_path="/app"),
        source("app-deep", secret_path="/app/", recursive=True),
        source("other-environment", environment_slug="prod", recursive=True),
        source("other-project", project_id="q", recursive=True),
        SecretSource(name="file", kind="env_file", settings=EnvFileSettings(file=".env")),
    ]
    assert sources_in(SecretsModified("p", "dev", path), sources) == expected
