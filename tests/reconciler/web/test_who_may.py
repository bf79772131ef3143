"""Every route by every caller and method: generated from what is served, so that a new route is in it."""

from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx

from reconciler.primary import Primary, open_primary, utc_now
from reconciler.runner import Runner
from reconciler.settings import load_settings
from reconciler.setup import make_key
from reconciler.token_file import TokenFile, append_token, new_token
from reconciler.web.app import public_app
from reconciler.web.door import Door
from tests.canaries import canary, may_hold
from tests.gitrepo import GitRepo

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
OPEN = {"/", "/health", "/health/live", "/health/ready", "/openapi.json", "/deploy/{id}"}
"""What may be asked without a token and without a signature; nothing else."""


async def test_every_route_by_every_caller(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "HOME": str(tmp_path),
            "TRUEUP_SPEC_REPO": GitRepo.create(tmp_path / "spec.git").url,
            "TRUEUP_STATE_DIR": str(tmp_path / "state"),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
            "WEBHOOK_SECRET": canary("matrix-webhook-secret"),
        },
        root=False,
    )
    may_hold(tmp_path / "state/master.key")
    list(make_key(settings))
    tokens = make_tokens(tmp_path / "tokens")
    async with open_primary(settings) as primary:
        primary.metrics.open()
        await check(primary, Door(TokenFile(tmp_path / "tokens"), now=utc_now, clock=fast_clock()), tokens)


def fast_clock() -> Callable[[], float]:
    """At each look a limit is over."""
    hours = count()
    return lambda: next(hours) * 3600.0


def make_tokens(path: Path) -> dict[str, str | None]:
    def long_ago() -> datetime:
        return datetime.fromisoformat("2020-01-01T00:00:00+00:00")

    tokens: dict[str, str | None] = {"nobody": None, "wrong": "trueup_" + "0" * 64}
    for name, role, lasts, now in (
        ("expired", "operate", 60.0, long_ago),
        ("reader", "read", None, utc_now),
        ("operator", "operate", 3600.0, utc_now),
    ):
        token, entry = new_token(name, cast(Any, role), lasts=lasts, now=now)
        append_token(path, entry)
        tokens[name] = token.reveal()
    return tokens


async def check(primary: Primary, door: Door, tokens: dict[str, str | None]) -> None:
    # An error of ours is a 500 here, as the guard answers it.
    transport = httpx.ASGITransport(cast(Any, public_app(Runner(primary), door)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        paths: dict[str, Any] = (await client.get("/openapi.json")).json()["paths"]
        opened = {path for path, each in paths.items() for one in each.values() if not one["security"]}
        assert opened == OPEN
        wrong: list[str] = []
        for path, operations in paths.items():
            for method in METHODS:
                operation = operations.get(("GET" if method == "HEAD" else method).lower())
                for caller, token in tokens.items():
                    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                    asked = path.replace("{", "").replace("}", "")
                    status = (await client.request(method, asked, headers=headers)).status_code
                    if not is_right(status, operation, caller):
                        wrong.append(f"{method} {path} by {caller}: {status}")
        assert not wrong
        for path in ("/api", "/api/", "/api/nothing", "/API/services", "/api//services", "/page"):
            headers = {"Authorization": f"Bearer {tokens['operator']}"}
            assert (await client.get(path, headers=headers)).status_code == 404


def is_right(status: int, operation: dict[str, Any] | None, caller: str) -> bool:
    if operation is None:
        return status == 405
    role = operation.get("x-role")
    if role is not None and caller in ("nobody", "wrong", "expired"):
        return status == 401
    if role == "operate" and caller == "reader":
        return status == 403
    if role is None and operation["security"]:
        # Nothing of this was signed; a token lets an operator go on to where a body is missed.
        return status in (401, 403, 404) or (status == 400 and caller == "operator")
    return status != 500 and (status not in (401, 403) or "signature" in operation["summary"])
