"""What a running primary does to nodes: a commit or a record in somebody's name, and its effect at once."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
import trio

from agent.node_token import NodeToken
from reconciler import spec_edit
from reconciler.control import orders
from reconciler.control.branch import Appended
from reconciler.decisions import record
from reconciler.desk import open_desk
from reconciler.enrolling import enrol
from reconciler.errors import TrueupError
from reconciler.joining import addresses, join_command
from reconciler.runner import Runner
from reconciler.spec_edit import Edit, EditRefused, NodeFields
from reconciler.spec_write import BranchProtected, Written
from reconciler.sync.hub import AgentUnreachable
from reconciler.unpairing import forget_certificate, is_revoked, told

log: structlog.stdlib.BoundLogger = structlog.get_logger()

EFFECT_DEADLINE = 30.0
"""Seconds that a change which is in git already has to become known here, whoever asked being gone or not."""


async def take_effect(runner: Runner, why: str) -> None:
    """Connections that have no right any more end here; the pass that is asked for does the rest."""
    try:
        with trio.CancelScope(shield=True), trio.move_on_after(EFFECT_DEADLINE):
            await enrol(runner.primary)
    finally:
        runner.ask(why)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A change that gave a node a token. `join` holds its private half, which stands nowhere else; empty
    where nothing was done."""

    written: Written
    join: str = ""


@dataclass(frozen=True, slots=True)
class How:
    """For whom a change is made, and how. See `SpecWriter.write`."""

    author: str
    expected: str | None = None
    dry_run: bool = False


class NodeWork:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._primary = runner.primary

    async def create(self, node: str, fields: NodeFields, primaries: Sequence[str], how: How) -> NewToken:
        token, reached = NodeToken.generate(), await self._addresses(primaries)
        spec_edit.check_new_node(node, token.public_text, fields)
        edit, join = spec_edit.add_node(node, token.public_text, fields), self._join(node, token, reached)
        written = await self._write(edit, how, join)
        if how.dry_run:
            return NewToken(written)
        await take_effect(self._runner, f"the node {node} was added")
        return NewToken(written, join)

    async def change(self, node: str, fields: NodeFields, how: How) -> Written:
        return await self._change(spec_edit.change_node(node, fields), f"the node {node} was changed", how)

    async def remove(self, node: str, how: How) -> Written:
        return await self._change(spec_edit.remove_node(node), f"the node {node} was removed", how)

    async def rotate(self, node: str, primaries: Sequence[str], how: How) -> NewToken:
        token, reached = NodeToken.generate(), await self._addresses(primaries)
        join = self._join(node, token, reached)
        written = await self._write(spec_edit.rotate_token(node, token.public_text), how, join)
        if how.dry_run:
            return NewToken(written)
        try:
            await forget_certificate(self._primary, node)  # a new token, a new certificate
        except TrueupError as error:
            # The token is in the spec, and stands nowhere else than in this answer.
            log.error("the old certificate is still recorded; repair the node", node=node, error=str(error))
        await take_effect(self._runner, f"the node {node} has another token")
        return NewToken(written, join)

    async def repair(self, node: str) -> str:
        """Forget the certificate that the node paired with; what there is to say of it.

        Raises EditRefused for a node that never paired.
        """
        revoked = await is_revoked(self._primary, node)
        known, commit = await forget_certificate(self._primary, node)
        if not known:
            raise EditRefused(f"{node} has never paired", hint="see `trueup node list`")
        await take_effect(self._runner, f"the node {node} may pair again")
        return told(node, commit, revoked=revoked)

    async def renew(self, node: str) -> bool:
        """Have the node's agent take another key and certificate. Whether it uses it already: otherwise it
        will once its tasks have ended. Raises AgentUnreachable, AgentTooOld, RenewalRefused."""
        if self._primary.hub is None:
            raise AgentUnreachable("no pass has made the agents' listener yet", hint="try again in a moment")
        return await self._primary.hub.renew_agent(node)

    async def revoke(self, node: str, reason: str, author: str) -> Appended:
        """Take the node's token back, over the spec. Raises DecisionRefused, and as the branch does."""
        desk = await open_desk(self._primary, author)
        decided = await record(desk, lambda at: [orders.revoke(at, node, reason)])
        await take_effect(self._runner, f"the node {node} was revoked")
        return decided.appended

    # --- inside --------------------------------------------------------------------------------

    async def _change(self, edit: Edit, why: str, how: How) -> Written:
        written = await self._write(edit, how)
        if not how.dry_run:
            await take_effect(self._runner, why)
        return written

    async def _write(self, edit: Edit, how: How, join: str = "") -> Written:
        try:
            return await self._primary.spec_writer.write(
                edit, author=how.author, expected=how.expected, dry_run=how.dry_run
            )
        except BranchProtected as error:
            error.join = join
            raise

    async def _addresses(self, primaries: Sequence[str]) -> list[str]:
        if given := addresses(primaries):
            return given
        host = await trio.to_thread.run_sync(socket.getfqdn)  # may ask a name server
        return [f"{host}:{self._primary.settings.tcp_addr.port}"]

    def _join(self, node: str, token: NodeToken, primaries: Sequence[str]) -> str:
        return join_command(node, token, self._primary.key.tls_fingerprint, primaries)
