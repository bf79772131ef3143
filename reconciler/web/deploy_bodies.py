"""What a body of `POST /deploy` asks for, once its signature was found right. Pure.

A body that says when it was made and holds a nonce is one of a kind: it counts once, and for five minutes.
One without, as older workflows send it, can be sent again by whoever saw it, so that it may do little.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from reconciler.secrets.values import Secret
from reconciler.status.conditions import bounded
from reconciler.web.deliveries import DeliveryRefused, check_github_signature

MAX_AGE: Final = timedelta(minutes=5)
"""How far the time in a body may be from ours."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_NONCE: Final = re.compile(r"[A-Za-z0-9._:/+=-]{8,200}")


class DeployBody(msgspec.Struct, forbid_unknown_fields=True):
    env: Name
    tag: Name
    triggered_by: Name
    service: Annotated[str, msgspec.Meta(max_length=255)] = ""
    requested_at: datetime | int | None = None
    nonce: str = ""
    rollback: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a deploy, genuine and in time."""

    environment: str
    tag: str
    service: str
    rollback: bool
    by: str
    """`Name <email>`, as records have it."""
    digest: str
    """Of the whole body: two requests with one nonce have to be the same."""
    nonce: str = ""
    """Empty: it may have been sent before, by anybody."""

    @property
    def is_once(self) -> bool:
        return bool(self.nonce)


def read_deploy(signatures: Sequence[bytes], body: bytes, secret: Secret, *, now: datetime) -> Asked:
    """`signatures`: all headers `X-Hub-Signature-256` of the request. Raises DeliveryRefused."""
    check_github_signature(signatures, body, secret)
    try:
        content = msgspec.json.decode(body, type=DeployBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DeliveryRefused(400, f"the body is not a request for a deploy: {bounded(str(error))}") from None
    check_once(content.requested_at, content.nonce, now)
    if content.rollback and not content.nonce:
        raise DeliveryRefused(
            400, "a rollback needs requested_at and nonce, or it would count each time it is sent"
        )
    return Asked(
        environment=content.env,
        tag=content.tag.removeprefix("refs/tags/"),
        service=content.service,
        rollback=content.rollback,
        by=_person(content.triggered_by),
        digest=hashlib.sha256(body).hexdigest(),
        nonce=content.nonce,
    )


def check_once(requested_at: datetime | int | None, nonce: str, now: datetime) -> None:
    """Raises DeliveryRefused unless there are a time of now and a nonce, or neither."""
    if bool(nonce) != (requested_at is not None):
        raise DeliveryRefused(400, "requested_at and nonce belong together: send both, or neither")
    if nonce and not _NONCE.fullmatch(nonce):
        raise DeliveryRefused(400, "a nonce has 8 to 200 letters, digits or ._:/+=-")
    if requested_at is not None and not _is_now(requested_at, now):
        raise DeliveryRefused(401, "requested_at is not within 5 minutes of our time")


def _is_now(said: datetime | int, now: datetime) -> bool:
    try:
        at = datetime.fromtimestamp(said, UTC) if isinstance(said, int) else said
    except (OverflowError, OSError, ValueError):
        return False
    return at.tzinfo is not None and abs(now - at) <= MAX_AGE


def _person(name: str) -> str:
    """Who asked, as the author of a record: through this door, so it is the workflow's word for it."""
    clean = bounded(re.sub(r"[<>]", " ", name), 100) or "somebody"
    return f"{clean} via deploy <deploy@localhost>"
