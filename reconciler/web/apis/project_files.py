"""What a sync of a project would do to the files of its targets, asked of their agents now."""

from typing import Final

import trio

from reconciler.file_forecasts import ProjectFiles, forecast_files, targets_of
from reconciler.fleet import Fleet
from reconciler.primary import open_primary
from reconciler.reconcile import prepare
from reconciler.runner import PATIENCE, Runner
from reconciler.web.apis.known import Name, NotFound
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Nothing, Role

DEADLINE: Final = 900.0
"""Seconds: repositories and secret sources are asked for it, the project is built, and targets are read."""


class WhichTree(Asked, frozen=True, kw_only=True):
    environment: Name = ""
    """Or `branch`; empty: all that have the project."""


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    files = _Files(runner)
    return [
        Endpoint(
            method="GET",
            path="/api/sync/projects/{name}/files",
            summary="What a sync of a project would do to each file of each target, as the agents see it; "
            "nothing is changed",
            tag="projects",
            handler=files.show,
            role=Role.READ,
            query=WhichTree,
            answer=ProjectFiles,
            deadline=DEADLINE,
            refusals={
                502: "It could not be told: the spec is wrong, for one.",
                503: "It could not be told now: a repository is away, for one.",
            },
        )
    ]


class _Files:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._one_at_a_time = trio.Lock()

    async def show(self, call: Call[WhichTree, Nothing]) -> ProjectFiles:
        """With mirrors of its own time, as a plan that is made anew, and the running primary's agents."""
        running, name = self._runner.primary, call.path["name"]
        async with (
            self._one_at_a_time,
            open_primary(running.settings, exclusive=False, journal=running.journal) as aside,
        ):
            prepared = await prepare(aside, patience=None)
            syncs = targets_of(prepared, name, call.query.environment)
            if not syncs:
                raise NotFound(f"Project {name} with targets")
            hub = running.hub
            fleet = None if hub is None else Fleet(hub, running.journal, patience=PATIENCE)
            return await forecast_files(aside, prepared, syncs, fleet)
