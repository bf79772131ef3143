"""What GitHub is told of releases: a status of their commits, and a GitHub Release of what is promoted. Pure.

What it was told already is recorded with each release, so that each change is told once, however often a pass
is repeated, and what could not be told is told by a later pass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from reconciler.spec.model import Environment, Repository, Spec, Unit
from reconciler.status.conditions import bounded
from reconciler.status.documents import EnvironmentStatus, Recorded, Release

MAX_DESCRIPTION: Final = 140
"""Characters that GitHub shows of a status."""

_STATES: Final = {"": "pending", "succeeded": "success", "failed": "failure"}
RELEASED: Final = "release"


@dataclass(frozen=True, slots=True)
class CommitState:
    commit: str
    state: str
    context: str
    description: str


@dataclass(frozen=True, slots=True)
class GithubRelease:
    tag: str
    name: str
    body: str


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be told of one release of a unit in an environment."""

    environment: str
    unit: str
    release: Release
    repository: Repository
    status: CommitState | None
    github_release: GithubRelease | None

    def told(self, *, released: bool) -> str:
        """What is recorded once the status was told, and the GitHub Release too if `released`."""
        parts = [_STATES[self.release.outcome]]
        if released or RELEASED in self.release.reported.split():
            parts.append(RELEASED)
        return " ".join(parts)


def what_to_report(spec: Spec, recorded: Recorded) -> list[Report]:
    """What GitHub does not know yet of the current release of each unit, and of the one before it."""
    found = []
    for name, environment in spec.environments.items():
        status = recorded.environments.get(f"environments/{name}")
        for unit_name, known in status.units.items() if status is not None else ():
            unit = spec.units.get(unit_name)
            if unit is None or (repository := spec.repositories[unit.repository]).github is None:
                continue
            # The one before: a release that failed is not the current one any more once the pass went back.
            for release in (known.release, *(each for each in known.history[:1] if each.outcome)):
                report = _report(environment, unit, repository, release)
                if report.status is not None or report.github_release is not None:
                    found.append(report)
    return found


def _report(environment: Environment, unit: Unit, repository: Repository, release: Release) -> Report:
    github = repository.github
    assert github is not None
    state, told = _STATES[release.outcome], release.reported.split()
    status = None
    if github.commit_status and state not in told:
        status = CommitState(
            release.commit, state, context_of(environment.name, unit), _description(environment.name, release)
        )
    made = None
    wanted = environment.release.promote_from is not None and release.kind != "rollback"
    if github.releases and wanted and release.outcome == "succeeded" and RELEASED not in told:
        made = GithubRelease(release.tag, release.tag, release_body(environment.name, unit, release))
    return Report(environment.name, unit.name, release, repository, status, made)


def context_of(environment: str, unit: Unit) -> str:
    """The name of a status: another one for each unit of a repository that has several."""
    part = unit.name.removeprefix(unit.repository).removeprefix("/")
    return f"trueup/{environment}/{part}" if part else f"trueup/{environment}"


def _description(environment: str, release: Release) -> str:
    match release.outcome:
        case "succeeded":
            text = f"{release.tag} runs in {environment}"
        case "failed":
            why = f": {release.reason}" if release.reason else ""
            text = f"{release.tag} failed in {environment}{why}"
        case _:
            text = f"{release.tag} is on its way to {environment}"
    return bounded(text, MAX_DESCRIPTION)


def release_body(environment: str, unit: Unit, release: Release) -> str:
    """The text of a GitHub Release."""
    lines = [f"Runs in `{environment}`."]
    if release.previous and release.previous != release.commit:
        lines.append(f"Commits: {release.previous}...{release.commit}")
    else:
        lines.append(f"Commit: {release.commit}")
    if unit.name != unit.repository:
        lines.append(f"Unit: {unit.name}")
    if release.promoted_from:
        lines.append(f"Promoted from: {release.promoted_from}")
    if release.triggered_by:
        lines.append(f"Triggered by: {bounded(release.triggered_by)}")
    return "\n\n".join(lines) + "\n"


def with_reported(recorded: Recorded, told: Iterable[tuple[Report, str]]) -> Recorded:
    """`recorded` with what was told; a release that another pass has replaced meanwhile is left alone."""
    by_release: dict[tuple[str, str], list[tuple[Release, str]]] = {}
    for report, said in told:
        by_release.setdefault((report.environment, report.unit), []).append((report.release, said))
    changed: dict[str, EnvironmentStatus] = {}
    for (environment, unit), said_of in by_release.items():
        id = f"environments/{environment}"
        status = changed.get(id) or recorded.environments.get(id)
        known = status.units.get(unit) if status is not None else None
        if status is None or known is None:
            continue
        known = msgspec.structs.replace(
            known,
            release=_told(known.release, said_of),
            history=tuple(_told(each, said_of) for each in known.history),
        )
        changed[id] = msgspec.structs.replace(status, units={**status.units, unit: known})
    return recorded.put(*changed.values())


def _told(release: Release, said_of: Iterable[tuple[Release, str]]) -> Release:
    said: Mapping[tuple[object, ...], str] = {_identity(each): text for each, text in said_of}
    return msgspec.structs.replace(release, reported=said.get(_identity(release), release.reported))


def _identity(release: Release) -> tuple[object, ...]:
    return release.tag, release.commit, release.recorded_at, release.outcome
