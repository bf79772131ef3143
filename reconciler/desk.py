"""A running primary's desk for decisions: everything as it is at this moment, not as a pass has seen it."""

from reconciler.decisions import Desk, read_desk
from reconciler.primary import Primary


async def open_desk(primary: Primary, by: str) -> Desk:
    """`by`: who decides, as `Name <email>`."""
    settings = primary.settings
    mirror = primary.repositories.mirror(settings.require_spec_repo())
    await mirror.refresh()
    if settings.status_repo is not None:
        await primary.repositories.mirror(settings.status_repo).refresh()
    return await read_desk(
        primary.repositories.anew(),
        primary.operators,
        mirror,
        await primary.status.read(),
        branch=settings.spec_branch,
        by=by,
        now=primary.now(),
        cache=primary.specs,
    )
