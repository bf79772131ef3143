"""One message through apprise, which knows a hundred services by the form of an address.

An address holds a password. So nothing that apprise says goes anywhere: neither its log, nor its errors.
"""

import logging
from typing import Final

import trio

from reconciler.kept_notifications import KeptNotification
from reconciler.secrets.known import KNOWN
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import Secret
from reconciler.spec.model import Credential

DEADLINE: Final = 30.0
"""Seconds that one message may take."""

ADDRESS_DEADLINE: Final = 30.0
"""Seconds to find the address, where a secret source has it."""


class NotSent(Exception):
    """Why, in words that hold nothing of the address."""


async def address_of(store: SecretStore, channel: Credential) -> Secret:
    """The address of a channel. Raises NotSent where that takes long, and as `store.credential`."""
    found: Secret | None = None
    with trio.move_on_after(ADDRESS_DEADLINE):
        found = await store.credential(channel)
    if found is None:
        raise NotSent(f"its address was not to be had within {ADDRESS_DEADLINE:.0f} seconds")
    KNOWN.learn([found])
    return found


def one_at_a_time() -> trio.CapacityLimiter:
    """Of one channel: a message that nobody waits for any more holds up the next one there, and no other."""
    return trio.CapacityLimiter(1)


async def send(address: Secret, message: KeptNotification, limiter: trio.CapacityLimiter) -> None:
    """Returns once the service has taken it. Raises NotSent, also where that took too long."""
    problem: str | None = f"no answer within {DEADLINE:.0f} seconds"
    with trio.move_on_after(DEADLINE):
        problem = await trio.to_thread.run_sync(
            _send, address, message, limiter=limiter, abandon_on_cancel=True
        )
    if problem is not None:
        raise NotSent(problem)


def _send(address: Secret, message: KeptNotification) -> str | None:
    """In a thread of its own; why it was not sent."""
    # Apprise and what it loads take a third of a second, so not before there is something to send.
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType, PersistentStoreMode

    logging.getLogger("apprise").disabled = True
    for name in ("requests", "urllib3"):  # their warnings name the URL, which is not the address as it stands
        logging.getLogger(name).setLevel(logging.ERROR)
    asset = AppriseAsset(
        app_id="trueup",
        app_desc="trueup",
        app_url="",
        # Deadlines and threads are ours: apprise's own threads would hold up the end of the process.
        async_mode=False,
        service_timeout=0,
        allow_templates=False,
        storage_mode=PersistentStoreMode.MEMORY,
    )
    try:
        services = Apprise(asset=asset)
        if not services.add(address.reveal()):
            return "the address is none that apprise knows, or not a complete one"
        if len(services) != 1:
            # Where one of them fails all would be tried again, also those that took it.
            return "the address is not that of one service for apprise; make a channel for each"
        taken = services.notify(
            title=message.title,
            body=f"{message.body}, message {message.key}",
            notify_type=NotifyType(message.severity),
            body_format=NotifyFormat.TEXT,
        )
    except Exception as error:  # of a hundred plug-ins: what it says may hold the address
        return f"apprise failed with {type(error).__name__}"
    return None if taken else "the service did not take it"
