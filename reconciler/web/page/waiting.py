"""What waits for a person: to be decided, to be mended, or to be let go on again. Pure."""

from collections.abc import Collection, Iterable, Iterator

from reconciler.web.page.model import EnvironmentView, NodeView, ProjectView, ServiceGroup, Todo, Tone

MAX_LISTED = 20
"""The rest stands in the sections, with the same badges; a last line says how many there are."""


def todos(
    environments: Collection[EnvironmentView],
    services: Collection[ServiceGroup],
    nodes: Collection[NodeView],
    projects: Collection[ProjectView],
) -> tuple[Todo, ...]:
    """What is to be decided first, then what failed, then what somebody stopped and may have forgotten."""
    found = [
        *_decisions(environments),
        *_troubles(services, nodes, projects),
        *_stopped(environments, services, projects),
    ]
    left = found[MAX_LISTED:]
    more = [Todo(f"and {len(left)} more", left[0].section, Tone.IDLE)] if left else []
    return (*found[:MAX_LISTED], *more)


def _decisions(environments: Iterable[EnvironmentView]) -> Iterator[Todo]:
    for environment in environments:
        for unit in environment.units:
            for waits in unit.waits:
                if waits.approvable:
                    text = f"{waits.tag} of {unit.name} waits for approval in {environment.name}"
                    yield Todo(text, "environments", Tone.WAIT)
            if unit.refused:
                text = f"a release of {unit.name} was refused in {environment.name}: {unit.refused}"
                yield Todo(text, "environments", Tone.BAD)


def _troubles(
    services: Iterable[ServiceGroup], nodes: Iterable[NodeView], projects: Iterable[ProjectView]
) -> Iterator[Todo]:
    for group in services:
        for each in group.services:
            if each.state.badge.tone is Tone.BAD:
                reason = each.state.reason or "it failed"
                yield Todo(f"{each.name} in {each.environment}: {reason}", "services", Tone.BAD, each.id)
    for node in nodes:
        if node.state.badge.tone in (Tone.BAD, Tone.WAIT) and not node.revoked:
            yield Todo(f"{node.name} is {node.state.badge.text}", "nodes", node.state.badge.tone)
    for project in projects:
        if project.state.badge.tone is Tone.BAD:
            yield Todo(f"{project.name}: {project.state.reason or 'it failed'}", "projects", Tone.BAD)


def _stopped(
    environments: Iterable[EnvironmentView], services: Iterable[ServiceGroup], projects: Iterable[ProjectView]
) -> Iterator[Todo]:
    for environment in environments:
        if environment.held:
            yield Todo(f"{environment.name} is {environment.held}", "environments", Tone.IDLE)
        for unit in environment.units:
            if unit.held:
                text = f"{unit.name} in {environment.name} is kept: {unit.held}"
                yield Todo(text, "environments", Tone.IDLE)
    for group in services:
        for each in group.services:
            if each.suspended:
                yield Todo(f"{each.name} in {each.environment} is suspended", "services", Tone.IDLE, each.id)
    for project in projects:
        if project.suspended:
            yield Todo(f"{project.name} is suspended", "projects", Tone.IDLE)
