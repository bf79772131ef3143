"""The releases that environments have and had, the newest first: one walk for all who tell of them. Pure."""

from dataclasses import dataclass

from reconciler.status.documents import Recorded, Release


@dataclass(frozen=True, slots=True)
class Past:
    """A unit's release in an environment. `current`: it is the one there now."""

    environment: str
    unit: str
    release: Release
    current: bool

    def commits(self, characters: int) -> str:
        """The commits between the one before it and its own, as git takes it; one where it is the same."""
        before, own = self.release.previous[:characters], self.release.commit[:characters]
        return own if before in ("", own) else f"{before}..{own}"


def past_of(recorded: Recorded, environment: str = "") -> list[Past]:
    """Of one environment, or of all where none is named."""
    found = [
        Past(name, unit, release, release is known.release)
        for name, status in ((id.partition("/")[2], each) for id, each in recorded.environments.items())
        if environment in ("", name)
        for unit, known in status.units.items()
        for release in (known.release, *known.history)
    ]
    return sorted(found, key=lambda past: past.release.recorded_at, reverse=True)
