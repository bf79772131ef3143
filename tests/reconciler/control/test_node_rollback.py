"""Decisions that switch a node back to a release that it keeps: what is recorded, and what is refused how."""

from typing import Any

import pytest

from agent.node_token import NodeToken
from reconciler.control.node_rollback import node_rollback, node_unroll
from reconciler.control.records import Record
from reconciler.control.situation import DecisionRefused, Situation
from reconciler.control.state import fold
from reconciler.spec.load import load
from reconciler.status.documents import KeptRelease, Recorded, SyncStatus
from tests.reconciler.control.records import ANNA, NOW, record

SPEC = """
version: 1
repositories:
  app: {url: https://git.example/app.git}
nodes:
  web-1: {token_key: "KEY"}
  web-2: {token_key: "KEY2"}
projects:
  site:
    repository: app
    branch: main
    sync:
      strategy: release
      nodes: [{node_id: web-1, target_path: /srv/site}]
  docs:
    repository: app
    branch: main
    sync: {nodes: [{node_id: web-1, target_path: /srv/docs}]}
"""
SITE = "projects/branch/site/web-1/srv+site"


def with_keys(spec: str) -> str:
    first, second = (NodeToken.generate().public_text for _ in range(2))
    return spec.replace("KEY2", second).replace("KEY", first)


def kept(number: int, ref: str = "main") -> KeptRelease:
    commit = f"{number}" * 40
    return KeptRelease(
        name=f"{number}-{'ab' * 6}", tree=f"{number}" * 64, revision=f"{ref}@sha1:{commit}", at=NOW
    )


KEPT = (kept(1, "v1.0.0"), kept(2), kept(3))


def situation(*records: Record, releases: tuple[KeptRelease, ...] = KEPT) -> Situation:
    spec = load({"trueup.yaml": with_keys(SPEC).encode()}).spec
    assert spec is not None
    current = releases[-1].name if releases else ""
    status = SyncStatus(
        id=SITE, node="web-1", target_path="/srv/site", current=current, releases=releases, strategy="release"
    )
    return Situation(spec, "c" * 40, Recorded(syncs={SITE: status}), fold(records), ANNA, NOW)


def back(at: Situation, to: str | None = None, **changes: Any) -> str:
    """The tree that is recorded, one digit of it."""
    asked = node_rollback(at, changes.get("node", "web-1"), changes.get("project", "site"), to, reason="slow")
    [made] = asked.records
    assert (made.kind, made.resource, made.by, made.reason) == ("node-rollback", SITE, ANNA, "slow")
    assert made.revision.endswith(made.tree[0] * 40)
    return made.tree[0]


@pytest.mark.parametrize(
    ("to", "tree"),
    [
        (None, "2"),
        ("v1.0.0", "1"),
        ("1", "1"),
        ("2-abababababab", "2"),
        (f"main@sha1:{'2' * 40}", "2"),
        ("main@222222222222", "2"),
        ("2222222", "2"),
    ],
)
def test_a_release_has_many_names(to: str | None, tree: str) -> None:
    assert back(situation(), to) == tree


STANDING = record("node-rollback", 1, resource=SITE, tree="2" * 64, reason="a bug")


@pytest.mark.parametrize(
    ("given", "records", "message"),
    [
        ({"to": "v9"}, (), "there is no release of site on web-1 'v9'"),
        ({"to": "main"}, (), "may be 2-abababababab or 3-abababababab"),
        ({"to": "222222"}, (), "there is no release"),
        ({"to": "3"}, (), "runs 3 already"),
        ({"node": "web-2"}, (), "site is not synced to web-2"),
        ({"node": "web-9"}, (), "there is no node 'web-9'"),
        ({"project": "sites"}, (), "there is no project 'sites'"),
        ({"project": "docs"}, (), "web-1 keeps no releases of docs"),
        (
            {},
            (STANDING,),
            "is rolled back already, by Anna <anna@example.org> on 2026-03-01 12:00",
        ),
        ({"to": "2"}, (STANDING,), "is rolled back to 2 already"),
    ],
    ids=range(10),
)
def test_what_cannot_be_is_refused(given: dict[str, Any], records: tuple[Record, ...], message: str) -> None:
    with pytest.raises(DecisionRefused) as refused:
        back(situation(*records), **given)
    assert message in str(refused.value)


def test_nothing_is_kept_yet() -> None:
    with pytest.raises(DecisionRefused, match="keeps no earlier release"):
        back(situation(releases=KEPT[:1]))


def test_from_one_to_another_and_forth_again() -> None:
    at = situation(STANDING)
    assert back(at, "3") == "3"  # pinned there, whatever comes
    assert back(at, "1") == "1"
    [lifted] = node_unroll(at, "web-1", "site", reason="mended").records
    assert (lifted.kind, lifted.resource, lifted.tree) == ("node-unroll", SITE, "")
    ended = situation(STANDING, record("node-unroll", 2, resource=SITE))
    with pytest.raises(DecisionRefused, match="site is not rolled back on web-1"):
        node_unroll(ended, "web-1", "site")
    with pytest.raises(DecisionRefused, match="there is no node"):
        node_unroll(ended, "web-9", "site")


def test_a_tag_may_have_an_at_sign() -> None:
    at = situation(releases=(kept(1, "app@1.0"), kept(2, "app@2.0")))
    assert back(at, "app@1.0") == back(at, "app@1.0@" + "1" * 12) == back(at, "1" * 7) == "1"
