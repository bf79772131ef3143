"""Carrying out the release steps of a pass: making a tag, or returning to an earlier release."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from reconciler.apply import Details, Outcome
from reconciler.desired_model import AnyDesired, Desired, Revision
from reconciler.gates import release_id
from reconciler.plan import Step, place_of
from reconciler.release.current import Release
from reconciler.release.cut import cut_release
from reconciler.release.decide import Decision
from reconciler.release.facts import Next, UnitFacts
from reconciler.repositories import Repositories
from reconciler.spec.model import Spec
from reconciler.verification import Verification

Pair = tuple[str, str]


class ReleaseSteps:
    """The releases of one pass: those that are planned, and under which name each came about."""

    def __init__(
        self,
        spec: Spec,
        decisions: Mapping[Pair, Decision],
        facts: Mapping[Pair, UnitFacts],
        *,
        repositories: Repositories,
        verification: Verification,
        spec_branch: str,
        now: Callable[[], datetime],
        signing_key: Path | None = None,
    ) -> None:
        self._spec = spec
        self._planned = {
            release_id(*pair): (pair, decision.next) for pair, decision in decisions.items() if decision.next
        }
        self._decisions = decisions
        self._facts = facts
        self._repositories = repositories
        self._verification = verification
        self._spec_branch = spec_branch
        self._now = now
        self._signing_key = signing_key
        self.renamed: dict[Pair, str] = {}
        """Tags that got another number than was planned, as somebody else had taken that one."""

    async def release(self, step: Step) -> Details:
        """Carry out one step; the details are all that the status file has to say of the release."""
        pair, planned = self._planned[step.resource]
        tag = planned.tag
        if planned.cut:
            unit = self._spec.units[pair[0]]
            repository = self._spec.repositories[unit.repository]

            async def check(name: str, oid: str) -> None:
                await self._verification.check(repository, Revision(name, planned.commit), oid=oid)

            mirror = self._repositories.mirror(repository.url)
            tag = await cut_release(
                mirror,
                self._facts[pair],
                planned,
                spec_branch=self._spec_branch,
                now=self._now(),
                signing_key=self._signing_key,
                check=check,
            )
            if tag != planned.tag:
                self.renamed[pair] = tag
        return release_details(pair, planned, tag)

    def revision_of(self, resource: AnyDesired) -> Revision | None:
        """What a resource runs, under the tag that there is now."""
        pair, revision = place_of(resource), resource.revision
        if pair is None or revision is None or pair not in self.renamed:
            return revision
        return Revision(self.renamed[pair], revision.commit, revision.spec_revision)

    def as_released(self, desired: Desired, outcomes: Mapping[str, Outcome]) -> Desired:
        """What is desired after the steps: under the tags that came about, or as before where none did."""
        stays = {
            pair: _revision(self._decisions[pair].current)
            for step, (pair, _) in self._planned.items()
            if step in outcomes and outcomes[step].state != "succeeded"
        }
        if not stays and not self.renamed:
            return desired

        def settled(resource: AnyDesired) -> AnyDesired:
            pair = place_of(resource)
            if pair in stays:
                return replace(resource, revision=stays[pair])
            return replace(resource, revision=self.revision_of(resource))

        return replace(desired, resources=tuple(map(settled, desired.resources)))


def _revision(current: object) -> Revision | None:
    if not isinstance(current, Release):
        return None
    return Revision(current.tag, current.commit, current.spec_revision)


def release_details(pair: Pair, release: Next, tag: str) -> dict[str, str | int | bool | list[str]]:
    return {
        "unit": pair[0],
        "environment": pair[1],
        "tag": tag,
        "commit": release.commit,
        "spec": release.spec_revision or "",
        "kind": release.kind,
        "promoted_from": release.promoted_from,
        "previous": release.previous,
        "previous_tag": release.previous_tag,
        "triggered_by": release.triggered_by,
        "decision": release.decision,
    }
