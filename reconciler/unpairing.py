"""Forgetting the certificate that a node paired with: in the status branch, for whoever decides it."""

from reconciler.pairing import without_pairing
from reconciler.primary import Primary


async def forget_certificate(primary: Primary, node: str) -> tuple[bool, str | None]:
    """Whether the status files know the node, and the commit that forgets its certificate, if any."""
    await primary.repositories.mirror(primary.settings.require_status_repo()).refresh()
    known = f"nodes/{node}" in (await primary.status.read()).nodes
    return known, await primary.status.publish(
        lambda recorded: without_pairing(recorded, node, now=primary.now()), f"Let {node} pair again"
    )
