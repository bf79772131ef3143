"""Ids of resources: the path of the status file without `.yaml`."""

from reconciler.spec.model import Project, SyncTarget


def target_slug(target_path: str) -> str:
    """A target path as one file name: `/srv/project-a` is `srv+project-a`. Reversible."""
    return target_path.strip("/").replace("%", "%25").replace("+", "%2B").replace("/", "+")


def project_id(project: Project) -> str:
    return f"projects/{project.scope}/{project.id}"


def build_id(project: Project) -> str:
    """The build of a project is a step of its own, named after the project."""
    return project_id(project)


def sync_id(project: Project, target: SyncTarget) -> str:
    return f"{project_id(project)}/{target.node}/{target_slug(target.target_path)}"
