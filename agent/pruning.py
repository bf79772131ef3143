"""Removes versions of a target of strategy `release`: those beyond `keep`, or all of them.

What a version's own manifest lists goes, as from any target; its directory with it, if nothing else is there.
"""

import contextlib
import os
from pathlib import Path

import trio

from agent.failures import TaskFailed, shortened
from agent.ignore import Ignore
from agent.manifest import forget, load, manifest_path
from agent.mounted import check_removable
from agent.removal import remove
from agent.rules import AgentRules
from agent.scan import scan
from agent.site import Site
from agent.target import check_target, open_target, remove_made_root
from agent.versions import (
    BUILDING,
    Releases,
    load_releases,
    record_path,
    settle,
    version_path,
    versions_state,
)
from agent.wire.messages import KeptVersion, Removal, TaskReport


async def discard(
    record: Releases,
    version: KeptVersion,
    inner: Path,
    site: Site,
    rules: AgentRules,
    *,
    everything: Ignore | None = None,
) -> list[str]:
    """Removes a version: what its manifest lists; with `everything` also what else lies there, unless some
    of that is ignored. Gives warnings about what stays."""
    path = version_path(record.target, version.name)
    manifest = await trio.to_thread.run_sync(load, manifest_path(inner, path))
    project = manifest.project if manifest is not None else record.project
    report = await remove(
        Removal(id="prune", project=project, target_path=path), rules=rules, state_dir=inner, is_version=True
    )
    left = await trio.to_thread.run_sync(lambda: version.name in site.versions())
    if left and everything is not None and not await _holds_ignored(path, rules, everything):
        await trio.to_thread.run_sync(site.remove_version, version.name)
        left = False
    if not left:
        return []
    return [f"{path!r} is no longer kept and stays, as it holds what trueup did not place", *report.warnings]


def forget_others(record: Releases, inner: Path) -> None:
    """Removes the manifests of versions that are gone, as a kill may leave them; blocks."""
    kept = {manifest_path(inner, version_path(record.target, each.name)) for each in record.kept}
    for path in (inner / "targets").glob("*.manifest"):
        if path not in kept:
            forget(path)
            path.unlink(missing_ok=True)


async def _holds_ignored(path: str, rules: AgentRules, ignore: Ignore) -> bool:
    def look() -> bool:
        folder = open_target(path, rules.roots, create=False)
        if folder is None:
            return False
        try:
            return bool(scan(folder.fd, ignore).ignored)
        finally:
            folder.close()

    return await trio.to_thread.run_sync(look)


async def remove_releases(removal: Removal, *, rules: AgentRules, state_dir: Path) -> TaskReport:
    """Removes all versions that a project has at a target, the link to them, and what was made for both."""
    path = record_path(state_dir, removal.target_path)
    check_target(removal.target_path, rules.roots)
    warnings: list[str] = []
    record = await trio.to_thread.run_sync(_recorded, removal, path)
    if record is None:
        return _of_another(removal)
    target = await trio.to_thread.run_sync(
        lambda: open_target(removal.target_path, rules.roots, create=False)
    )
    inner = versions_state(state_dir, removal.target_path)
    if target is None:
        await check_removable(removal.target_path, rules.roots, None, record)
    else:
        with Site(target) as site:
            await target.lock(shared=False)
            # Whoever had the lock may have placed something else there, for another project too.
            record = await trio.to_thread.run_sync(_recorded, removal, path)
            if record is None:
                return _of_another(removal)
            await check_removable(removal.target_path, rules.roots, target, record)
            record = settle(record, await trio.to_thread.run_sync(site.versions), record.current)
            await trio.to_thread.run_sync(site.sweep)
            await trio.to_thread.run_sync(_unlink, site, record)
            for version in record.kept:
                warnings += await discard(record, version, inner, site, rules)
            await trio.to_thread.run_sync(site.remove_folder)
            if record.made and record.root == target.identity:
                await trio.to_thread.run_sync(remove_made_root, target, rules.roots)
    await trio.to_thread.run_sync(_forget, path, inner)
    return TaskReport(
        task=removal.id, state="SUCCESS", files_deleted=len(record.kept), warnings=shortened(warnings)
    )


def _recorded(removal: Removal, path: Path) -> Releases | None:
    """What the project has there by the record, if anything; blocks."""
    record = load_releases(path)
    return record if record is not None and record.project == removal.project else None


def _of_another(removal: Removal) -> TaskReport:
    warning = f"{removal.target_path!r} is of another project by now: nothing was removed"
    return TaskReport(task=removal.id, state="SUCCESS", warnings=(warning,))


def _unlink(site: Site, record: Releases) -> None:
    """The link goes first: who follows it then finds nothing rather than half a tree."""
    try:
        link = site.current()
    except TaskFailed:
        return  # somebody else's by now
    if record.named(link) is not None:
        site.remove_link()


def _forget(path: Path, inner: Path) -> None:
    built = manifest_path(inner, version_path("", BUILDING))
    forget(built)
    built.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    for empty in (inner / "targets", inner):
        with contextlib.suppress(OSError):
            empty.rmdir()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
