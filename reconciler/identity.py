"""Ids of resources: the path of the status file without `.yaml`. Pure."""

import hashlib
import re

from reconciler.spec.model import ComposeDeploy, DokployDeploy, Project, Service, SyncTarget

MAX_SLUG = 200
"""Bytes; a file name has room for 255."""


def target_slug(target_path: str) -> str:
    """A target path as one file name: `/srv/project-a` is `srv+project-a`.

    What a file name or a terminal could misread is percent-encoded. A path that gets too long keeps its
    beginning, and a digest tells it from others with the same one.
    """
    slug = "".join("+" if character == "/" else _encoded(character) for character in target_path.strip("/"))
    if len(slug.encode()) <= MAX_SLUG:
        return slug
    mark = hashlib.sha256(target_path.encode()).hexdigest()[:16]
    return slug.encode()[: MAX_SLUG - len(mark) - 1].decode(errors="ignore") + "~" + mark


def _encoded(character: str) -> str:
    if character in "%+~\\" or not character.isprintable():
        return "".join(f"%{byte:02X}" for byte in character.encode())
    return character


def project_id(project: Project) -> str:
    return f"projects/{project.scope}/{project.id}"


def build_id(project: Project) -> str:
    """The build of a project is a step of its own, named after the project."""
    return project_id(project)


def sync_id(project: Project, target: SyncTarget) -> str:
    return f"{project_id(project)}/{target.node}/{target_slug(target.target_path)}"


def is_installation(resource: str) -> bool:
    """Whether a task of this resource is a `trueup node install`: done by that command, and by no pass."""
    return resource.startswith("nodes/")


def compose_project(service: Service, recorded: str | None = None) -> str:
    """The compose project of a service: what the spec says, else what it was deployed as, else its own name.

    A project's volumes bear its name, so that a service which is renamed keeps the name of its project.
    Compose allows small letters, digits, `-` and `_`; where others are replaced, a digest tells the service
    from those that would be called the same.
    """
    assert isinstance(service.deploy, ComposeDeploy)
    if service.deploy.project_name or recorded:
        return service.deploy.project_name or recorded or ""
    name = f"{service.environment}-{service.name}"
    allowed = re.sub(r"[^a-z0-9_-]", "-", name.lower())
    return allowed if allowed == name else f"{allowed}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def dokploy_application(server: str, compose_id: str) -> str:
    """A compose application in Dokploy, under one name however the server's address is written."""
    place = re.sub(r"^https?://", "", server.lower()).rstrip("/").removesuffix("/api")
    return f"{place.rstrip('/')} {compose_id}"


def exclusive_place(service: Service) -> tuple[str, str, str] | None:
    """What one service alone may deploy to: the kind of place, which one, and the key that names it."""
    match service.deploy:
        case ComposeDeploy():
            return "compose project", compose_project(service), "project_name"
        case DokployDeploy(server=server, compose_id=compose_id):
            return "application in Dokploy", dokploy_application(server, compose_id), "compose_id"
    return None
