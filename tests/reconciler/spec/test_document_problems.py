# ruff: noqa: E501 - tables of documents and messages
"""What is wrong with a document as a whole, and how problems are told: all at once, short, no secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SpecInvalid
from reconciler.spec.load import SPEC_FILE, load, load_or_raise
from tests.canaries import canary
from tests.reconciler.spec.documents import BASE, OK, added, loaded, problems

DOCUMENT = [
    ("", "trueup.yaml:1:1: the file is empty; begin with `version: 1`"),
    ("# nothing\n", "trueup.yaml:1:1: the file is empty"),
    ("- a\n", "trueup.yaml:1:1: is a list, and must be a map"),
    ("services: {}\n", "trueup.yaml:1:1: `version` is missing; it is needed here"),
    ("version: 2\n", "trueup.yaml:1:10: version: is `2`, and must be 1"),
    ("version: '1'\n", "trueup.yaml:1:10: version: is a text, and must be a whole number: 1"),
    ("version: true\n", "trueup.yaml:1:10: version: is true or false, and must be a whole number: 1"),
    (
        "version: 1\nservcies: {}\n",
        "trueup.yaml:2:1: servcies: unknown key `servcies`; did you mean `services`?",
    ),
    ("version: 1\nservices: []\n", "trueup.yaml:2:1: services: is a list, and must be a map"),
    ("version: 1\nversion: 1\n", "trueup.yaml:2:1: version: stands twice, first in line 1; remove one"),
    (
        "version: 1\nlimits: {max_parallel_steps: 0}\n",
        "limits.max_parallel_steps: 0 is too small; at least 1",
    ),
    ("version: 1\nlimits: {max_parallel_steps: 9999}\n", "9999 is too large; at most 1024"),
    ("version: 1\nlimits: {max_parallel_steps: 1.5}\n", "is a number, and must be a whole number"),
    (
        "version: 1\nlimits: {max_prune: 150%}\n",
        "limits.max_prune: `150%` will not do; a share is written 0% to",
    ),
    (
        "version: 1\nlimits: {max_prune: 0.5}\n",
        "is a number, and must be a text; a share is written 0% to 100%",
    ),
    (
        "version: 1\nshared_paths: {app: [x]}\n",
        "shared_paths.app: there is no repository `app`; add it under",
    ),
    ("version: 1\ninclude: [../x.yaml]\n", "trueup.yaml:2:11: include[0]: `../x.yaml`: an include is a glob"),
    ("version: 1\ninclude: [/etc/x.yaml]\n", "include[0]: `/etc/x.yaml`: an include is a glob"),
    ("version: 1\ninclude: [no/*.yaml]\n", "include[0]: `no/*.yaml`: no file matches; correct the path"),
    ("version: 1\ninclude: x.yaml\n", "trueup.yaml:2:10: include: is a text, and must be a list"),
    (
        "version: 1\nmoved: [{from: projects/a, to: services/b}]\n",
        "moved[0]: `projects/a` cannot become `services/b`",
    ),
    ("version: 1\nmoved: [{from: projects/a, to: projects/a}]\n", "moved[0]: moves nothing"),
    (
        "version: 1\nmoved: [{from: projects/a, to: projects/b}]\n",
        "moved[0].to: there is no project `b`; add it",
    ),
    (
        "version: 1\nmoved: [{from: project/a, to: projects/b}]\n",
        "moved[0].from: `project/a` will not do; write SECTION",
    ),
    (
        "version: 1\nnotifications: [{url: {env: U}, on: [fail]}]\n",
        "notifications[0].on[0]: `fail` is not one of",
    ),
]


@pytest.mark.parametrize(("text", "expected"), DOCUMENT)
def test_a_problem_of_the_document_makes_it_unusable(text: str, expected: str) -> None:
    result = loaded(text)
    assert result.spec is None
    [problem] = result.problems
    assert expected in str(problem)
    assert problem.resource is None
    with pytest.raises(SpecInvalid) as raised:
        load_or_raise({SPEC_FILE: text.encode()})
    assert raised.value.exit_code == 3
    assert str(raised.value) == str(problem)


def test_a_missing_root_file_says_what_to_do() -> None:
    [problem] = load({}).problems
    assert str(problem) == (
        "trueup.yaml:1:1: the repository has no trueup.yaml; run `trueup init` to write a first one"
    )


def test_all_problems_of_all_files_come_together_sorted_and_once() -> None:
    text = BASE.replace("version: 1", "version: 1\ninclude: [b.yaml, a.yaml]")
    b = "services:\n  web: {repository: ap, deploy: {kind: invoke, tsk: x}, environments: {staging: {}, production: {}}}\n"
    a = "projects:\n  site: {repository: ap, branch: main, sync: {nodes: [{node_id: web-9, target_path: srv}]}}\n"
    assert problems(text + "limits: {max_parallel_tasks: many}\n", b=b, a=a) == [
        "a.yaml:2:22: projects.site.repository: there is no repository `ap`; did you mean `app`?",
        "a.yaml:2:65: projects.site.sync.nodes[0].node_id: there is no node `web-9`; did you mean `web-2`?",
        "a.yaml:2:85: projects.site.sync.nodes[0].target_path: `srv` will not do; a target path is absolute "
        "and in its shortest form: /srv/app, no `//`, `.`, `..` or trailing `/`, not `/` itself",
        "b.yaml:2:21: services.web.repository: there is no repository `ap`; did you mean `app`?",
        "b.yaml:2:48: services.web.deploy.tsk: unknown key `tsk`; did you mean `task`?",
        "trueup.yaml:12:30: limits.max_parallel_tasks: is a text, and must be a whole number",
    ]


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        ("SECRET", "a secret value may not stand in a spec; say where it is found"),
        ("[SECRET]", "a secret value may not stand in a spec; say where it is found"),
        ("{value: SECRET}", "a secret value may not stand in a spec; say where it is found"),
        ("{SECRET: x}", "a secret value may not stand in a spec; say where it is found"),
        ("{env: A, file: SECRET}", "a secret value may not stand in a spec; say where it is found"),
        ("{env: SECRET}", "`env` takes the name of a variable"),
        ("{secret: SECRET}", "`secret` takes SOURCE/KEY"),
        ("{file: [SECRET]}", "`file` takes a path on the primary"),
        ("{}", "a secret value may not stand in a spec; say where it is found"),
        ("12345678", "a secret value may not stand in a spec; say where it is found"),
    ],
)
def test_a_secret_that_stands_in_the_spec_is_never_repeated(credential: str, expected: str) -> None:
    secret = canary("pasted-into-the-spec")
    text = BASE.replace("{env: GH_PAT}", credential.replace("SECRET", secret))
    [found] = problems(text)
    assert "secret_sources.export.token: " + expected in found
    assert secret not in found
    assert "12345678" not in found


@pytest.mark.parametrize(
    "place",
    [
        'url: "https://user:SECRET@host/app.git"',
        'url: "https://SECRET@host/app.git"',
        'url: "ssh://git:SECRET@host/app.git"',
    ],
)
def test_a_password_in_an_address_is_never_repeated(place: str) -> None:
    secret = canary("in-an-address")
    [found] = problems(BASE.replace("url: git@host:org/app.git", place.replace("SECRET", secret)))
    assert "holds no user or password" in found
    assert secret not in found


def test_values_are_echoed_short_and_without_control_characters() -> None:
    name = "x" * 500
    [found] = added(f"services:\n  web: {{{OK}, precedence: [{name}]}}\n")
    assert len(found) < 200
    [found] = added(f'services:\n  web: {{{OK}, precedence: ["\\e[31m\\u202e\\n"]}}\n')
    assert "`\\x1b[31m\\u202e\\n`" in found
    assert found.isprintable()


def test_an_unknown_key_with_control_characters_is_escaped_in_the_path_too() -> None:
    [found] = problems('version: 1\n"\\e[2J": 1\n')
    assert found.isprintable()


# --- anything at all ---------------------------------------------------------------------------------

SECTIONS = """version include limits shared_paths repositories secret_sources secret_targets environments
services nodes projects moved notifications"""
KEYS = """kind url branch units release from promote_from windows deploy health http tcp secrets env depends_on sync
files after labels path format source keys fallback"""
CONTENTS = """infisical env_file github_actions invoke agent staging production web app local 1 12 0s 5m 50% true null
~ &a *a <<: [ ] { } - : , # | > " ' ! ? %"""
WORDS = st.sampled_from([*SECTIONS.split(), *KEYS.split(), *CONTENTS.split()])


@st.composite
def yamlish(draw: st.DrawFn) -> str:
    lines = ["version: 1"]
    for _ in range(draw(st.integers(0, 14))):
        indent = "  " * draw(st.integers(0, 4))
        words = draw(st.lists(WORDS, min_size=1, max_size=5))
        lines.append(indent + words[0] + ": " + " ".join(words[1:]))
    return "\n".join(lines)


@given(st.one_of(st.binary(max_size=300), yamlish().map(str.encode)))
def test_no_bytes_raise_anything(content: bytes) -> None:
    result = load({SPEC_FILE: content})
    assert result.spec is not None or result.problems
    assert all(each.line >= 1 and each.column >= 1 and each.file for each in result.problems)
