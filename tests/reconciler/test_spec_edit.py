"""Changes of a spec say what was asked for, in the file where it belongs, and keep everything else."""

import pytest
import yaml

from agent.node_token import NodeToken
from reconciler.errors import SpecInvalid
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec_edit import (
    Edit,
    EditRefused,
    NodeFields,
    add_node,
    change_node,
    change_sync,
    diff_of,
    edited,
    node_line,
    remove_node,
    rotate_token,
)

KEYS = [NodeToken.generate().public_text for _ in range(4)]
ROOT = """\
# mine
version: 1
include: [projects/*.yaml]
repositories:
  app: {url: "https://git.example/app.git"}
nodes:
  web-1: {token_key: "%s"}  # the first
  web-2:
    labels: {group: web}  # in the cellar
    token_key: "%s"
"""
SITE = """\
projects:
  site:
    repository: app
    branch: main
    sync:
      on_drift: heal  # itself
      nodes:
        - {node_id: web-1, target_path: /srv/site}
"""
FILES = {SPEC_FILE: (ROOT % (KEYS[0], KEYS[1])).encode(), "projects/site.yaml": SITE.encode()}


def after(edit: Edit, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {**files, **edited(files, edit)}


def test_a_node_from_its_beginning_to_its_end() -> None:
    fields = NodeFields(labels={"group": "web", "rack": "2"}, display="Web 3")
    files = after(add_node("web-3", KEYS[2], fields))
    node = load_or_raise(files).nodes["web-3"]
    assert (node.name, node.labels, node.token_key) == ("Web 3", {"group": "web", "rack": "2"}, KEYS[2])
    files = after(change_node("web-3", NodeFields(labels={"rack": "3"}, pin="a" * 64)), files)
    node = load_or_raise(files).nodes["web-3"]
    assert (node.name, node.labels, node.fingerprint) == ("Web 3", {"rack": "3"}, "a" * 64)
    files = after(change_node("web-3", NodeFields(labels={}, pin="", display="")), files)
    assert node_of(files, "web-3") == {"token_key": KEYS[2]}
    files = after(rotate_token("web-3", KEYS[3]), files)
    assert node_of(files, "web-3") == {"token_key": KEYS[3]}
    assert after(remove_node("web-3"), files) == FILES


def node_of(files: dict[str, bytes], node: str) -> object:
    return yaml.safe_load(files[SPEC_FILE])["nodes"][node]


def test_what_a_change_says_and_what_it_leaves() -> None:
    edit = change_node("web-2", NodeFields(labels={"group": "db"}))
    assert edit.message == "Change node web-2"
    diff = diff_of(FILES, edited(FILES, edit))
    changed = [line for line in diff.splitlines() if line[:1] in "+-"]
    assert changed == [
        "--- a/trueup.yaml",
        "+++ b/trueup.yaml",
        "-    labels: {group: web}  # in the cellar",
        "+    labels: {group: db}  # in the cellar",
    ]
    assert edited(FILES, change_node("web-2", NodeFields(labels={"group": "web"}))) == {}


def test_how_a_project_is_synced() -> None:
    edit = change_sync("site", {"on_drift": None, "bandwidth": "50MiB/s", "retry": {"attempts": 2}})
    changed = edited(FILES, edit)
    assert list(changed) == ["projects/site.yaml"]
    assert changed["projects/site.yaml"].decode() == SITE.replace(
        "      on_drift: heal  # itself\n      nodes:\n        - {node_id: web-1, target_path: /srv/site}\n",
        "      nodes:\n        - {node_id: web-1, target_path: /srv/site}\n"
        "      bandwidth: 50MiB/s\n      retry: {attempts: 2}\n",
    )
    rules = load_or_raise({**FILES, **changed}).projects["site"].sync
    assert (rules.bandwidth, rules.retry.attempts) == (50 << 20, 2)


@pytest.mark.parametrize(
    ("edit", "status", "said"),
    [
        (add_node("web-1", KEYS[3], NodeFields()), 409, "has a node web-1 already"),
        (remove_node("web-9"), 404, "no node 'web-9'; did you mean web-"),
        (change_sync("sit", {}), 404, "no project 'sit'; did you mean site"),
    ],
)
def test_what_cannot_be(edit: Edit, status: int, said: str) -> None:
    with pytest.raises(EditRefused, match=said) as refused:
        edited(FILES, edit)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (remove_node("web-1"), "web-1"),
        (change_sync("site", {"on_drif": "heal"}), "did you mean"),
        (change_sync("site", {"strategy": "copy"}), "strategy"),
        (change_node("web-1", NodeFields(pin="short")), "fingerprint"),
        (add_node("web-3", KEYS[0], NodeFields()), "is that of node"),
    ],
)
def test_what_would_make_a_problem_is_not_done(edit: Edit, said: str) -> None:
    with pytest.raises(SpecInvalid, match=said):
        edited(FILES, edit)


def test_a_problem_that_is_there_already_is_in_nobodys_way() -> None:
    broken = {**FILES, "projects/site.yaml": SITE.replace("heal", "heel").encode()}
    assert edited(broken, rotate_token("web-1", KEYS[3]))
    with pytest.raises(SpecInvalid):
        edited({SPEC_FILE: b"version: 2\n"}, add_node("web-1", KEYS[3], NodeFields()))


def test_nodes_that_are_named_already_can_be_added_one_by_one() -> None:
    """Each leaves the errors for the others, which then name other nodes to choose."""
    nodes = ", ".join(f"{{node_id: m{number}, target_path: /srv/m}}" for number in (1, 2, 3))
    project = f"{{repository: app, branch: main, sync: {{nodes: [{nodes}]}}}}"
    files = {
        SPEC_FILE: (
            f'version: 1\nrepositories:\n  app: {{url: "https://git.example/app.git"}}\n'
            f"projects:\n  site: {project}\nnodes: {{}}\n"
        ).encode()
    }
    for number, key in zip((1, 2, 3), KEYS, strict=False):
        files |= edited(files, add_node(f"m{number}", key, NodeFields()))
    assert list(load_or_raise(files).nodes) == ["m1", "m2", "m3"]


def test_a_problem_may_move_and_not_multiply() -> None:
    site = SITE + "        - {node_id: gone, target_path: /srv/gone}\n"
    broken = {**FILES, "projects/site.yaml": site.encode()}
    gone = {"node_id": "gone", "target_path": "/srv/gone"}
    assert edited(broken, change_sync("site", {"nodes": [gone]}))
    with pytest.raises(SpecInvalid, match="no node `gone`"):
        edited(broken, change_sync("site", {"nodes": [gone, {**gone, "target_path": "/srv/more"}]}))


def test_the_line_for_a_pull_request() -> None:
    line = node_line("web-3", "ed25519:AAAA", NodeFields(labels={"group": "web"}))
    assert line == 'web-3: {labels: {group: web}, token_key: "ed25519:AAAA"}'
