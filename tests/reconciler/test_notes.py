"""What is said of a spec that is valid and probably not what was meant."""

import pytest

from reconciler.desired import make_desired
from reconciler.notes import notes_of_pass, notes_of_spec
from reconciler.status.documents import NodeStatus, Recorded
from tests.reconciler.facts import facts

PROJECT = (
    "projects: {site: {repository: app, branch: main, path: site,"
    " sync: {nodes: [{%s, target_path: /srv/site}]}}}\n"
)
SERVICE = (
    "services: {web: {repository: app, paths: %s, deploy: {kind: invoke, task: up},"
    " environments: [staging]}}\n"
)
PAIRED = Recorded(nodes={"nodes/web-1": NodeStatus(id="nodes/web-1", certificate="a certificate")})


def notes(text: str, recorded: Recorded = PAIRED) -> list[str]:
    known = facts(text)
    return notes_of_pass(known.spec, make_desired(known), recorded)


@pytest.mark.parametrize(
    "text",
    ["", PROJECT % "node_id: web-1", SERVICE % '["web/**", "*.html"]', SERVICE % '["web/**", "!web/x"]'],
)
def test_nothing_is_said_of_what_is_as_usual(text: str) -> None:
    assert notes(text) == []


def test_labels_that_no_node_has() -> None:
    [note] = notes(PROJECT % "labels: {group: web}")
    assert note.startswith("projects.site is synced nowhere")
    assert notes_of_spec(facts(PROJECT % "labels: {group: web}").spec) == [note]
    suspended = (PROJECT % "labels: {group: web}").replace("path: site,", "path: site, suspend: true,")
    assert notes(suspended) == []


def test_a_pattern_that_matches_nothing() -> None:
    [note] = notes(SERVICE % '["web/**", "wbe/**"]')
    assert note.startswith("services/staging/web: `wbe/**` in its paths matches no file of v1.0.0@sha1:")


def test_a_node_that_no_pass_waits_for() -> None:
    [note] = notes("", Recorded())
    assert note.startswith("web-1 has never been paired, and no pass waits for it")
    assert notes(PROJECT % "node_id: web-1", Recorded()) == []
