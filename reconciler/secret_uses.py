"""Who uses which secret source, in which environment: read off the spec. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from msgspec import structs

from reconciler.desired_target import pushed_from, target_environment
from reconciler.identity import project_id
from reconciler.spec.model import SecretCredential, SecretUse, Spec


class Purpose(StrEnum):
    """What values of a source are wanted for."""

    DEPLOY = "deploy"
    RENDER = "render"
    PUSH = "push"
    EXPORT = "export"
    """The source's own system writes them; its values are not read."""
    CREDENTIAL = "credential"
    """Another source logs in with it."""
    FALLBACK = "fallback"
    """It serves where another source does not."""


@dataclass(frozen=True, slots=True)
class Use:
    """One entry of the spec that names a source."""

    source: str
    environment: str
    """Empty: what belongs to no environment."""
    resource: str
    purpose: Purpose
    keys: tuple[str, ...] = ()
    """As the source has them; empty: all."""
    file: str = ""
    """The rendered file, where it is one."""


def uses_of(spec: Spec) -> Iterator[Use]:
    """All of them, in the order of the spec; a credential or fallback once for each environment it is for."""
    for service in spec.services:
        for use in service.secrets:
            yield Use(use.source, service.environment, service.id, Purpose.DEPLOY, keys_of(use))
    for project in spec.projects.values():
        for file in project.files:
            for use in file.secrets:
                yield Use(
                    use.source,
                    project.environment or "",
                    project_id(project),
                    Purpose.RENDER,
                    keys_of(use),
                    file.path,
                )
    for target in spec.secret_targets.values():
        purpose = Purpose.PUSH if pushed_from(spec, target) is not None else Purpose.EXPORT
        environment = target_environment(spec.secret_sources[target.source])
        keys = tuple(dict.fromkeys(key.key for key in target.keys))
        yield Use(target.source, environment, f"targets/{target.name}", purpose, keys)
    for source in spec.secret_sources.values():
        for value in structs.asdict(source.settings).values():
            if isinstance(value, SecretCredential):
                environment = target_environment(spec.secret_sources[value.source])
                id = f"secrets/{source.name}"
                yield Use(value.source, environment, id, Purpose.CREDENTIAL, (value.key,))
        for fallback in source.fallback:
            environment = target_environment(spec.secret_sources[fallback])
            yield Use(fallback, environment, f"secrets/{source.name}", Purpose.FALLBACK)


def keys_of(use: SecretUse) -> tuple[str, ...]:
    """The keys that an entry names; none: it takes all that the source has."""
    return tuple(dict.fromkeys([*use.keys, *use.rename])) if use.keys else ()


def asked_environments(spec: Spec) -> dict[str, tuple[str, ...]]:
    """By source, those for which a pass asks it; none for one that is only a credential or fallback."""
    asked: dict[str, set[str]] = {name: set() for name in spec.secret_sources}
    for use in uses_of(spec):
        if use.purpose in (Purpose.DEPLOY, Purpose.RENDER, Purpose.PUSH) and use.source in asked:
            asked[use.source].add(use.environment)
    return {name: tuple(sorted(environments)) for name, environments in asked.items()}
