"""The environments: which releases run there, what waits and for what, and what keeps it back."""

from datetime import datetime

import msgspec

from reconciler.control.records import Record
from reconciler.release.windows import is_open, next_opening
from reconciler.runner import Runner
from reconciler.spec.model import Environment, Window
from reconciler.status.documents import EnvironmentStatus, Release
from reconciler.web.apis.known import (
    ConditionView,
    Known,
    NotFound,
    Page,
    Paged,
    Readiness,
    conditions_of,
    known,
    page_of,
    readiness_of,
    seen_as,
)
from reconciler.web.endpoints import AnyEndpoint, Call, Endpoint, Model, Nothing, Role


class ReleaseView(Model, frozen=True):
    tag: str
    commit: str
    spec_revision: str
    kind: str
    recorded_at: datetime
    promoted_from: str
    triggered_by: str
    decision: int
    outcome: str
    """`succeeded` or `failed`; empty: not known yet."""
    ended_at: datetime | None
    reason: str


class UnitView(Model, frozen=True):
    """A unit's release in an environment. `refused`: why the newest request for another was not taken."""

    unit: str
    release: ReleaseView
    refused: str


class WaitingView(Model, frozen=True):
    """A release that would be taken if something did not keep it back."""

    unit: str
    tag: str
    commit: str
    reason: str
    message: str


class HoldView(Model, frozen=True):
    """Why an environment, or one unit there, stays at its release. `number`: the operator's record, or 0."""

    unit: str
    reason: str
    at: datetime
    resource: str = ""
    keys: tuple[str, ...] = ()
    by: str = ""
    number: int = 0


class WindowView(Model, frozen=True):
    allow: str | None
    deny: str | None
    timezone: str


class Windows(Model, frozen=True):
    open: bool
    opens_at: datetime | None
    """When they are open next, or now; null: never."""
    windows: tuple[WindowView, ...]


class Decided(Model, frozen=True):
    """An operator's decision that is in force."""

    by: str
    at: datetime
    reason: str
    number: int


class EnvironmentView(Model, frozen=True):
    name: str
    ready: Readiness
    conditions: tuple[ConditionView, ...]
    follows: str
    """The branch that releases are made of; empty where they are promoted."""
    promoted_from: str
    approval: str
    units: tuple[UnitView, ...]
    waiting: tuple[WaitingView, ...]
    holds: tuple[HoldView, ...]
    windows: Windows
    suspended: Decided | None
    frozen: Decided | None
    """Of all environments together."""


class Environments(Page, frozen=True):
    environments: tuple[EnvironmentView, ...]


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def listed(call: Call[Paged, Nothing]) -> Environments:
        seen = known(runner)
        names, following = page_of(sorted(seen.spec.environments), call.query)
        return Environments(
            environments=tuple(_view(seen, seen.spec.environments[name]) for name in names), next=following
        )

    async def one(call: Call[Nothing, Nothing]) -> EnvironmentView:
        seen, name = known(runner), call.path["name"]
        if name not in seen.spec.environments:
            raise NotFound(f"Environment {name}")
        return _view(seen, seen.spec.environments[name])

    return [
        Endpoint(
            method="GET",
            path="/api/environments",
            summary="The environments: releases, what waits, holds, windows",
            tag="environments",
            handler=listed,
            role=Role.READ,
            query=Paged,
            answer=Environments,
        ),
        Endpoint(
            method="GET",
            path="/api/environments/{name}",
            summary="One environment",
            tag="environments",
            handler=one,
            role=Role.READ,
            answer=EnvironmentView,
        ),
    ]


def _view(known: Known, environment: Environment) -> EnvironmentView:
    name, policy = environment.name, environment.release
    id = f"environments/{name}"
    status = known.recorded.environments.get(id) or EnvironmentStatus(id=id)
    return EnvironmentView(
        name=name,
        ready=readiness_of(status.conditions),
        conditions=conditions_of(status.conditions),
        follows=policy.from_branch or "",
        promoted_from=policy.promote_from or "",
        approval=policy.approval,
        units=tuple(
            UnitView(unit=unit, release=release_view(each.release), refused=each.refused)
            for unit, each in sorted(status.units.items())
        ),
        waiting=tuple(seen_as(WaitingView, each) for each in status.waiting),
        holds=(*_operators_holds(known, name), *(seen_as(HoldView, each) for each in status.holds)),
        windows=_windows(environment.windows, known.now),
        suspended=_decided(known.control.suspension_of(id)),
        frozen=_decided(known.control.frozen),
    )


def release_view(release: Release) -> ReleaseView:
    return seen_as(ReleaseView, msgspec.structs.replace(release, spec_revision=release.spec_revision or ""))


def _operators_holds(known: Known, environment: str) -> list[HoldView]:
    return [
        HoldView(
            unit=unit,
            reason=record.reason,
            by=record.by,
            number=record.number,
            at=record.at,
        )
        for (of, unit), record in sorted(known.control.holds.items())
        if of == environment
    ]


def _windows(windows: tuple[Window, ...], now: datetime) -> Windows:
    return Windows(
        open=is_open(windows, now),
        opens_at=next_opening(windows, now),
        windows=tuple(seen_as(WindowView, each) for each in windows),
    )


def _decided(record: Record | None) -> Decided | None:
    return None if record is None else seen_as(Decided, record)
