"""Sync targets that an operator switched back to a release that they keep. Pure."""

from dataclasses import replace
from typing import Final

from reconciler.control.records import Record
from reconciler.control.situation import told
from reconciler.desired_model import DesiredResource, DesiredSync, Facts, Revision
from reconciler.hashing import Inputs, config_hash, digest
from reconciler.observation import Present
from reconciler.status.revisions import split_revision

RETURNED: Final = "node rollback"
"""The input that names the tree of the release that a target was switched back to."""


def with_release(facts: Facts, resource: DesiredSync, record: Record) -> DesiredSync:
    """At a release that the target keeps, as it was left: nothing of the project as it is now counts."""
    ref, commit = split_revision(record.revision)
    if commit and record.revision.endswith(f"@sha1:{commit}"):
        revision = Revision(ref, commit)
    else:
        revision = Revision(ref or "release", commit or record.tree, form="sha256")
    inputs = Inputs({RETURNED: record.tree, "after": digest(resource.project.after)}, {})
    return replace(
        resource,
        returned=record,
        revision=revision,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
    )


def is_returned(resource: DesiredResource) -> bool:
    return isinstance(resource, DesiredSync) and resource.returned is not None


def reason_of_return(resource: DesiredResource, found: Present) -> str:
    """Why a step is due where one is because of such a decision, or because it was lifted; else empty."""
    if isinstance(resource, DesiredSync) and (record := resource.returned) is not None:
        return rolled_back_to(record)
    return "the rollback of the node was lifted" if RETURNED in found.inputs.public else ""


def rolled_back_to(record: Record) -> str:
    return f"rolled back to {record.revision or record.tree[:12]} {told(record)}"
