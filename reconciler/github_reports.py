"""Telling GitHub of releases after a pass. Whatever goes wrong here is a line in the log, and tried again."""

from dataclasses import dataclass
from typing import Final

import structlog
import trio

from reconciler.errors import TrueupError
from reconciler.github.client import DEFAULT_API, GitHub
from reconciler.github.errors import GitHubRefused
from reconciler.github.pace import Pace
from reconciler.github.token import read_token
from reconciler.release.reporting import Report, what_to_report, with_reported
from reconciler.secrets.store import SecretStore
from reconciler.spec.model import Repository, Spec
from reconciler.status.branch import StatusBranch

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DEADLINE: Final = 60.0
"""Seconds that a pass spends on this in all."""


@dataclass(slots=True)
class GithubReports:
    """Access to GitHub with the credentials of one spec."""

    store: SecretStore
    pace: Pace
    api_url: str | None = None

    async def tell(self, spec: Spec, status: StatusBranch) -> None:
        """Tell what is recorded and was not told yet, and record that it was, where it may be recorded now.

        Never raises a TrueupError.
        """
        if not any(repository.github for repository in spec.repositories.values()):
            return
        try:
            reports = what_to_report(spec, await status.read())
            if not reports:
                return
            told: list[tuple[Report, str]] = []
            # What a successor tells must not be followed by what we knew.
            with trio.move_on_after(DEADLINE) as scope:
                async with status.permit(), trio.open_nursery() as nursery:
                    for name in {report.repository.name for report in reports}:
                        mine = [report for report in reports if report.repository.name == name]
                        nursery.start_soon(self._tell_one, spec.repositories[name], mine, told)
            if scope.cancelled_caught:
                log.warning("GitHub was not told everything in time; the next pass goes on")
            if told:
                await status.publish(
                    lambda recorded: with_reported(recorded, told), f"Told GitHub of {len(told)} releases"
                )
        except TrueupError as error:
            log.warning(f"what GitHub was told is not recorded: {error}")

    async def _tell_one(
        self, repository: Repository, reports: list[Report], told: list[tuple[Report, str]]
    ) -> None:
        settings = repository.github
        assert settings is not None
        try:
            token = await read_token(
                self.store, settings.token, place=settings.repo, key="the repository's `github.token`"
            )
            async with GitHub(self.api_url or DEFAULT_API, token, patience=0.0, pace=self.pace) as github:
                for report in reports:
                    try:
                        await self._tell_report(github, settings.repo, report, told)
                    except GitHubRefused as error:
                        # A commit or tag that GitHub does not have says nothing about the others.
                        log.warning(f"GitHub was not told of a release: {error}", repository=repository.name)
        except TrueupError as error:
            log.warning(f"GitHub was not told of a release: {error}", repository=repository.name)

    @staticmethod
    async def _tell_report(github: GitHub, repo: str, report: Report, told: list[tuple[Report, str]]) -> None:
        if (status := report.status) is not None:
            await github.set_commit_status(
                repo,
                status.commit,
                state=status.state,
                context=status.context,
                description=status.description,
            )
            told.append((report, report.told(released=False)))
        if (release := report.github_release) is not None:
            await github.create_release(repo, release.tag, name=release.name, body=release.body)
            told.append((report, report.told(released=True)))
