"""The table of routes in `docs/api.md` is the one in the code."""

from pathlib import Path
from typing import Any, cast

import httpx

from reconciler.primary import open_primary
from reconciler.runner import Runner
from reconciler.settings import load_settings
from reconciler.setup import make_key
from reconciler.web.app import public_app
from tests.canaries import may_hold
from tests.gitrepo import GitRepo

PAGE = Path(__file__).parent.parent / "docs/api.md"
HEAD = "| request | who | |\n|---|---|---|\n"


def row(method: str, path: str, operation: dict[str, Any]) -> str:
    signed = "a signature" if operation["security"] else "anybody"
    return f"| `{method.upper()} {path}` | {operation.get('x-role', signed)} | {operation['summary']} |\n"


async def test_the_table_of_routes(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "HOME": str(tmp_path),
            "TRUEUP_SPEC_REPO": GitRepo.create(tmp_path / "spec.git").url,
            "TRUEUP_STATE_DIR": str(tmp_path / "state"),
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
        },
        root=False,
    )
    may_hold(tmp_path / "state/master.key")
    list(make_key(settings))
    async with open_primary(settings) as primary:
        transport = httpx.ASGITransport(cast(Any, public_app(Runner(primary))))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
    wanted = "".join(
        row(method, path, operation)
        for path, operations in sorted(paths.items())
        for method, operation in sorted(operations.items())
    )
    text = PAGE.read_text()
    start = text.index(HEAD) + len(HEAD)
    found = text[start : text.find("\n\n", start) + 1]
    assert found == wanted, f"docs/api.md should have:\n\n{wanted}"
