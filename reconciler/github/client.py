"""GitHub's REST API, as far as secrets go. Values are never read: GitHub tells names and times alone.

Every answer is bounded and every wait has a deadline. No error holds a body, a header or a value: only the
status and, where GitHub names one, a waiting time are taken out of an answer.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Final, Self
from urllib.parse import quote

from reconciler.github.errors import GitHubDown, GitHubRefused
from reconciler.github.pace import Pace
from reconciler.github.scopes import MAX_VALUE, OrganizationScope, RepositoryScope, Scope, SecretMeta
from reconciler.rest_client import Answer, RestClient
from reconciler.retry_after import retry_after
from reconciler.secrets.values import Secret, is_text
from reconciler.spec.addresses import secret_host_fault

DEFAULT_API: Final = "https://api.github.com"
API_VERSION: Final = "2022-11-28"
MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of one answer."""

PAGE: Final = 100
MAX_PAGES: Final = 100
MAX_WAIT: Final = 3600.0
"""Seconds: a longer waiting time is not believed."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What values for one place are sealed with."""

    key_id: str
    key: bytes


class GitHub:
    """`async with GitHub(url, token) as github:`, one connection pool for the length of the block.

    `patience`: seconds that may be spent waiting in all where GitHub asks to come back later. Methods raise
    GitHubDown and GitHubRefused.
    """

    def __init__(
        self, api_url: str, token: Secret, *, patience: float = 30.0, pace: Pace | None = None
    ) -> None:
        self._api = api_url.rstrip("/")
        self._pace = pace or Pace()
        self._rest = RestClient(
            token,
            header="Authorization",
            before="Bearer ",
            headers={"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": API_VERSION},
            max_answer=MAX_ANSWER,
            patience=patience,
        )

    async def __aenter__(self) -> Self:
        if (fault := secret_host_fault(self._api)) is not None:
            raise GitHubRefused(f"GITHUB_API_URL: {self._api} {fault}", status=0)
        await self._rest.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rest.close()

    async def list_secrets(self, scope: Scope) -> dict[str, SecretMeta]:
        """The secrets of a place by name, upper case as GitHub stores them."""
        return await self._listed(scope.path, str(scope))

    async def list_organization_secrets(self, repo: str) -> dict[str, SecretMeta]:
        """The secrets of its organisation that a repository may use."""
        path = RepositoryScope(repo).path.removesuffix("secrets") + "organization-secrets"
        return await self._listed(path, f"the organisation's secrets for {repo}")

    async def public_key(self, scope: Scope) -> PublicKey:
        what = f"{scope}: its public key"
        key = _key_in(await self._ask("GET", f"{scope.path}/public-key", what))
        if key is None:
            raise _unexpected(what)
        return key

    async def put_secret(
        self,
        scope: Scope,
        name: str,
        value: Secret,
        key: PublicKey,
        *,
        visibility: str | None = None,
        selected_repository_ids: Sequence[int] = (),
    ) -> None:
        """Write one secret, sealed for GitHub alone. An organisation's needs `visibility`."""
        what = f"{scope}: writing {name}"
        body: dict[str, Any] = {"encrypted_value": sealed(value, key, what), "key_id": key.key_id}
        if isinstance(scope, OrganizationScope):
            if visibility is None:
                raise GitHubRefused(f"{what}: an organisation's secret needs a visibility", status=0)
            body["visibility"] = visibility
            if visibility == "selected":
                body["selected_repository_ids"] = list(selected_repository_ids)
        await self._ask("PUT", f"{scope.path}/{name}", what, body)

    async def delete_secret(self, scope: Scope, name: str) -> None:
        """Remove one secret; one that is gone already is no error."""
        try:
            await self._ask("DELETE", f"{scope.path}/{name}", f"{scope}: deleting {name}")
        except GitHubRefused as error:
            if error.status != 404:
                raise

    async def repository_id(self, repo: str) -> int:
        path = _repository_path(repo)
        number = _id_in(await self._ask("GET", path, f"repository {repo}"))
        if number is None:
            raise _unexpected(f"repository {repo}")
        return number

    async def dispatch(self, repo: str, event_type: str, payload: Mapping[str, Any]) -> None:
        """Start the workflows of a repository that wait for this event (`repository_dispatch`)."""
        path = _repository_path(repo) + "/dispatches"
        body = {"event_type": event_type, "client_payload": dict(payload)}
        await self._ask("POST", path, f"{repo}: dispatching {event_type}", body)

    async def set_commit_status(
        self, repo: str, commit: str, *, state: str, context: str, description: str
    ) -> None:
        """Give a commit a status: `pending`, `success`, `failure` or `error`. It stands before the others."""
        body = {"state": state, "context": context, "description": description}
        path = _repository_path(repo)
        await self._ask("POST", f"{path}/statuses/{commit}", f"{repo}: status of {commit[:12]}", body)

    async def create_release(self, repo: str, tag: str, *, name: str, body: str) -> bool:
        """Make the GitHub Release of a tag that is there; False: it has one, which stays as it is."""
        path, what = _repository_path(repo), f"{repo}: release {tag}"
        mine = f"{path}/releases/tags/{quote(tag, safe='')}"
        if await self._is_there(mine, what):
            return False
        if not await self._is_there(f"{path}/git/ref/tags/{quote(tag)}", what):
            # GitHub would make the tag, of the default branch's tip.
            raise GitHubRefused(
                f"{what}: GitHub has no such tag", status=404, hint="check `repo`, and push the tag there"
            )
        try:
            await self._ask("POST", f"{path}/releases", what, {"tag_name": tag, "name": name, "body": body})
        except GitHubRefused as error:
            if error.status == 422 and await self._is_there(mine, what):
                return False  # somebody else made it meanwhile
            raise
        return True

    async def _is_there(self, path: str, what: str) -> bool:
        try:
            await self._ask("GET", path, what)
        except GitHubRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _listed(self, path: str, what: str) -> dict[str, SecretMeta]:
        found: dict[str, SecretMeta] = {}
        for page in range(1, MAX_PAGES + 1):
            part = _list_in(await self._ask("GET", f"{path}?per_page={PAGE}&page={page}", what))
            if part is None:
                raise _unexpected(what)
            listed, total = part
            found |= {each.name: each for each in listed}
            if not listed or len(found) >= total:
                break
        if len(found) < total:
            # A list that ends early would make secrets look absent that are there.
            raise GitHubDown(f"{what}: GitHub named {len(found)} of {total} secrets")
        return found

    async def _ask(self, method: str, path: str, what: str, body: Mapping[str, Any] | None = None) -> Any:
        """The document of the answer, None where it has none."""
        return await self._rest.patiently(lambda: self._once(method, path, what, body))

    async def _once(self, method: str, path: str, what: str, body: Mapping[str, Any] | None) -> Any:
        if not self._rest.can_be_sent:
            raise GitHubRefused(
                f"{what}: the token for GitHub has characters that no header can carry",
                status=0,
                hint="correct the credential; it is one line of ASCII",
            )
        if method != "GET":
            await self._pace.wait()
        answer = await self._rest.exchange(method, self._api + path, body=body)
        if isinstance(answer, str):
            raise GitHubDown(f"{what}: GitHub at {self._api}: {answer}")
        if not 200 <= answer.status < 300:
            raise _failure(answer, what)
        found, document = _document(answer.content)
        if not found:
            raise _unexpected(what)
        return document


def _repository_path(repo: str) -> str:
    return RepositoryScope(repo).path.removesuffix("/actions/secrets")


def sealed(value: Secret, key: PublicKey, what: str) -> str:
    """The value in a libsodium sealed box, base64: only GitHub can open it."""
    box = _box(value, key)
    if isinstance(box, bytes):
        return base64.b64encode(box).decode()
    if box is _Unsealed.BAD_KEY:
        raise _unexpected(f"{what}: GitHub's public key")
    if box is _Unsealed.NO_TEXT:
        raise GitHubRefused(
            f"{what}: the value is not valid text", status=0, hint="store it anew; binary data in base64"
        )
    raise GitHubRefused(
        f"{what}: the value is larger than GitHub takes ({MAX_VALUE // 1024} KiB)",
        status=0,
        hint="keep it elsewhere and store only the key to it here",
    )


class _Unsealed(Enum):
    """Why there is no box."""

    BAD_KEY = auto()
    NO_TEXT = auto()
    TOO_LARGE = auto()


def _box(value: Secret, key: PublicKey) -> bytes | _Unsealed:
    """The value is in the clear here, so that a problem is data: an error would show this frame."""
    from nacl.exceptions import CryptoError
    from nacl.public import PublicKey as BoxKey
    from nacl.public import SealedBox

    if not is_text(value.reveal()):
        return _Unsealed.NO_TEXT
    plain = value.reveal().encode()
    if len(plain) > MAX_VALUE:
        return _Unsealed.TOO_LARGE
    try:
        return SealedBox(BoxKey(key.key)).encrypt(plain)
    except (CryptoError, ValueError, TypeError):
        return _Unsealed.BAD_KEY


def _document(content: bytes) -> tuple[bool, Any]:
    """Whether it is a document, and the one it is; None for no content."""
    if not content.strip():
        return True, None
    with suppress(ValueError, RecursionError):
        return True, json.loads(content)
    return False, None


# These three give None for an answer of another shape instead of raising: whatever stands between GitHub
# and us could have put into it what we sent.


def _key_in(answer: Any) -> PublicKey | None:
    with suppress(KeyError, TypeError, ValueError):
        return PublicKey(str(answer["key_id"]), base64.b64decode(answer["key"], validate=True))
    return None


def _id_in(answer: Any) -> int | None:
    number = answer.get("id") if isinstance(answer, dict) else None
    return number if isinstance(number, int) else None


def _list_in(answer: Any) -> tuple[list[SecretMeta], int] | None:
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        listed = [
            SecretMeta(str(each["name"]).upper(), str(each["updated_at"]), each.get("visibility"))
            for each in answer["secrets"]
        ]
        return listed, int(answer["total_count"])
    return None


def _unexpected(what: str) -> GitHubDown:
    return GitHubDown(
        f"{what}: not what GitHub's API answers",
        hint="check GITHUB_API_URL, and what stands in front of it",
    )


def _failure(answer: Answer, what: str) -> GitHubDown | GitHubRefused:
    status, wait = answer.status, waiting_time(answer.headers, now=datetime.now(UTC))
    shown = f"(http {status})"
    if status == 429 or (status == 403 and wait is not None):
        return GitHubDown(f"{what}: GitHub asks to slow down {shown}", retry_after=wait)
    if status >= 500 or status == 408:
        return GitHubDown(f"{what}: GitHub has a fault {shown}", retry_after=wait)
    said, hint = {
        401: ("GitHub does not accept the token", "make a new token, or correct the credential"),
        403: ("the token has no right to this", "it needs to write secrets, statuses or contents"),
        404: ("not there, or the token has no right to see it", "check the names, and the token's rights"),
        409: ("GitHub is at work on the same thing", "try again"),
        422: ("GitHub does not accept the request", "check names and visibility"),
    }.get(status, ("GitHub redirects or refuses", "check the name: a repository that moved has a new one"))
    return GitHubRefused(f"{what}: {said} {shown}", status=status, hint=hint)


def waiting_time(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds that GitHub asks to wait: `Retry-After`, or until a used-up rate limit is reset."""
    wait = retry_after(headers, now)
    reset = headers.get("X-RateLimit-Reset", "").strip()
    if wait is None and headers.get("X-RateLimit-Remaining", "").strip() == "0" and reset.isdecimal():
        wait = float(reset) - now.timestamp()
    return None if wait is None else min(max(wait, 1.0), MAX_WAIT)
