"""The releases that environments have and had, the newest first."""

from typing import Annotated

import msgspec

from reconciler.release.past import Past, past_of
from reconciler.runner import Runner
from reconciler.status.documents import Recorded
from reconciler.web.apis.environments import ReleaseView, release_view
from reconciler.web.apis.known import Limit, Name, NotFound, Page, known
from reconciler.web.endpoints import AnyEndpoint, Asked, Call, Endpoint, Model, Nothing, Role


class HistoryQuery(Asked, frozen=True, kw_only=True):
    limit: Limit = 50
    before: Annotated[str, msgspec.Meta(max_length=1024, description="`next` of the page before.")] = ""
    unit: Name = ""


class HistoryEntryView(Model, frozen=True):
    """`current`: it is the unit's release there now. `previous`: the commit that ran before it."""

    environment: str
    unit: str
    current: bool
    previous: str
    release: ReleaseView


class History(Page, frozen=True):
    """`next` goes into `before`."""

    releases: tuple[HistoryEntryView, ...]


def endpoints(runner: Runner) -> list[AnyEndpoint]:
    async def of_all(call: Call[HistoryQuery, Nothing]) -> History:
        return history_page(known(runner).recorded, "", call.query)

    async def of_one(call: Call[HistoryQuery, Nothing]) -> History:
        seen, name = known(runner), call.path["environment"]
        if f"environments/{name}" not in seen.recorded.environments and name not in seen.spec.environments:
            raise NotFound(f"Environment {name}")
        return history_page(seen.recorded, name, call.query)

    return [
        Endpoint(
            method="GET",
            path="/api/history",
            summary="The releases of all environments, the newest first",
            tag="environments",
            handler=of_all,
            role=Role.READ,
            query=HistoryQuery,
            answer=History,
        ),
        Endpoint(
            method="GET",
            path="/api/history/{environment}",
            summary="The releases of one environment, the newest first",
            tag="environments",
            handler=of_one,
            role=Role.READ,
            query=HistoryQuery,
            answer=History,
        ),
    ]


def history_page(recorded: Recorded, environment: str, query: HistoryQuery) -> History:
    """Of one environment, or of all where none is named."""
    chosen = [past for past in past_of(recorded, environment) if query.unit in ("", past.unit)]
    entries = sorted(((_key(past), past) for past in chosen), key=lambda each: each[0], reverse=True)
    following = [each for each in entries if not query.before or each[0] < query.before]
    page = following[: query.limit]
    return History(
        releases=tuple(_view(past) for _, past in page),
        next=page[-1][0] if len(following) > len(page) else None,
    )


def _view(past: Past) -> HistoryEntryView:
    return HistoryEntryView(
        environment=past.environment,
        unit=past.unit,
        current=past.current,
        previous=past.release.previous,
        release=release_view(past.release),
    )


def _key(past: Past) -> str:
    """Sorts as the time does, and tells what came at the same time apart."""
    release = past.release
    return f"{release.recorded_at:%Y-%m-%dT%H:%M:%SZ} {past.environment} {past.unit} {release.tag}"
