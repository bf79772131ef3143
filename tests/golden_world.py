"""A small world as values, in which passes are planned and their steps end as a case says: no git, no clock.

Everything that decides is the real thing: loading the spec, releases, desired state, plan, order, status.
Only what looks and acts is played: commits are names, a step succeeds unless the case lets it fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

import msgspec

from reconciler.apply import Details, Outcome, apply_plan
from reconciler.control.records import Record
from reconciler.control.state import ControlState, fold
from reconciler.deploy.removal import removable
from reconciler.desired import Facts, make_desired
from reconciler.desired_model import Desired, Revision
from reconciler.environment_status import returned_to
from reconciler.errors import StepFailed
from reconciler.gather import releases_of
from reconciler.git.mirror import Mirror
from reconciler.git.objects import Refs, Tag, TreeEntry
from reconciler.holds import active_holds
from reconciler.identity import compose_project
from reconciler.observation import Observation, Present, Setback, Unknown
from reconciler.observe import recorded_observation
from reconciler.pass_status import PassFacts, with_pass
from reconciler.paths import CommitPaths
from reconciler.plan import Action, Plan, Step, make_plan
from reconciler.recording import StepResult, step_result, with_replayed, with_results
from reconciler.release.cut import trailers_of
from reconciler.release.decide import Decision, decide
from reconciler.release.facts import Common, Lineage, UnitFacts
from reconciler.release.look import (
    commits_that_may_come,
    pairs_of,
    unit_facts,
    what_changed,
    with_numbers,
)
from reconciler.release.planning import gates_of, release_steps, spec_revisions
from reconciler.release_steps import release_details
from reconciler.secret_uses import asked_environments
from reconciler.secrets.values import Secret, SecretValue
from reconciler.spec.load import SPEC_FILE, Loaded, load, load_or_raise
from reconciler.spec.mixed import with_released
from reconciler.spec.model import ComposeDeploy, Spec
from reconciler.spec.released import load_released
from reconciler.status.documents import SUMMARY_ID, Applied, Recorded
from reconciler.views import View
from tests.canaries import canary

Pair = tuple[str, str]


def oid(name: str) -> str:
    """The id that a commit or a content of this name has."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


class Failed(StepFailed):
    def __init__(self, reason: str) -> None:
        super().__init__("it failed in this case")
        self._reason = reason

    @property
    def reason(self) -> str:  # type: ignore[override]
        return self._reason


@dataclass
class GoldenWorld:
    """`commits`: name to (parent or None, files as path to content)."""

    commits: dict[str, tuple[str | None, Mapping[str, str]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, Tag] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    picks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Commits whose changes another one has taken over, by that one's name."""
    specs: dict[str, bytes] = field(default_factory=dict)
    spec_commit: str = ""
    secrets: dict[str, dict[str, str] | None] = field(default_factory=dict)
    """By source, the names and which of their values they have; None: it does not answer."""
    drift: dict[str, str] = field(default_factory=dict)
    """What is found of a resource in the next pass besides its record; `?`: it cannot be looked at."""
    recorded: Recorded = field(default_factory=Recorded)
    now: datetime = datetime.min

    # --- what a case changes ---------------------------------------------------------------------

    def commit(self, name: str, parent: str | None, files: Mapping[str, str]) -> None:
        before = self.commits[parent][1] if parent is not None else {}
        self.commits[name] = (parent, {**before, **files})

    def set_spec(self, text: str, name: str) -> None:
        self.spec_commit = oid(name)
        load_or_raise({SPEC_FILE: text.encode()})
        self.specs[self.spec_commit] = text.encode()

    def tag(self, name: str, commit: str, trailers: Mapping[str, str] | None = None) -> None:
        self.tags[name] = Tag(name, oid(commit), trailers is not None, trailers or {})

    def record(self, **fields: Any) -> None:
        number = len(self.records) + 1
        known = {"by": "Ann <ann@example.org>", "at": self.now, **fields, "number": number}
        if "commit" in known:
            known["commit"] = oid(known["commit"])
        self.records.append(msgspec.convert(known, Record))

    # --- one pass --------------------------------------------------------------------------------

    def loaded(self) -> Loaded:
        """The spec at the tip of its branch."""
        return load({SPEC_FILE: self.specs[self.spec_commit]})

    def plan(self, *, forced: tuple[str, ...] = (), force_prune: bool = False) -> Planned:
        head, control = self.loaded(), fold(self.records)
        assert head.spec is not None
        recorded = with_replayed(self.recorded, (), head.spec.moved)
        common = Common(
            now=self.now,
            spec_commit=self.spec_commit,
            control=control,
            holds=active_holds(recorded, head.spec, head.is_frozen),
        )
        known: dict[Pair, UnitFacts] = {}
        decisions: dict[Pair, Decision] = {}
        for pair in pairs_of(head.spec, recorded):
            known[pair] = self._facts(head.spec, recorded, common, *pair)
            decisions[pair] = decide(known[pair], common)
        decisions = with_numbers(decisions, known)
        spec, is_frozen = head.spec, head.is_frozen
        if revisions := spec_revisions(spec, decisions, recorded):
            tip = {SPEC_FILE: self.specs[self.spec_commit]}
            released = {
                pair: load_released(tip, {SPEC_FILE: self.specs[commit]}, commit)
                for pair, commit in revisions.items()
            }
            mixed = with_released(head, released)
            assert not mixed.problems
            spec, is_frozen = mixed.spec, mixed.is_frozen
        desired = make_desired(self._looked_up(spec, decisions, control))
        observed = {resource.id: self._observed(recorded, resource.id) for resource in desired.resources}
        ids = recorded.ids() - {SUMMARY_ID}
        plan = make_plan(
            desired,
            observed,
            recorded=ids,
            frozen=[resource for resource in ids if is_frozen(resource) or control.suspends(resource)],
            forced=forced,
            removable=removable(desired, recorded),
            force_prune=force_prune,
            releases=release_steps(decisions),
            gates=gates_of(spec, decisions, recorded, common),
        )
        return Planned(self, spec, is_frozen, recorded, decisions, known, control, desired, plan)

    def _looked_up(self, spec: Spec, decisions: Mapping[Pair, Decision], control: ControlState) -> Facts:
        return Facts(
            spec=spec,
            spec_revision=f"main@sha1:{self.spec_commit}",
            releases=releases_of(decisions),
            branches={
                (repository, branch): Revision(branch, oid(commit))
                for repository in spec.repositories
                for branch, commit in self.branches.items()
            },
            commits={oid(name): self._paths(name) for name in self.commits},
            ignore_files={},
            templates={},
            secrets={
                (source, environment): self._values(source, environment)
                for source, environments in asked_environments(spec).items()
                for environment in environments
            },
            degraded=(),
            environ={},
            hash_key=b"k" * 32,
            key_id="11111111",
            suspended=control,
        )

    def _values(self, source: str, environment: str) -> Mapping[str, SecretValue] | Setback:
        given = self.secrets[source]
        if given is None:
            return Setback("SourceUnavailable", f"{source} does not answer", unknown=True)
        return {
            key: SecretValue(key, Secret(canary(f"{key}-{which}")), environment, "env_file", False, self.now)
            for key, which in given.items()
        }

    def _observed(self, recorded: Recorded, id: str) -> Observation:
        status = recorded.get(id)
        assert status is None or isinstance(status, Applied)
        found = recorded_observation(status, interrupted=False)
        drift = self.drift.get(id, "")
        if drift == "?":
            return Unknown("AgentUnreachable", "its host does not answer")
        return replace(found, drift=drift) if isinstance(found, Present) else found

    def _facts(
        self, spec: Spec, recorded: Recorded, common: Common, unit: str, environment: str
    ) -> UnitFacts:
        heads = {name: oid(commit) for name, commit in self.branches.items()}
        view = View(cast(Mirror, None), Refs(heads, {}, {}), tuple(self.tags.values()))
        views = dict.fromkeys(spec.repositories, view)
        facts = unit_facts(spec, views, recorded, common, unit, environment)
        if facts.recorded is None:
            return facts
        current = facts.recorded.release.commit
        if isinstance(facts.head, str) and facts.head != current:
            pair = unit, environment
            services = [each for each in spec.services if (each.unit, each.environment) == pair]
            projects = [each for each in spec.projects.values() if (each.unit, each.environment) == pair]
            before, after = self._paths(self._name(current)), self._paths(self._name(facts.head))
            facts = replace(facts, changed=what_changed(before, after, services, projects))
        ancestors, contained = {}, {}
        for commit in commits_that_may_come(facts, common) - {current}:
            ancestors[current, commit] = self._contains(current, commit)
            ancestors[commit, current] = self._contains(commit, current)
            contained[current, commit] = self._has_patches(current, commit)
        return replace(facts, lineage=Lineage(ancestors, contained))

    def _name(self, commit: str) -> str:
        return next(name for name in self.commits if oid(name) == commit)

    def _paths(self, name: str) -> CommitPaths:
        files = self.commits[name][1]
        return CommitPaths([TreeEntry(path, 0o100644, "file", oid(text), 1) for path, text in files.items()])

    def _history(self, commit: str) -> list[str]:
        """The commit and all before it, by name."""
        found: list[str] = []
        name: str | None = self._name(commit)
        while name is not None:
            found.append(name)
            name = self.commits[name][0]
        return found

    def _contains(self, commit: str, other: str) -> bool:
        return self._name(commit) in self._history(other)

    def _has_patches(self, hotfix: str, commit: str) -> bool:
        """Whether every commit that the hotfix has alone was taken over on the way to the other."""
        there = self._history(commit)
        taken = {pick for name in there for pick in self.picks.get(name, ())}
        return all(name in there or name in taken for name in self._history(hotfix))


@dataclass
class Planned:
    """A plan in that world, and what it was made from."""

    world: GoldenWorld
    spec: Spec
    is_frozen: Callable[[str], bool]
    recorded: Recorded
    decisions: Mapping[Pair, Decision]
    known: Mapping[Pair, UnitFacts]
    control: ControlState
    desired: Desired
    plan: Plan

    def lines(self) -> list[str]:
        """The plan as the cases write it: steps in their order, then findings."""
        names = {oid(name)[:12]: name for name in self.world.commits}
        names |= {oid(name): name for name in self.world.commits}

        def told(text: str) -> str:
            for commit, name in names.items():
                text = text.replace(commit, name)
            return text

        steps = [f"{step.action} {step.resource}: {told(step.reason)}" for step in self.plan.steps]
        found = sorted(
            f"{finding.reason} {finding.resource}: {told(finding.message)}" for finding in self.plan.findings
        )
        return [*steps, *found]

    async def apply(self, fails: Mapping[str, str]) -> list[str]:
        """Let the steps happen, and record what came of them; gives what was returned from, in words."""
        results: list[StepResult] = []
        resources = {resource.id: resource for resource in self.desired.resources}
        world = self.world

        async def act(step: Step) -> Details:
            if step.resource in fails:
                raise Failed(fails[step.resource])
            if step.action is not Action.RELEASE:
                return self._inventory(step.resource)
            pair = next(pair for pair in self.decisions if step.resource == f"releases/{pair[1]}/{pair[0]}")
            release = self.decisions[pair].next
            assert release is not None
            if release.cut:
                assert release.tag not in world.tags, "a number is used once"
                trailers = trailers_of(self.known[pair], release, spec_branch="main")
                world.tags[release.tag] = Tag(release.tag, release.commit, True, trailers)
            return release_details(pair, release, release.tag)

        class Recorder:
            async def begin(self, step: Step) -> int:
                return 0

            async def end(self, record: int, step: Step, outcome: Outcome) -> None:
                if outcome.state == "succeeded":
                    found = step_result(step, resources.get(step.resource), outcome.details, at=world.now)
                    results.append(found)

        outcomes = await apply_plan(self.plan, dict.fromkeys(Action, act), Recorder(), slot=_slot)
        known = with_results(self.recorded, results)
        done = {result.resource for result in results}
        world.drift = {id: found for id, found in world.drift.items() if id not in done}
        happened = PassFacts(
            spec=self.spec,
            spec_commit=world.spec_commit,
            head_commit=world.spec_commit,
            problems=(),
            is_frozen=self.is_frozen,
            desired=self.desired,
            plan=self.plan,
            outcomes=outcomes,
            decisions=self.decisions,
            sources={},
            control=self.control,
        )
        world.recorded = with_pass(known, happened, world.now)
        return returned_to(known, world.recorded)

    def _inventory(self, resource: str) -> Details:
        """What the driver of a service that has just been deployed gives to be kept."""
        service = self.desired.services().get(resource)
        if service is None or not isinstance(service.service.deploy, ComposeDeploy):
            return {}
        return {"inventory": [f"project={compose_project(service.service)}"]}


@asynccontextmanager
async def _slot(_step: Step) -> AsyncIterator[None]:
    yield
