"""Decisions that switch a node back to a release that it keeps of a project, or end that. Pure.

What is decided is named by its tree, as the node keeps it, so that it needs nothing but the node.
"""

import re

from reconciler.control.records import Record
from reconciler.control.requests import Asked
from reconciler.control.situation import DecisionRefused, Situation, told, unknown
from reconciler.identity import sync_id
from reconciler.status.documents import KeptRelease, SyncStatus
from reconciler.status.revisions import split_revision

_SHORTEST = 7
"""Digits of a commit that name it."""


def node_rollback(at: Situation, node: str, project: str, to: str | None, *, reason: str = "") -> Asked:
    """Back to the release that was current before, or to another one that is kept."""
    found: list[Record] = []
    left_out: list[str] = []
    for target in _targets(at, node, project):
        chosen = _chosen(at, target, to)
        if isinstance(chosen, str):
            left_out.append(chosen)
            continue
        found.append(
            at.decide(
                "node-rollback",
                resource=target.id,
                tree=chosen.tree,
                revision=chosen.revision,
                reason=reason,
            )
        )
    if not found:
        if to is not None and all(each.startswith(_KEEPS_NO) for each in left_out):
            kept = {name_of(each) for target in _targets(at, node, project) for each in target.releases}
            raise unknown(f"release of {project} on {node}", to, kept)
        raise DecisionRefused("; ".join(left_out))
    return Asked(tuple(found), tuple(left_out))


def node_unroll(at: Situation, node: str, project: str, *, reason: str = "") -> Asked:
    """Ends that: the node follows the project again."""
    if node not in at.spec.nodes:
        raise unknown("node", node, at.spec.nodes)
    standing = [id for id in sorted(at.control.returned) if _is_of(id, node, project)]
    if not standing:
        raise DecisionRefused(f"{project} is not rolled back on {node}")
    return Asked(tuple(at.decide("node-unroll", resource=id, reason=reason) for id in standing))


def name_of(release: KeptRelease) -> str:
    """What people call it: its revision's tag or branch with the commit's first digits, or its directory."""
    ref, commit = split_revision(release.revision)
    return f"{ref}@{commit[:12]}" if commit else release.name


_KEEPS_NO = "keeps no "


def _targets(at: Situation, node: str, project: str) -> list[SyncStatus]:
    if node not in at.spec.nodes:
        raise unknown("node", node, at.spec.nodes)
    if project not in at.spec.projects:
        raise unknown("project", project, at.spec.projects)
    whole = at.spec.projects[project]
    wanted = [each for each in whole.sync.targets if each.node == node]
    if not wanted:
        raise DecisionRefused(f"{project} is not synced to {node}")
    ids = [sync_id(whole, each) for each in wanted if each.strategy == "release"]
    if not ids:
        raise DecisionRefused(
            f"{node} keeps no releases of {project}",
            hint="only targets with `strategy: release` do; `trueup rollback` returns an environment",
        )
    return [at.recorded.syncs.get(id) or SyncStatus(id=id, node=node, target_path="") for id in ids]


def _is_of(id: str, node: str, project: str) -> bool:
    parts = id.split("/")
    return len(parts) > 3 and (parts[2], parts[3]) == (project, node)


def _chosen(at: Situation, target: SyncStatus, to: str | None) -> KeptRelease | str:
    """The release, or why there is none."""
    where = f"{target.node}:{target.target_path}"
    standing = at.control.returned.get(target.id)
    if to is None:
        if standing is not None:
            return f"{where} is rolled back already, {told(standing)}; name another release with --to"
        others = [each for each in target.releases if each.name != target.current]
        return others[-1] if others else f"{where} keeps no earlier release"
    matching = [each for each in target.releases if _is_meant(each, to)]
    trees = {each.tree for each in matching}
    if not matching:
        return f"{_KEEPS_NO}{to!r} at {where}"
    if len(trees) > 1:
        return f"{to!r} may be {' or '.join(each.name for each in matching)} at {where}; name one of these"
    chosen = matching[-1]
    if standing is not None and standing.tree == chosen.tree:
        return f"{where} is rolled back to {to} already, {told(standing)}"
    if standing is None and chosen.name == target.current:
        return f"{where} runs {to} already"
    return chosen


def _is_meant(release: KeptRelease, to: str) -> bool:
    ref, commit = split_revision(release.revision)
    if to in (release.name, release.name.partition("-")[0], release.revision, ref, name_of(release)):
        return True
    return len(to) >= _SHORTEST and bool(re.fullmatch(r"[0-9a-f]+", to)) and commit.startswith(to)
