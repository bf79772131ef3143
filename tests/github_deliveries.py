"""Deliveries as GitHub makes them: its published example payloads for our repositories, signed."""

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.world import Host

REPOSITORY, BRANCH = "Codertocat/Hello-World", "master"
"""As the payloads have them."""

SPEC = """\
version: 1
repositories:
  hello: {{url: "{hello}", branch: master}}
projects:
  site:
    repository: hello
    branch: master
    path: site
    sync: {{nodes: [{entries}]}}
nodes:
{nodes}
"""
"""That repository's `site` on hosts."""

PAYLOADS = Path(__file__).parent / "contracts" / "github_webhooks"


def synced(hello: str, hosts: Sequence[Host], nodes: str) -> str:
    """The spec, for the repository at the URL `hello`; `nodes` as `trueup node add` has written them."""
    entries = ", ".join(f'{{node_id: {host.node}, target_path: "{host.srv}/site"}}' for host in hosts)
    return SPEC.format(hello=hello, entries=entries, nodes=nodes)


def payload(name: str, **changed: Any) -> bytes:
    """An example as the body that GitHub would send; `repository` gives its full name."""
    content: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text())
    if (full_name := changed.pop("repository", None)) is not None:
        content["repository"] |= {"full_name": full_name, "name": full_name.rpartition("/")[2]}
    return json.dumps(content | changed).encode()


def headers_of(body: bytes, secret: str, event: str, delivery: str | None = None) -> dict[str, str]:
    """What GitHub sends with it."""
    return {
        "User-Agent": "GitHub-Hookshot/044aadd",
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature(body, secret)}",
    }


def signature(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def pushed(
    full_name: str, secret: str, *, ref: str = "refs/heads/main", after: str = "1" * 40, **more: Any
) -> Mapping[str, Any]:
    """Options of a request that tells of a push."""
    example = "push_tag" if ref.startswith("refs/tags/") else "push"
    body = payload(example, repository=full_name, ref=ref, after=after, **more)
    return {"content": body, "headers": headers_of(body, secret, "push")}
