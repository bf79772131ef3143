"""What each kind of step does. The plan has decided; here it happens."""

from collections.abc import Mapping
from pathlib import Path

import structlog

from reconciler.apply import Details, Executor
from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DeployRequest, driver_for
from reconciler.desired import Desired
from reconciler.errors import StepFailed
from reconciler.fleet import Fleet, report_details
from reconciler.git.checkout import checkout
from reconciler.plan import Action, Step
from reconciler.repositories import Repositories
from reconciler.secrets.mask import Masker
from reconciler.secrets.values import SecretValue
from reconciler.spec.model import Spec
from reconciler.sync.sources import ProjectSources

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Steps:
    """The executors of one pass, by action."""

    def __init__(
        self,
        spec: Spec,
        desired: Desired,
        *,
        repositories: Repositories,
        sources: ProjectSources,
        fleet: Fleet | None,
        checkouts: Path,
        context: RunContext,
    ) -> None:
        self._spec = spec
        self._resources = desired.by_id()
        self._repositories = repositories
        self._sources = sources
        self._fleet = fleet
        self._checkouts = checkouts
        self._context = context
        self._projects = {build: sync for sync, build in desired.builds.items()}

    def executors(self) -> Mapping[Action, Executor]:
        return {
            Action.BUILD: self._build,
            Action.SYNC: self._sync,
            Action.DEPLOY: self._deploy,
            Action.ADOPT: self._record_only,
            Action.FORGET: self._record_only,
        }

    async def _build(self, step: Step) -> Details:
        resource = self._resources[self._projects[step.resource]]
        assert resource.project is not None and resource.revision is not None
        return await self._sources.build(resource.project, resource.revision)

    async def _sync(self, step: Step) -> Details:
        resource = self._resources[step.resource]
        assert resource.project is not None and resource.revision is not None
        if self._fleet is None:
            raise StepFailed("this pass runs without agents")
        async with self._sources.limit(resource.project):
            source = await self._sources.tree(resource)
            report = await self._fleet.sync(resource, source, resource.project.sync.retry)
        return report_details(report)

    async def _deploy(self, step: Step) -> Details:
        resource = self._resources[step.resource]
        service, revision = resource.service, resource.revision
        assert service is not None and revision is not None
        driver = driver_for(service.deploy)
        repository = self._spec.repositories[service.repository]
        async with checkout(
            self._repositories.mirror(repository.url), revision.commit, under=self._checkouts
        ) as tree:
            outcome = await driver.deploy(
                DeployRequest(
                    service=service,
                    checkout=tree,
                    tag=revision.ref,
                    revision=revision.commit,
                    variables=plain_variables(resource.variables),
                    masker=masker_for(resource.variables),
                    context=self._context,
                    log=lambda line: log.info("task output", resource=step.resource, line=line),
                )
            )
        return {"exit_code": outcome.exit_code, "output": outcome.output}

    @staticmethod
    async def _record_only(_step: Step) -> Details:
        return {}


def plain_variables(variables: Mapping[str, str | SecretValue]) -> dict[str, str]:
    """The environment of a child process, secrets revealed: the one place besides rendered files."""
    return {
        name: value.value.reveal() if isinstance(value, SecretValue) else value
        for name, value in variables.items()
    }


def masker_for(variables: Mapping[str, str | SecretValue]) -> Masker:
    """Masks every value that is not written in the spec."""
    return Masker([value.value for value in variables.values() if isinstance(value, SecretValue)])
