"""What each kind of step does. The plan has decided; here it happens."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from reconciler.apply import Details, Executor
from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DeployRequest, Driver, driver_for
from reconciler.deploy.removal import DEPENDS_ON, remove
from reconciler.deploy.request import TaskFailed
from reconciler.desired import Desired, DesiredService, DesiredSync
from reconciler.errors import StepFailed, TrueupError
from reconciler.fleet import Fleet
from reconciler.git.checkout import checkout
from reconciler.health import HealthChecks
from reconciler.lanes import Lanes, Place
from reconciler.observation import Absent, Observation
from reconciler.plan import ADOPTED, FORCED, Action, Step
from reconciler.release_steps import ReleaseSteps
from reconciler.repositories import Repositories
from reconciler.secret_exports import SecretExports
from reconciler.secret_targets import SecretTargets
from reconciler.secrets.mask import Masker
from reconciler.spec.model import Service, Spec
from reconciler.status.conditions import ConditionType, Reason, find_condition
from reconciler.status.documents import Recorded
from reconciler.sync.sources import ProjectSources
from reconciler.task_reports import report_details

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
        releases: ReleaseSteps,
        fleet: Fleet | None,
        secret_targets: SecretTargets,
        secret_exports: SecretExports,
        recorded: Recorded,
        observed: Mapping[str, Observation],
        health: HealthChecks,
        checkouts: Path,
        context: RunContext,
        lanes: Lanes,
    ) -> None:
        self._spec = spec
        self._services = desired.services()
        self._syncs = desired.syncs()
        self._repositories = repositories
        self._sources = sources
        self._releases = releases
        self._fleet = fleet
        self._targets = desired.targets()
        self._secret_targets = secret_targets
        self._secret_exports = secret_exports
        self._recorded = recorded
        self._observed = observed
        self._health = health
        self._checkouts = checkouts
        self._context = context
        self._projects = {build: sync for sync, build in desired.builds.items()}
        self._by_kind: dict[str, dict[str, dict[str, str]]] | None = None
        self._lanes = lanes
        self._places: dict[str, Place] = {}
        """Of targets whose steps are at work."""
        lanes.set(tasks=spec.limits.max_parallel_tasks, others=spec.limits.max_parallel_steps)
        self._timed_out = {
            status.id
            for status in (*recorded.services.values(), *recorded.syncs.values(), *recorded.targets.values())
            if (ready := find_condition(status.conditions, ConditionType.READY)) is not None
            and ready.reason == Reason.TIMEOUT
        }
        """What hung the last time: everything else that is ready goes first."""

    def executors(self) -> Mapping[Action, Executor]:
        return {
            Action.RELEASE: self._releases.release,
            Action.BUILD: self._build,
            Action.PUSH: self._push,
            Action.EXPORT: self._export,
            Action.SYNC: self._sync,
            Action.DEPLOY: self._deploy,
            Action.ADOPT: self._adopt,
            Action.REMOVE: self._remove,
            Action.FORGET: self._record_only,
        }

    @asynccontextmanager
    async def slot(self, step: Step) -> AsyncIterator[None]:
        """Until a step may begin, and for as long as it runs: implements `apply.Slot`.

        Targets have limits of their own, as they wait for hosts and not for this machine; so do secret
        targets, which wait for GitHub. A target that waits for others of its project takes no place from
        the rest, and one that waits for its next attempt takes none at all.
        """
        last = step.resource in self._timed_out
        if step.action is Action.SYNC:
            place = self._places[step.resource] = Place(lambda: self._sync_place(step, last=last))
            try:
                await place.take()
                yield
            finally:
                await place.give_back()
                del self._places[step.resource]
        else:
            waits = step.action in (Action.PUSH, Action.EXPORT) or step.resource in self._recorded.syncs
            lane = self._lanes.tasks if waits else self._lanes.others
            async with lane.place(step.action, last=last):
                yield

    @asynccontextmanager
    async def _sync_place(self, step: Step, *, last: bool) -> AsyncIterator[None]:
        project = self._syncs[step.resource].project
        limit = self._lanes.project(project.id, max(1, project.sync.max_parallel_nodes))
        holder = object()  # a step may go on in another task than the one in which it took its place
        await limit.acquire_on_behalf_of(holder)
        try:
            async with self._lanes.tasks.place(step.action, last=last):
                yield
        finally:
            limit.release_on_behalf_of(holder)

    async def _build(self, step: Step) -> Details:
        return await self._sources.build(self._syncs[self._projects[step.resource]])

    async def _sync(self, step: Step) -> Details:
        sync = self._syncs[step.resource]
        if self._fleet is None:
            raise StepFailed("this pass runs without agents")
        retry = sync.project.sync.retry
        if sync.returned is not None:
            report = await self._fleet.switch(sync, bytes.fromhex(sync.returned.tree), retry)
            return report_details(report, keeps_edits=sync.keeps_edits)
        # Where nothing was placed yet, sending need not wait for the tree's digest.
        source = await self._sources.tree(sync, whole=not self._is_first(step, sync))
        node, place = self._spec.nodes.get(sync.target.node), self._places.get(step.resource)
        try:
            report = await self._fleet.sync(
                sync, source, retry, place, node_bandwidth=node.bandwidth if node else None
            )
        except TrueupError as error:
            if error.reason == Reason.SOURCE_CHANGED:
                self._sources.doubt(sync)
            raise
        return report_details(report, source.warnings, keeps_edits=sync.keeps_edits)

    def _is_first(self, step: Step, sync: DesiredSync) -> bool:
        recorded = self._recorded.syncs.get(step.resource)
        nothing = recorded is None or not recorded.tree_digest
        rules = sync.project.sync
        # A look that needs to know all of a target is not made twice.
        return nothing and sync.target.strategy != "release" and not rules.delete_foreign

    async def _push(self, step: Step) -> Details:
        return await self._secret_targets.push(
            self._targets[step.resource],
            self._recorded.targets.get(step.resource),
            everything=self._is_doubtful(step),
            max_prune=self._spec.limits.max_prune,
        )

    def _is_doubtful(self, step: Step) -> bool:
        """Whether nobody knows of all that a target has that it is what was written last."""
        status = self._recorded.targets.get(step.resource)
        adopted = status is not None and find_condition(status.conditions, ConditionType.SECRETS_VERIFIED)
        return step.reason == FORCED or isinstance(self._observed[step.resource], Absent) or bool(adopted)

    async def _export(self, step: Step) -> Details:
        # What a step that was interrupted has done shows in the target: no need to ask for all of it again.
        return await self._secret_exports.export(
            self._targets[step.resource],
            self._recorded.targets.get(step.resource),
            everything=step.reason == FORCED,
            max_prune=self._spec.limits.max_prune,
        )

    async def _deploy(self, step: Step) -> Details:
        desired = self._services[step.resource]
        driver = driver_for(desired.service.deploy)
        needs_tree = driver.needs_checkout or self._health.needs_checkout(desired)
        inventory: Mapping[str, str] = {}
        try:
            async with self._request(step, desired, needs_tree=needs_tree) as request:
                outcome = await driver.deploy(request)
                inventory = outcome.inventory
                await self._health.verify(desired, request.checkout)
        except StepFailed as error:
            # Something of it may be there, and has to be found when it leaves the spec.
            inventory = error.inventory if isinstance(error, TaskFailed) else inventory
            if inventory:
                error.details = {**error.details, "inventory": _kept(driver, desired, inventory)}
            raise
        kept = _kept(driver, desired, inventory)
        return {"exit_code": outcome.exit_code, "output": outcome.output, "inventory": kept}

    async def _adopt(self, step: Step) -> Details:
        if step.reason != ADOPTED:
            return {}
        desired = self._services[step.resource]
        driver = driver_for(desired.service.deploy)
        async with self._request(step, desired, needs_tree=driver.needs_checkout) as request:
            outcome = await driver.adopt(request)
        return {"inventory": _kept(driver, desired, outcome.inventory)}

    @asynccontextmanager
    async def _request(
        self, step: Step, desired: DesiredService, *, needs_tree: bool
    ) -> AsyncIterator[DeployRequest]:
        """What a driver is asked to do to a service."""
        service = desired.service
        revision = self._releases.revision_of(desired)
        assert revision is not None  # a step has no setback
        known = self._inventories(service)
        repository = self._spec.repositories[service.repository]
        async with self._tree(repository.url, revision.commit, needed=needs_tree) as tree:
            yield DeployRequest(
                service=service,
                checkout=tree,
                tag=revision.ref,
                revision=revision.commit,
                variables=desired.merged.sealed(),
                masker=Masker([*desired.merged.secrets(), *desired.passed_on]),
                context=self._context,
                config_hash=step.hash,
                credential=self._secret_targets.store.credential,
                inventory=known.pop(service.id, {}),
                others=known,
                nodes=self._fleet,
                project=self._spec.project_of(service),
                log=lambda line: log.info("task output", resource=step.resource, line=line),
            )

    async def _remove(self, step: Step) -> Details:
        if (target := self._recorded.syncs.get(step.resource)) is not None:
            if self._fleet is None:
                raise StepFailed("this pass runs without agents")
            await self._fleet.wait_connected([target.node])
            report = await self._fleet.remove(target.id, node=target.node, target_path=target.target_path)
            told = report_details(report)
            # No status file says it: that is gone as well.
            return {"files_deleted": told["files_deleted"], "warnings": told["warnings"]}
        status = self._recorded.services[step.resource]
        await remove(
            status,
            self._context,
            self._fleet,
            self._secret_targets.store.credential,
            lambda line: log.info("task output", resource=step.resource, line=line),
        )
        return {}

    def _inventories(self, service: Service) -> dict[str, dict[str, str]]:
        """By service, what the driver of this one has recorded of those that the spec names."""
        if self._by_kind is None:
            self._by_kind = {}
            for id in self._services:
                if (recorded := self._recorded.services.get(id)) is not None:
                    self._by_kind.setdefault(recorded.deploy, {})[id] = recorded.inventory
        return dict(self._by_kind.get(str(service.deploy.__struct_config__.tag), {}))

    @asynccontextmanager
    async def _tree(self, url: str, commit: str, *, needed: bool) -> AsyncIterator[Path]:
        """A work tree where one is needed, else a place where none is."""
        if not needed:
            yield self._checkouts / "none"
            return
        async with checkout(self._repositories.mirror(url), commit, under=self._checkouts) as tree:
            yield tree

    @staticmethod
    async def _record_only(_step: Step) -> Details:
        return {}


def _kept(driver: Driver, service: DesiredService, inventory: Mapping[str, str]) -> list[str]:
    """What status keeps of a deploy, for its removal."""
    order = {DEPENDS_ON: " ".join(service.depends_on)} if driver.removes else {}
    return [f"{name}={value}" for name, value in sorted({**inventory, **order}.items()) if value]
