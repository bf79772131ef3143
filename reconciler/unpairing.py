"""Forgetting the certificate that a node paired with: in the status branch, for whoever decides it."""

from reconciler.control.state import fold
from reconciler.enrolling import newest_spec
from reconciler.pairing import without_pairing
from reconciler.primary import Primary


async def forget_certificate(primary: Primary, node: str) -> tuple[bool, str | None]:
    """Whether the status files know the node, and the commit that forgets its certificate, if any."""
    await primary.repositories.mirror(primary.settings.require_status_repo()).refresh()
    known = f"nodes/{node}" in (await primary.status.read()).nodes
    return known, await primary.status.publish(
        lambda recorded: without_pairing(recorded, node, now=primary.now()), f"Let {node} pair again"
    )


async def is_revoked(primary: Primary, node: str) -> bool:
    """Whether an operator took back the token that the spec has for a node."""
    await primary.repositories.mirror(primary.settings.require_spec_repo()).refresh()
    recorded = await primary.status.read()
    named = (await newest_spec(primary, recorded)).nodes.get(node)
    records = await primary.operators.read_after(recorded)
    return named is not None and fold(records).revocation_of(node, named.token_key) is not None


def told(node: str, commit: str | None, *, revoked: bool) -> str:
    """What there is to say once a node's certificate is forgotten."""
    done = f"recorded: {commit[:12]}" if commit else "it was not paired"
    if revoked:
        return (
            f"the certificate of {node} is forgotten ({done}), but {node} is revoked and may not join:"
            f" `trueup node rotate-token {node}` gives it another token, `trueup resume nodes/{node}` the"
            " same one back"
        )
    return f"{node} may join again with its token ({done})"
