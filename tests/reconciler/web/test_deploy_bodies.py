"""Bodies of `/deploy`: which are genuine and in time, and what they ask for."""

import hashlib
import hmac
import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.secrets.values import Secret
from reconciler.web.deliveries import DeliveryRefused
from reconciler.web.deploy_bodies import Asked, read_deploy
from tests.canaries import canary

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = Secret(canary("deploy-secret"))
OLD = {"env": "staging", "tag": "v1.2.4", "triggered_by": "github-actions"}
ONCE = {**OLD, "requested_at": "2026-03-01T12:00:00Z", "nonce": "run-1234-1"}


def signed(body: bytes, key: Secret = KEY) -> list[bytes]:
    return [b"sha256=" + hmac.new(key.reveal().encode(), body, hashlib.sha256).hexdigest().encode()]


def read(content: Any, now: datetime = NOW) -> Asked:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_deploy(signed(body), body, KEY, now=now)


def refusal(content: Any, now: datetime = NOW) -> tuple[int, str]:
    with pytest.raises(DeliveryRefused) as raised:
        read(content, now)
    return raised.value.status, str(raised.value)


def test_the_form_of_older_workflows() -> None:
    asked = read(OLD)
    assert (asked.environment, asked.tag, asked.by, asked.is_once) == (
        "staging",
        "v1.2.4",
        "github-actions via deploy <deploy@localhost>",
        False,
    )


def test_a_request_that_is_one_of_a_kind() -> None:
    asked = read({**ONCE, "service": "web", "rollback": True})
    assert (asked.service, asked.rollback, asked.nonce, asked.is_once) == ("web", True, "run-1234-1", True)
    assert read({**ONCE, "requested_at": int(NOW.timestamp())}).is_once
    assert read(ONCE, NOW + timedelta(minutes=5)).is_once
    assert read({**ONCE, "requested_at": "2026-03-01T13:00:00+01:00"}).is_once


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"{", 400, "is not a request for a deploy"),
        ([], 400, "is not a request for a deploy"),
        ({"env": "staging", "tag": "v1"}, 400, "missing required field `triggered_by`"),
        ({**OLD, "env": ""}, 400, "length >= 1"),
        ({**OLD, "environment": "x"}, 400, "unknown field `environment`"),
        ({**OLD, "nonce": "run-1234-1"}, 400, "belong together"),
        ({**OLD, "requested_at": "2026-03-01T12:00:00Z"}, 400, "belong together"),
        ({**ONCE, "nonce": "short"}, 400, "a nonce has 8 to 200"),
        ({**ONCE, "nonce": "with a space"}, 400, "a nonce has 8 to 200"),
        ({**ONCE, "requested_at": "2026-03-01T12:00:00"}, 401, "not within 5 minutes"),
        ({**ONCE, "requested_at": "2026-03-01T11:54:59Z"}, 401, "not within 5 minutes"),
        ({**ONCE, "requested_at": 10**18}, 401, "not within 5 minutes"),
        ({**OLD, "rollback": True}, 400, "a rollback needs requested_at and nonce"),
    ],
)
def test_what_is_refused(content: Any, status: int, told: str) -> None:
    got, message = refusal(content)
    assert got == status
    assert told in message


def test_nothing_is_read_without_the_signature() -> None:
    body = b"{not even json"
    for signatures in ([], signed(body) * 2, [b"sha256=" + b"0" * 64], signed(body, Secret("other"))):
        with pytest.raises(DeliveryRefused) as raised:
            read_deploy(signatures, body, KEY, now=NOW)
        assert raised.value.status == 401


def test_a_name_cannot_pretend_to_be_an_address() -> None:
    asked = read({**OLD, "triggered_by": "Eve <admin@example.org>\nSigned-off-by: x"})
    assert asked.by == "Eve admin@example.org Signed-off-by: x via deploy <deploy@localhost>"


def test_openssls_signature_is_right() -> None:
    """As documented for shells, with a key that is no secret."""
    body = json.dumps(OLD)
    command = ["openssl", "dgst", "-sha256", "-hmac", "example"]
    ran = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
    said = ran.stdout.split()[-1]
    assert read_deploy([f"sha256={said}".encode()], body.encode(), Secret("example"), now=NOW).tag == "v1.2.4"
