"""Who presses buttons of the page in a browser, and asks the world what came of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import TYPE_CHECKING, Any

import trio

from tests.browsing import Watched
from tests.operators import records
from tests.serving import Line, Serving
from tests.world import Host, World

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from reconciler.control.records import Record


class Pressing:
    """A person at the page of a primary that has one host. Runs in the browser's thread."""

    watched: Watched
    page: Page

    def __init__(
        self, world: World, primary: Serving, host: Host, relay: str, env: Path, target: Path, token: str
    ) -> None:
        self.world, self.primary, self.host, self.relay = world, primary, host, relay
        self.env, self.target, self.token = env, target, token

    def said(self, event: str, after: int, **fields: object) -> None:
        """Once the primary has logged it, from that line on."""

        async def wait() -> None:
            await self.primary.said(event, after=after, **fields)

        trio.from_thread.run(wait)

    def quiet(self) -> None:
        """Until every pass has ended that was asked for: none puts right any more what is edited now."""
        trio.from_thread.run(self.primary.look)

    def asked(self, why: str) -> list[Line]:
        """The lines of passes that were asked for, for this reason."""
        return [each for each in self.primary.lines if each.get("why") == why]

    def now(self) -> int:
        """What to wait `after` for what comes of the next press."""
        return len(self.primary.lines)

    def deployed(self) -> list[str]:
        """Tag and length of the secret of each deploy, in order."""
        return (self.world.deployed / "staging").read_text().splitlines()

    def records(self) -> list[Record]:
        """What operators have decided, in order."""
        return records(self.world.spec)

    def rows(self, query: str) -> list[Any]:
        """Of the primary's journal."""
        with closing(connect(self.world.state / "journal.sqlite", timeout=60)) as journal:
            return journal.execute(query).fetchall()

    def tasks(self) -> list[tuple[str, str]]:
        """(id, state) of each task, the newest first."""
        return self.rows("SELECT id, state FROM tasks ORDER BY rowid DESC")

    def until(self, what: str, find: Any) -> Any:
        """What becomes true with something that the primary logs."""

        async def wait() -> None:
            await self.primary.until(lambda: {"event": ""} if find() else None, what)

        trio.from_thread.run(wait)
        return find()

    def node(self) -> Locator:
        """The host's card."""
        return self.page.get_by_role("article", name="node web-1")
