"""The node's token in the spec, and its certificate in the status branch: given, and taken back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from agent.node_token import NodeToken
from reconciler import spec_edit
from reconciler.errors import TrueupError
from reconciler.live import request_if_running
from reconciler.nodes import commit_spec, forget_certificate, put_back_pairing
from reconciler.primary import open_repositories, read_status
from reconciler.settings import Settings
from reconciler.spec_edit import NodeFields
from reconciler.spec_source import read_spec
from reconciler.status.documents import NodeStatus

log: structlog.stdlib.BoundLogger = structlog.get_logger()

ASK_DEADLINE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How the node stands in the spec."""

    token_key: str | None
    """None: the spec does not have it."""
    pairing: NodeStatus | None
    """With its certificate, where it has one: also of a node that left the spec and comes back."""


async def look(settings: Settings, node: str) -> Standing:
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    spec = await read_spec(repositories.mirror(url), settings.spec_branch, last_good=None)
    recorded = (await read_status(settings, repositories)).nodes.get(f"nodes/{node}")
    known = spec.spec.nodes.get(node)
    return Standing(
        token_key=None if known is None else known.token_key,
        pairing=recorded if recorded is not None and recorded.certificate else None,
    )


@dataclass
class InSpec:
    """One node in the course of an installation; `before` is how it stood when that began."""

    settings: Settings
    node: str
    labels: Mapping[str, str]
    before: Standing
    _given: str | None = field(default=None, init=False)
    """The public half of the token that was put into the spec, or may have been."""
    _offered: bool = field(default=False, init=False)
    """A token that a host may join with by now: put into the spec, or in it already."""
    _forgotten: bool = field(default=False, init=False)

    async def give(self, token: NodeToken | None) -> tuple[NodeToken, str]:
        """The token, put into the spec unless it is there, and what was done. Who had paired is forgotten."""
        self._offered = True
        said = "the token that was given is the spec's"
        if token is None:
            token = NodeToken.generate()
            key = self._given = token.public_text
            if self.before.token_key is None:
                edit = spec_edit.add_node(self.node, key, NodeFields(labels=self.labels))
            else:
                edit = spec_edit.rotate_token(self.node, key)
            commit = await commit_spec(self.settings, edit)
            said = f"committed to the spec: {commit[:12]}"
        if self.before.pairing is not None:
            self._forgotten = True
            await forget_certificate(self.settings, self.node)
        await self._ask_for_a_pass()
        return token, said

    async def take_back(self) -> str:
        """What was done about it. A token that is not the one from here is another's, and left alone."""
        said = ""
        if self._given is not None and (await look(self.settings, self.node)).token_key == self._given:
            before = self.before.token_key
            edit = (
                spec_edit.remove_node(self.node)
                if before is None
                else spec_edit.rotate_token(self.node, before)
            )
            said = f"taken back in the spec: {(await commit_spec(self.settings, edit))[:12]}"
        if self._forgotten and self.before.pairing is not None:
            await put_back_pairing(self.settings, self.node, self.before.pairing)
        elif self._offered and self.before.pairing is None:
            await forget_certificate(self.settings, self.node)  # of a host that had joined already
        if self._offered:
            await self._ask_for_a_pass()
        return said

    async def _ask_for_a_pass(self) -> None:
        """A primary on this machine need not wait for its interval; one elsewhere has a webhook, or does."""
        try:
            with trio.move_on_after(ASK_DEADLINE):
                await request_if_running(self.settings, "POST", "/api/reconcile")
        except TrueupError as error:
            log.debug("the primary was not asked for a pass", why=str(error))
