"""A running primary's desk for decisions: everything as it is at this moment, not as a pass has seen it."""

from reconciler.decisions import Desk, read_desk
from reconciler.primary import Primary


async def open_desk(primary: Primary, by: str) -> Desk:
    """`by`: who decides, as `Name <email>`."""
    settings = primary.settings
    repositories, url = primary.repositories.anew(), settings.require_spec_repo()
    await repositories.refresh(url)
    if settings.status_repo is not None:
        await repositories.refresh(settings.status_repo)
    return await read_desk(
        repositories,
        primary.operators,
        repositories.mirror(url),
        await primary.status.read(),
        branch=settings.spec_branch,
        by=by,
        now=primary.now(),
        cache=primary.specs,
    )
