"""What is done to a node shows at once, on the page and in the API, whatever the newest pass has read."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import trio
from trio.testing import MockClock

from reconciler.control.branch import DEFAULT_BRANCH
from reconciler.git.mirror import Mirror
from reconciler.primary import Primary
from reconciler.reconcile import reconcile
from reconciler.status.documents import Recorded
from reconciler.token_file import TokenFile, append_token, new_token
from reconciler.web.app import public_app
from reconciler.web.door import Door
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


def mirror_of(primary: Primary) -> Mirror:
    return primary.repositories.mirror(primary.settings.require_spec_repo())


def seen(number: int, commit: str, recorded: Recorded) -> Recorded:
    """As a pass records that it saw so many decisions, the newest in this commit."""
    assert recorded.summary is not None
    return recorded.put(msgspec.structs.replace(recorded.summary, control=number, control_commit=commit))


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


async def test_decisions_that_were_set_back_count_no_more_on_the_page_than_in_the_api(tmp_path: Path) -> None:
    place = Place.make(tmp_path, SPEC, SYNC_TCP_ADDR=f"127.0.0.1:{free_port()}")
    beside = Place(tmp_path / "beside", place.spec, {"SYNC_TCP_ADDR": f"127.0.0.1:{free_port()}"})
    shutil.copytree(tmp_path / "state", beside.root / "state")
    async with delivering(place, passes=False) as primary, delivering(beside, passes=False) as other:
        await reconcile(primary.primary, patience=0)
        await reconcile(other.primary, patience=0)
        await Case(other).done("sync/nodes/web-1/revoke")
        revoked = place.spec.git("rev-parse", DEFAULT_BRANCH)
        await Case(other).done("resources/nodes/web-1/resume")
        newest = place.spec.git("rev-parse", DEFAULT_BRANCH)
        # It is recorded that somebody saw both; the second one is gone, and this primary never had it.
        await primary.primary.status.publish(partial(seen, 2, newest), "Seen")
        place.spec.git("update-ref", f"refs/heads/{DEFAULT_BRANCH}", revoked)
        await mirror_of(primary.primary).refresh()
        it = Case(primary)
        assert await it.health() == "unpaired"
        assert "revoked" not in await it.page()


async def test_nobody_who_looks_waits_for_a_copy_that_is_being_mended(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    place = Place.make(tmp_path, SPEC, SYNC_TCP_ADDR=f"127.0.0.1:{free_port()}")
    async with delivering(place, passes=False) as primary:
        await reconcile(primary.primary, patience=0)
        place.spec.commit({"trueup.yaml": "version: 1\n"})
        mirror = mirror_of(primary.primary)
        await mirror.refresh()
        mirror.path.rename(tmp_path / "damaged")

        async def mend(task_status: trio.TaskStatus[None]) -> None:
            async with mirror.exclusive():
                task_status.started()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            await nursery.start(mend)
            mock_clock.rate = 100
            with trio.fail_after(5000):
                assert await Case(primary).health() == "unpaired"
            nursery.cancel_scope.cancel()


async def test_a_node_that_no_pass_has_read_can_be_edited_where_it_is_shown(tmp_path: Path) -> None:
    place = Place.make(tmp_path, SPEC, SYNC_TCP_ADDR=f"127.0.0.1:{free_port()}")
    async with delivering(place, passes=False) as primary:
        await reconcile(primary.primary, patience=0)
        await Case(primary).done("sync/nodes", node="web-2")
        now = primary.primary.now
        token, entry = new_token("ann", "operate", lasts=None, now=now)
        append_token(tmp_path / "tokens", entry)
        app = public_app(primary.runner, Door(TokenFile(tmp_path / "tokens"), now=now))
        transport = httpx.ASGITransport(cast(Any, app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
            browser.headers["Origin"] = "http://127.0.0.1"
            assert (await browser.post("/page/login", data={"token": token.reveal()})).status_code == 303
            form = await browser.get("/page/node", params={"name": "web-2"})
            assert form.status_code == 200
            assert "Node web-2" in form.text
            assert (await browser.get("/page/node", params={"name": "web-3"})).status_code == 404
