"""Agents are told when their primary does not know whether it still leads: they look for another one then."""

from typing import NoReturn

import trio

from agent.wire.messages import LEADING, UNSURE
from reconciler.lease_keeper import Role
from reconciler.primary import Primary


async def tell_doubts(primary: Primary) -> NoReturn:
    """For ever. By the lease's own clock, which goes on while the machine sleeps."""
    assert primary.leadership is not None
    lease = primary.leadership.lease
    while True:
        if primary.hub is not None:
            if lease.role is Role.UNSURE:
                primary.hub.stand(UNSURE, "the primary cannot renew its lease")
            elif lease.role is Role.LEADER:
                primary.hub.stand(LEADING)
        await trio.sleep(lease.timing.retry)
