"""Whether a target of strategy `release` still is as it was left: its link, and where that leads."""

import hashlib
from pathlib import Path

import trio

from agent.compare import Difference, Remembered, compare
from agent.rules import AgentRules
from agent.site import Site
from agent.target import check_target, open_target
from agent.versions import Releases, load_releases, version_manifest, versions_state


async def compare_any(
    record: Path, *, rules: AgentRules, state_dir: Path, memory: Remembered
) -> Difference | None:
    """What differs in the target of a record, whatever its strategy; as `compare`."""
    if record.suffix != ".releases":
        return await compare(record, rules=rules, state_dir=state_dir, memory=memory)
    before = await trio.to_thread.run_sync(load_releases, record)
    if before is None or not before.current or before.next is not None:
        return None
    inner = versions_state(state_dir, before.target)
    manifest = version_manifest(state_dir, before.target, before.current)
    found = await compare(manifest, rules=rules, state_dir=inner, memory=memory)
    leads_there = await trio.to_thread.run_sync(_leads_there, before, rules)
    if found is None or await trio.to_thread.run_sync(load_releases, record) != before:
        return None
    count, digest = found.count, found.digest
    if not leads_there:
        count, digest = count + 1, hashlib.sha256(b"current" + digest).digest()
    return Difference(before.project, before.target, digest, count)


def _leads_there(record: Releases, rules: AgentRules) -> bool:
    check_target(record.target, rules.roots)
    target = open_target(record.target, rules.roots, create=False)
    if target is None:
        return False
    with Site(target) as site:
        return site.current() == record.current
