"""What is done to a node shows at once, on the page and in the API, whatever the newest pass has read."""

from pathlib import Path

import httpx

from reconciler.reconcile import reconcile
from reconciler.web.page.look import Looking
from tests.delivering import Delivering, Place, delivering
from tests.ports import free_port

KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
SPEC = f"""\
version: 1
nodes:
  web-1: {{token_key: "{KEY}"}}
"""


async def test_the_last_node_of_a_spec_is_let_go_too(tmp_path: Path) -> None:
    place = Place.make(tmp_path, SPEC, SYNC_TCP_ADDR=f"127.0.0.1:{free_port()}")
    async with delivering(place, passes=False) as running:
        await reconcile(running.primary, patience=0)
        assert (hub := running.primary.hub) is not None and hub.knows("web-1")
        place.spec.commit({"trueup.yaml": "version: 1\n"})
        await reconcile(running.primary, patience=0)
        assert not hub.knows("web-1")


class Case:
    """A primary that has made one pass and makes no other, so that what it has read grows old."""

    def __init__(self, primary: Delivering) -> None:
        self._client = primary.client
        self._looking = Looking(primary.runner)

    async def done(self, path: str, method: str = "POST", **body: str) -> httpx.Response:
        answered = await self.ask(path, method, **body)
        assert answered.is_success, answered.text
        return answered

    async def ask(self, path: str, method: str, **body: str) -> httpx.Response:
        return await self._client.request(method, f"/api/{path}", json=body if method == "POST" else None)

    async def health(self, node: str = "web-1") -> str:
        """As the API tells it, after the page has said the same."""
        health: str = (await self.done(f"sync/nodes/{node}", "GET")).json()["health"]
        assert {"revoked": "revoked", "unpaired": "not paired"}[health] in await self.page()
        return health

    async def page(self) -> str:
        sections = await self._looking.sections((), anew=True)
        return next(each.for_session("") for each in sections if each.id == "nodes")


async def test_a_token_that_is_taken_back_or_given(tmp_path: Path) -> None:
    place = Place.make(tmp_path, SPEC, SYNC_TCP_ADDR=f"127.0.0.1:{free_port()}")
    async with delivering(place, passes=False) as primary:
        await reconcile(primary.primary, patience=0)
        it = Case(primary)
        assert await it.health() == "unpaired"
        await it.done("sync/nodes/web-1/revoke")
        assert await it.health() == "revoked"
        await it.done("sync/nodes/web-1/rotate-token")
        assert await it.health() == "unpaired"
        await it.done("sync/nodes/web-1/revoke")
        assert await it.health() == "revoked"
        await it.done("resources/nodes/web-1/resume")
        assert await it.health() == "unpaired"


async def test_a_node_that_comes_and_goes(tmp_path: Path) -> None:
    place = Place.make(tmp_path, SPEC, SYNC_TCP_ADDR=f"127.0.0.1:{free_port()}")
    async with delivering(place, passes=False) as primary:
        await reconcile(primary.primary, patience=0)
        it = Case(primary)
        assert "web-2" not in await it.page()
        await it.done("sync/nodes", node="web-2")
        assert await it.health("web-2") == "unpaired"
        assert "web-2" in await it.page()
        await it.done("sync/nodes/web-2", "DELETE")
        assert (await it.ask("sync/nodes/web-2", "GET")).status_code == 404
        assert "web-2" not in await it.page()
