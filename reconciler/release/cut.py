"""Making the tag of a release: its number is claimed by a push that only creates."""

import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import trio

from reconciler.errors import StepFailed
from reconciler.git.mirror import Mirror
from reconciler.git.tagging import make_tag
from reconciler.release.facts import Next, UnitFacts
from reconciler.release.numbers import made_before, next_tag
from reconciler.release.versions import DECISION, ENVIRONMENT, PROMOTED_FROM, SPEC, TRIGGERED_BY, UNIT
from reconciler.status.conditions import bounded

TAGGER: Final = "trueup <trueup@localhost>"
MAX_TRIES: Final = 32
"""Pushes of one release; one is lost only when somebody else's tag of that number was pushed meanwhile."""
MAX_PAUSE: Final = 0.05
"""Seconds, times the number of lost tries: the longest pause before the next one, drawn at random."""


class NumbersContended(StepFailed):
    """Others kept taking the next number."""

    reason = "StatusContended"
    retryable = True


async def cut_release(
    mirror: Mirror,
    facts: UnitFacts,
    release: Next,
    *,
    spec_branch: str,
    now: datetime,
    signing_key: Path | None,
    check: Callable[[str, str], Awaitable[None]],
) -> str:
    """The name of the tag, which is pushed when this returns.

    It is `release.tag`, or the next free number if somebody took that one. Where another reconciler has made
    the tag of this very release, that one is taken. `check` raises where the tag (name, object id) would not
    be accepted by the repository's own rules about signatures. Raises GitRefused, GitUnavailable and
    NumbersContended.
    """
    name = release.tag
    for tries in range(MAX_TRIES):
        if tries:
            await trio.sleep(random.uniform(0, MAX_PAUSE * tries))  # noqa: S311 - spreads writers
            await mirror.refresh()
            tags = await mirror.tags()
            made = made_before(facts, tags, release)
            if made is not None:
                return made.name
            name = next_tag(facts, tags, release.bump)
        tag = await make_tag(
            mirror,
            name,
            release.commit,
            f"Release {name} of {facts.unit.name} for {facts.environment.name}",
            tagger=TAGGER,
            now=now,
            trailers=trailers_of(facts, release, spec_branch=spec_branch),
            signing_key=signing_key,
        )
        await check(name, tag)
        if await mirror.push(f"refs/tags/{name}", tag, expected=None):
            return name
    raise NumbersContended(
        f"others took the next number of {facts.unit.name} {MAX_TRIES} times in a row",
        hint="see who else makes tags there",
    )


def trailers_of(facts: UnitFacts, release: Next, *, spec_branch: str) -> Mapping[str, str]:
    """What a release tag says of itself: `versions.read_trailers` reads it."""
    said = {
        ENVIRONMENT: facts.environment.name,
        UNIT: facts.unit.name,
        SPEC: f"{spec_branch}@sha1:{release.spec_revision}" if release.spec_revision else "",
        PROMOTED_FROM: release.promoted_from,
        TRIGGERED_BY: bounded(release.triggered_by),
        DECISION: str(release.decision) if release.decision else "",
    }
    return {key: value for key, value in said.items() if value}
