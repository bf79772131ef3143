"""What the primary will make of requests for releases: the same rules, asked before anything is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from reconciler.control.records import Record
from reconciler.control.situation import Situation
from reconciler.control.state import fold
from reconciler.observation import Setback
from reconciler.release.decide import decide
from reconciler.release.facts import Common
from reconciler.release.look import look_up_lineage, unit_facts
from reconciler.release.planning import describe
from reconciler.repositories import Repositories
from reconciler.views import View, view_repositories


@dataclass(frozen=True, slots=True)
class Outlook:
    """For one record: that it would be refused and why, or else what comes of it."""

    refused: str = ""
    coming: str = ""


async def outlooks(
    at: Situation, repositories: Repositories, known: Sequence[Record], new: Sequence[Record]
) -> list[Outlook]:
    """One for each of the new records, as if all of them were recorded after those that are known.

    A repository that this machine may not read is no reason to refuse: the primary reads it.
    """
    numbered = [
        msgspec.structs.replace(record, number=number) for number, record in enumerate(new, len(known) + 1)
    ]
    common = Common(
        now=at.now,
        spec_commit=at.spec_commit,
        control=fold([*known, *numbered]),
        holds={name: at.status(name).holds for name in at.spec.environments},
    )
    names = {at.spec.units[record.unit].repository for record in numbered}
    views = await view_repositories([at.spec.repositories[name] for name in sorted(names)], repositories)
    return [await _outlook(at, views[at.spec.units[each.unit].repository], common, each) for each in numbered]


async def _outlook(at: Situation, view: View | Setback, common: Common, record: Record) -> Outlook:
    unit = at.spec.units[record.unit]
    if isinstance(view, Setback):
        return Outlook(
            coming=f"the next pass judges it; {unit.repository} cannot be read here: {view.message}"
        )
    facts = unit_facts(at.spec, {unit.repository: view}, at.recorded, common, record.unit, record.environment)
    facts = replace(facts, lineage=await look_up_lineage(facts, common, view))
    decision = decide(facts, common)
    if decision.refused is not None:
        return Outlook(refused=decision.refused[1])
    if decision.next is not None:
        return Outlook(coming=f"the next pass: {describe(decision.next)}")
    if decision.waiting is not None:
        return Outlook(coming=f"it waits: {decision.waiting.message}")
    if common.control.frozen is not None:
        return Outlook(coming="it waits: everything is frozen; `trueup unfreeze` ends it")
    return Outlook(coming=f"it waits: {record.environment} is suspended")
