"""The whole page out of one look at everything. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from reconciler.control.situation import told
from reconciler.spec.model import Spec
from reconciler.status.documents import Summary
from reconciler.web.page.activity import events, sources, tasks
from reconciler.web.page.environments import environments, history
from reconciler.web.page.facts import Facts
from reconciler.web.page.model import Badge, NextStep, Overview, Page, State, Todo, Tone, short, stamp
from reconciler.web.page.resources import nodes, projects, services, targets
from reconciler.web.page.waiting import todos

MAX_PROBLEMS = 10
"""Errors of the spec that are listed; `trueup validate` prints all."""


def page_of(facts: Facts) -> Page:
    all_targets = targets(facts)
    page = Page(
        overview=Overview(headline=Badge("", Tone.IDLE)),
        environments=environments(facts),
        services=services(facts),
        nodes=nodes(facts, all_targets),
        projects=projects(facts, all_targets),
        tasks=tasks(facts.tasks, facts.progress),
        history=history(facts.recorded),
        events=events(facts.events),
        sources=sources(facts),
    )
    states = [
        *(each.state for each in page.environments),
        *(each.state for group in page.services for each in group.services),
        *(each.state for each in page.nodes),
        *(each.state for each in all_targets),
    ]
    more = sum(group.more for group in page.services)
    waits = todos(page.environments, page.services, page.nodes, page.projects)
    return replace(page, overview=_overview(facts, states, waits, more=more))


def _overview(facts: Facts, states: Iterable[State], waits: tuple[Todo, ...], *, more: int) -> Overview:
    tones = [state.badge.tone for state in states]
    summary = facts.recorded.summary or Summary(id="summary")
    failing, busy = tones.count(Tone.BAD), tones.count(Tone.BUSY)
    waiting = tones.count(Tone.WAIT)
    error = facts.error or facts.trouble
    return Overview(
        headline=_headline(facts, error, failing, busy, waiting),
        ready=tones.count(Tone.GOOD) + more,
        waiting=waiting,
        failing=failing,
        last_pass=stamp(facts.ended_at),
        error=error,
        spec=short(summary.last_applied_revision),
        branch=facts.setup.branch,
        frozen=f"everything is frozen, {told(facts.control.frozen)}" if facts.control.frozen else "",
        problems=summary.problems[:MAX_PROBLEMS],
        steps=tuple(_next_steps(facts)),
        todos=waits,
    )


def _headline(facts: Facts, error: str, failing: int, busy: int, waiting: int) -> Badge:
    if error:
        return Badge("No pass can be made", Tone.BAD)
    if not facts.passed and facts.spec is None:
        return Badge("The first pass is under way", Tone.BUSY)
    if failing:
        return Badge(f"{failing} not in order", Tone.BAD)
    if facts.recorded.summary is not None and facts.recorded.summary.problems:
        return Badge("The spec has errors", Tone.BAD)
    if facts.control.frozen is not None:
        return Badge("Frozen", Tone.WAIT)
    if busy:
        return Badge(f"{busy} being worked on", Tone.BUSY)
    if waiting:
        return Badge(f"In order; {waiting} waiting", Tone.WAIT)
    if facts.spec is None or not (facts.spec.environments or facts.spec.projects):
        return Badge("Nothing to look after yet", Tone.IDLE)
    return Badge("Everything in order", Tone.GOOD)


def _next_steps(facts: Facts) -> Iterable[NextStep]:
    """What a new user does next; nothing once everything is set up."""
    spec = facts.spec
    if spec is None and facts.error:
        yield NextStep(
            "Give it a spec",
            f"No spec could be read from the branch {facts.setup.branch}. Write one, check it, commit it and"
            " push it: the next pass takes it up by itself.",
            "trueup init && trueup validate",
        )
    elif spec is None:
        yield NextStep(
            "Wait for the first pass",
            "It reads the spec and looks at everything; this page shows what it finds without a reload.",
        )
    if spec is not None:
        yield from _steps_of_spec(spec)
        if spec.nodes and not any(status.certificate for status in facts.recorded.nodes.values()):
            yield NextStep(
                "Let a node join",
                "The spec names nodes, and none of them has paired. Run the join command that was printed"
                " when the node was added, on its host; a new token for it makes a new one.",
                "trueup-agent join --primary HOST:9001 --node NAME --token … --pin … --root /srv",
            )
    if not facts.setup.webhook:
        yield NextStep(
            "Let GitHub tell of a push",
            f"Without a webhook a push is noticed with the next pass, every {_span(facts.setup.interval)}."
            " Set WEBHOOK_SECRET, start trueup anew, and add a webhook with that secret to the repository:"
            " content type application/json, address",
            "https://THIS-HOST/webhook",
        )


def _steps_of_spec(spec: Spec) -> Iterable[NextStep]:
    if not spec.environments and not spec.projects:
        yield NextStep(
            "Describe an environment and a service",
            "The spec is valid and asks for nothing yet. The starter has commented lines for a repository,"
            " an environment, a service and a project, whose files go to hosts: take the marks away and"
            " commit.",
            "trueup init --help",
        )
    elif not spec.services and not spec.projects:
        yield NextStep(
            "Describe a service or a project",
            "There is an environment and nothing that runs in it. Add a service to be deployed, or a project"
            " whose files go to hosts.",
            "trueup validate",
        )
    if not spec.nodes:
        yield NextStep(
            "Add a node",
            "Hosts that files or commands go to are nodes. This makes one, commits it to the spec and prints"
            " what to run on the host. Without such hosts nothing is missing.",
            "trueup node add NAME",
        )


def _span(seconds: float) -> str:
    whole = round(seconds)
    for size, name in ((3600, "hour"), (60, "minute")):
        if whole >= size and whole % size == 0:
            count = whole // size
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{whole} seconds"
