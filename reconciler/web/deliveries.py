"""Webhooks of Infisical and GitHub: whether a delivery is genuine, and what it says. Pure.

Nothing of a body is looked at before its signature was found right over the raw bytes.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from reconciler.secrets.values import Secret
from reconciler.spec.secret_model import InfisicalSettings, SecretSource
from reconciler.status.conditions import bounded
from reconciler.web.refusals import RequestRefused

MAX_AGE_MS: Final = 5 * 60 * 1000
"""How far Infisical's time of sending may be from ours: an old delivery does nothing a second time."""

_INFISICAL = re.compile(rb"t=([0-9]{1,16});([0-9a-f]{64})")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_GITHUB = re.compile(rb"sha256=([0-9a-f]{64})")

Body = TypeVar("Body")


class DeliveryRefused(RequestRefused):
    """A delivery that is not acted on."""

    reason = "DeliveryRefused"


@dataclass(frozen=True, slots=True)
class SecretsModified:
    """Something in a folder of an Infisical project is another than before."""

    project: str
    environment: str
    path: str


@dataclass(frozen=True, slots=True)
class RotationFailed:
    """Infisical could not rotate a secret."""

    project: str
    environment: str
    path: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """A branch or tag of a repository on GitHub moved."""

    repository: str
    ref: str
    commit: str = ""
    """Where it is now; empty where it was deleted, or that is not said."""


@dataclass(frozen=True, slots=True)
class WorkflowCompleted:
    """A run of a workflow of a repository on GitHub ended, well or not."""

    repository: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Genuine, and nothing follows from it."""

    event: str


@dataclass(frozen=True, slots=True)
class PassAsked:
    """Somebody asked for a pass; see `Runner.ask`."""

    why: str
    resources: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


Delivery = SecretsModified | RotationFailed | Pushed | WorkflowCompleted | Acknowledged | PassAsked

FORMS: Final[Mapping[str, type[Delivery]]] = {
    form.__name__: form
    for form in (SecretsModified, RotationFailed, Pushed, WorkflowCompleted, Acknowledged, PassAsked)
}
"""By name, as deliveries are kept: a later version knows these names too."""


class _Project(msgspec.Struct):
    workspaceId: str = ""
    projectId: str = ""
    environment: str = ""
    secretPath: str = "/"


class _InfisicalBody(msgspec.Struct):
    event: str
    timestamp: int
    project: _Project = msgspec.field(default_factory=_Project)


class _Repository(msgspec.Struct):
    full_name: str = ""


class _GitHubBody(msgspec.Struct):
    repository: _Repository | None = None
    ref: str = ""
    after: str = ""
    action: str = ""


def read_infisical(signatures: Sequence[bytes], body: bytes, secret: Secret, *, now_ms: int) -> Delivery:
    """`signatures`: all headers `x-infisical-signature` of the request. Raises DeliveryRefused."""
    header = _INFISICAL.fullmatch(_only(signatures, "x-infisical-signature"))
    if header is None or not _is_signed(header[2], body, secret):
        raise DeliveryRefused(401, "the signature is not right; is it the webhook's own secret?")
    content = _decode(body, _InfisicalBody)
    # The signature covers the body alone: the time that counts is the one in there.
    if content.timestamp != int(header[1]) or abs(now_ms - content.timestamp) > MAX_AGE_MS:
        raise DeliveryRefused(401, "its time is not the signed one, or not within 5 minutes of ours")
    project = content.project
    place = (project.workspaceId or project.projectId, project.environment, project.secretPath)
    match content.event:
        case "secrets.modified":
            return SecretsModified(*place)
        case "secrets.rotation-failed":
            return RotationFailed(*place)
    return Acknowledged(content.event)


def read_github(signatures: Sequence[bytes], event: str, body: bytes, secret: Secret) -> Delivery:
    """`signatures`: all headers `X-Hub-Signature-256`; `event`: `X-GitHub-Event`. Raises DeliveryRefused."""
    check_github_signature(signatures, body, secret)
    if event not in ("push", "workflow_run", "ping"):
        return Acknowledged(bounded(event, 100))
    # That of a ping too: at its set-up a webhook should tell that it has the wrong content type.
    content = _decode(body, _GitHubBody)
    repository = content.repository.full_name if content.repository is not None else ""
    if event == "push":
        commit = content.after if _COMMIT.fullmatch(content.after) and content.after.strip("0") else ""
        return Pushed(bounded(repository, 300), bounded(content.ref, 300), commit)
    return WorkflowCompleted(repository) if content.action == "completed" else Acknowledged(event)


def check_github_signature(signatures: Sequence[bytes], body: bytes, secret: Secret) -> None:
    """Raises DeliveryRefused unless there is one, and it is that of the body."""
    header = _GITHUB.fullmatch(_only(signatures, "X-Hub-Signature-256"))
    if header is None or not _is_signed(header[1], body, secret):
        raise DeliveryRefused(401, "the signature is not right; is it made with this endpoint's own secret?")


def sources_in(event: SecretsModified, sources: Iterable[SecretSource]) -> tuple[str, ...]:
    """The names of the sources that read the folder of the event."""
    return tuple(source.name for source in sources if _reads(source, event))


def _reads(source: SecretSource, event: SecretsModified) -> bool:
    settings = source.settings
    if not isinstance(settings, InfisicalSettings):
        return False
    if (settings.project_id, settings.environment_slug) != (event.project, event.environment):
        return False
    own, other = (f"/{path.strip('/')}/".replace("//", "/") for path in (settings.secret_path, event.path))
    return other.startswith(own) if settings.recursive else other == own


def is_at_github(url: str, full_name: str) -> bool:
    """Whether a repository's URL may be that of the one GitHub calls by this name, on whatever host.

    Doubt costs a look at more than was meant; a name that no URL has makes a pass look at everything.
    """
    path = url.rstrip("/").removesuffix(".git").replace(":", "/").lower()
    return path.endswith(f"/{full_name.lower()}")


def _only(signatures: Sequence[bytes], name: str) -> bytes:
    if len(signatures) != 1:
        what = "more than one header" if signatures else "no header"
        raise DeliveryRefused(401, f"there is {what} {name}")
    return signatures[0]


def _is_signed(claimed: bytes, body: bytes, secret: Secret) -> bool:
    right = hmac.new(secret.reveal().encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right.encode(), claimed)


def _decode(body: bytes, form: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise DeliveryRefused(
            400, "the body is not the JSON of such an event; set the content type to application/json"
        ) from None
