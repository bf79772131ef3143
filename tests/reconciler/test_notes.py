"""What is said of a spec that is valid and probably not what was meant."""

from dataclasses import replace

import pytest

from reconciler.desired import Facts, make_desired
from reconciler.notes import notes_of_pass, notes_of_spec
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.status.documents import NodeStatus, Recorded
from tests.reconciler.facts import HEAD, facts, secret

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


OVERLAP = """\
secret_sources: {local: {kind: env_file, file: .env}, other: {kind: env_file, file: other.env}}
services:
  web:
    repository: app
    secrets: [{source: local, rename: {DB_URL: URL}}, %s]
    env: {LEVEL: debug}
    environ: [LEVEL]
    deploy: {kind: invoke, task: up}
    environments: [staging]
"""


def overlapping(other: str) -> Facts:
    head = HEAD.replace("secret_sources: {local: {kind: env_file, file: .env}}\n", "")
    text = (head + OVERLAP % other).encode()
    found = {"DB_URL": secret("DB_URL", "1"), "LEVEL": secret("LEVEL", "2")}
    return replace(
        facts(""),
        spec=load_or_raise({SPEC_FILE: text}),
        secrets={("local", "staging"): found, ("other", "staging"): {"URL": secret("URL", "3")}},
        environ={},
    )


def test_collisions_are_told_by_name_with_who_won() -> None:
    known = overlapping("other")
    assert notes_of_pass(known.spec, make_desired(known), PAIRED) == [
        "services/staging/web: some variables are given more than once: "
        "env wins over secrets/local for LEVEL; secrets/other wins over secrets/local for URL"
    ]


def test_a_spec_alone_tells_the_collisions_of_names_that_it_writes_out() -> None:
    assert notes_of_spec(overlapping("{source: other, keys: [URL]}").spec) == [
        "services/staging/web: some variables are given more than once: "
        "env wins over environ for LEVEL; secrets/other wins over secrets/local for URL"
    ]


def test_a_rendered_file_tells_its_collisions_once_for_all_its_targets() -> None:
    text = (
        "projects: {site: {repository: app, branch: main, path: site, sync: {"
        " files: [{path: .env, format: dotenv, secrets: [local], env: {DB_URL: x}}],"
        " nodes: [{node_id: web-1, target_path: /srv/a}, {node_id: web-1, target_path: /srv/b}]}}}\n"
    )
    assert notes(text) == [
        "projects.site, file .env: some variables are given more than once: "
        "env wins over secrets/local for DB_URL"
    ]
