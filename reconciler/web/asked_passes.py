"""Requests for a pass that somebody waits for: kept before they are answered, over a restart too."""

import secrets

from reconciler.runner import Runner
from reconciler.tracing import trace
from reconciler.web.deliveries import PassAsked


async def ask_durably(runner: Runner, sender: str, said: PassAsked, body: bytes | None = None) -> bool:
    """Whether it is new. `body`: of a request that counts once, however often it is sent; else each counts.

    Raises RequestRefused where too many come, and JournalUnavailable.
    """
    with trace(sender=sender) as trace_id:
        return await runner.inbox.take(sender, "", said, body or secrets.token_bytes(16), trace_id)
