"""What becomes of agents' reports of drift: gathered, bounded, and seldom from one that comes often."""

from itertools import pairwise

from agent.backoff import Backoff
from agent.wire.messages import DriftReport
from reconciler.drift import FIRST, LONGEST, MAX_TARGETS, Drift, Drifts, resources_of
from reconciler.spec.load import load_or_raise
from tests.reconciler.spec.documents import TOKENS

INF = float("inf")


def drifts() -> Drifts:
    return Drifts(lambda: Backoff(first=FIRST, longest=LONGEST, draw=lambda: 1.0))


def report(project: str = "site", path: str = "/srv/site", count: int = 1) -> DriftReport:
    return DriftReport(project=project, target_path=path, digest=bytes(32) if count else b"", count=count)


def test_the_first_is_asked_for_at_once_and_those_that_follow_together() -> None:
    all_drifts = drifts()
    assert all_drifts.due_at() == INF
    assert all_drifts.take("web-1", report())
    assert all_drifts.due_at() <= 0
    assert list(all_drifts.due(0.0)) == [Drift("web-1", "site", "/srv/site", 1)]
    assert all_drifts.due_at() == INF and list(all_drifts.due(0.0)) == []
    for count in (2, 3):
        all_drifts.take("web-1", report(count=count))
    assert not all_drifts.take("web-1", report(project="other"))
    assert all_drifts.due_at() == FIRST and list(all_drifts.due(FIRST - 0.1)) == []
    assert list(all_drifts.due(FIRST)) == [
        Drift("web-1", "site", "/srv/site", 3),
        Drift("web-1", "other", "/srv/site", 1),
    ]


def test_one_that_never_stops_waits_longer_each_time_and_keeps_nobody_else() -> None:
    all_drifts, now = drifts(), 0.0
    served: list[float] = []
    while now < 6 * 3600:
        all_drifts.take("web-1", report(count=1 + len(served)))
        served += [now for _ in all_drifts.due(now)]
        now += 1.0
    gaps = [after - before for before, after in pairwise(served)]
    assert gaps == sorted(gaps) and gaps[0] == FIRST and gaps[-1] == LONGEST
    assert len(served) < 50
    all_drifts.take("web-2", report())
    assert [drift.node for drift in all_drifts.due(now)] == ["web-2"]
    # One that was calm for long is served at once again, and soon after that as well.
    all_drifts.take("web-1", report(count=0))
    now += 5 * LONGEST
    all_drifts.take("web-1", report())
    assert [drift.node for drift in all_drifts.due(now)] == ["web-1"]
    all_drifts.take("web-1", report())
    assert all_drifts.due_at() == now + FIRST


def test_what_is_over_before_it_was_served_is_forgotten() -> None:
    all_drifts = drifts()
    all_drifts.take("web-1", report())
    assert not all_drifts.take("web-1", report(count=0))
    assert all_drifts.due_at() == INF


def test_what_a_hostile_agent_says_has_bounds() -> None:
    all_drifts = drifts()
    bad = (
        report(count=-1),
        report(count=2**40),
        report(path="/" * 5000),
        DriftReport(project="site", target_path="/srv", digest=b"short", count=1),
    )
    assert not any(all_drifts.take("web-1", each) for each in bad)
    many = (report(path=f"/srv/{number}") for number in range(10_000))
    assert sum(all_drifts.take("web-1", each) for each in many) == 1
    assert len(list(all_drifts.due(0.0))) == MAX_TARGETS
    all_drifts.keep(frozenset({"web-2"}))
    assert all_drifts.due_at() == INF


SPEC = f"""\
version: 1
repositories: {{app: {{url: "https://example.org/app.git", branch: main}}}}
nodes:
  web-1: {{token_key: "{TOKENS[0]}"}}
  web-2: {{token_key: "{TOKENS[1]}"}}
projects:
  site:
    repository: app
    branch: main
    sync:
      nodes:
        - {{node_id: web-1, target_path: /srv/site}}
        - {{node_id: web-2, target_path: /srv/other}}
"""


def test_a_node_speaks_for_its_own_targets_only() -> None:
    spec = load_or_raise({"trueup.yaml": SPEC.encode()})
    told = [
        Drift("web-1", "site", "/srv/site", 1),
        Drift("web-1", "site", "/srv/other", 1),
        Drift("web-1", "none", "/srv/site", 1),
        Drift("web-9", "site", "/srv/site", 1),
        Drift("web-2", "site/../x", "/srv/other", 1),
    ]
    found = resources_of(told, spec)
    assert list(found.values()) == [told[0]]
    assert [id.split("/")[-2:] for id in found] == [["web-1", "srv+site"]]
