"""The services in their environments: conditions, hash, last change, and why."""

from datetime import datetime

import trio

from reconciler.journal import Journal, StepRecord
from reconciler.runner import Runner
from reconciler.spec.model import Service
from reconciler.status.documents import HistoryEntry, ServiceStatus
from reconciler.web.apis.known import (
    ConditionView,
    Known,
    Limit,
    Name,
    NotFound,
    Page,
    Paged,
    Planned,
    Readiness,
    conditions_of,
    known,
    page_of,
    planned_of,
    readiness_of,
    seen_as,
)
from reconciler.web.endpoints import AnyEndpoint, Call, Endpoint, Model, Nothing, Role

STEPS = 20


class Change(Model, frozen=True):
    """An outcome that differed from the one before."""

    revision: str
    outcome: str
    reason: str
    config_hash: str
    at: datetime


class ServiceView(Model, frozen=True):
    id: str
    environment: str
    name: str
    repository: str
    unit: str
    deploy: str
    """The kind of driver."""
    ready: Readiness
    conditions: tuple[ConditionView, ...]
    config_hash: str
    """Of what was last established; empty: nothing is known to be."""
    applied_revision: str
    attempted_revision: str
    last_change: Change | None
    planned: Planned | None
    """Null: the last pass found it in order."""
    suspended: bool
    depends_on: tuple[str, ...]


class Services(Page, frozen=True):
    services: tuple[ServiceView, ...]


class StepView(Model, frozen=True):
    """One step, and why it was made. `outcome` is empty while it has not ended."""

    action: str
    reason: str
    revision: str
    began_at: str
    ended_at: str
    outcome: str
    end_reason: str
    message: str


class ServiceDetail(ServiceView, frozen=True):
    changes: tuple[Change, ...]
    steps: tuple[StepView, ...]
    """The newest steps that the journal of this primary remembers."""
    inputs: tuple[str, ...]
    """Names of what its hash is made of: what is no secret, then the secrets."""


class ServicesQuery(Paged, frozen=True, kw_only=True):
    limit: Limit = 100
    environment: Name = ""


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def listed(call: Call[ServicesQuery, Nothing]) -> Services:
        seen, environment = known(runner), call.query.environment
        by_id = {each.id: each for each in seen.spec.services if environment in ("", each.environment)}
        ids, following = page_of(sorted(by_id), call.query)
        return Services(services=tuple(_view(seen, by_id[id]) for id in ids), next=following)

    async def one(call: Call[Nothing, Nothing]) -> ServiceDetail:
        seen = known(runner)
        id = f"services/{call.path['environment']}/{call.path['name']}"
        service = next((each for each in seen.spec.services if each.id == id), None)
        if service is None:
            raise NotFound(f"Service {id.removeprefix('services/')}")
        steps = await trio.to_thread.run_sync(_steps, runner.primary.journal, id)
        return _detail(seen, service, steps)

    return [
        Endpoint(
            method="GET",
            path="/api/services",
            summary="The services in all their environments, or in one",
            tag="services",
            handler=listed,
            role=Role.READ,
            query=ServicesQuery,
            answer=Services,
        ),
        Endpoint(
            method="GET",
            path="/api/services/{environment}/{name}",
            summary="A service in an environment, with its newest steps",
            tag="services",
            handler=one,
            role=Role.READ,
            answer=ServiceDetail,
        ),
    ]


def _steps(journal: Journal, id: str) -> tuple[StepRecord, ...]:
    return journal.steps(id, STEPS)


def _view(known: Known, service: Service) -> ServiceView:
    status = known.recorded.services.get(service.id) or ServiceStatus(id=service.id)
    changes = changes_of(status.history)
    return ServiceView(
        id=service.id,
        environment=service.environment,
        name=service.name,
        repository=service.repository,
        unit=service.unit,
        deploy=str(service.deploy.__struct_config__.tag),
        ready=readiness_of(status.conditions),
        conditions=conditions_of(status.conditions),
        config_hash=status.config_hash,
        applied_revision=status.last_applied_revision,
        attempted_revision=status.last_attempted_revision,
        last_change=changes[0] if changes else None,
        planned=planned_of(known, service.id),
        suspended=service.suspend or known.control.suspends(service.id),
        depends_on=service.depends_on,
    )


def _detail(known: Known, service: Service, steps: tuple[StepRecord, ...]) -> ServiceDetail:
    status = known.recorded.services.get(service.id) or ServiceStatus(id=service.id)
    view = _view(known, service)
    return ServiceDetail(
        **{name: getattr(view, name) for name in view.__struct_fields__},
        changes=changes_of(status.history),
        steps=tuple(map(step_view, steps)),
        inputs=(*sorted(status.inputs.public), *sorted(status.inputs.keyed)),
    )


def changes_of(history: tuple[HistoryEntry, ...]) -> tuple[Change, ...]:
    """The newest first."""
    return tuple(seen_as(Change, each) for each in history)


def step_view(step: StepRecord) -> StepView:
    return seen_as(StepView, step)
