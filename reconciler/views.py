"""The repositories of a spec as their mirrors know them after a pass's look; running many looks at once."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVarTuple

import trio

from reconciler.errors import TrueupError
from reconciler.git.mirror import Mirror, Refs, Tag
from reconciler.observation import Setback
from reconciler.repositories import Repositories
from reconciler.spec.model import Repository

MAX_PARALLEL_LOOKS: Final = 16

Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, slots=True)
class View:
    """One repository after this pass's look."""

    mirror: Mirror
    refs: Refs
    tags: tuple[Tag, ...]


Views = Mapping[str, View | Setback]
"""By the repository's name in the spec; a setback where it could not be looked at."""


async def view_repositories(named: Iterable[Repository], repositories: Repositories) -> Views:
    """Look at each; what goes wrong with one concerns that one alone."""
    views: dict[str, View | Setback] = {}

    async def look(name: str, url: str) -> None:
        try:
            mirror = repositories.mirror(url)
            refs = await repositories.refresh(url)
            views[name] = View(mirror, refs, await mirror.tags())
        except TrueupError as error:
            views[name] = Setback.of(error)

    await for_each(look, [(repository.name, repository.url) for repository in named])
    return views


async def for_each(
    function: Callable[[*Arguments], Awaitable[None]], arguments: Iterable[tuple[*Arguments]]
) -> None:
    """Call the function for each of the argument lists, at most so many at a time."""
    limiter = trio.CapacityLimiter(MAX_PARALLEL_LOOKS)

    async def one(*each: *Arguments) -> None:
        async with limiter:
            await function(*each)

    async with trio.open_nursery() as nursery:
        for each in arguments:
            nursery.start_soon(one, *each)
