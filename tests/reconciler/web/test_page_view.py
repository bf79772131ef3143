"""The page as data and as HTML: what it says of a small world, of nothing at all, and of hostile names."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.control.state import fold
from reconciler.spec.model import Node, Spec
from reconciler.status.documents import Recorded
from reconciler.web.page.deeds import DEEDS, FORMS
from reconciler.web.page.facts import Facts, Setup
from reconciler.web.page.model import Badge, State, Todo, Tone
from reconciler.web.page.render import SLOT, TITLES, render, sections
from reconciler.web.page.view import page_of
from reconciler.web.page.waiting import MAX_LISTED, todos
from tests.reconciler.control.records import record
from tests.reconciler.web.page_facts import facts

GOLDEN = Path(__file__).parent / "page.golden.json"
ALL = frozenset(DEEDS) | frozenset(FORMS)
"""Everything that somebody may do on the page."""

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "</title></textarea></style></section><svg/onload=alert(1)>",
    "' autofocus onfocus=alert(1) x='",
    "{{ 7 * 7 }}{% raw %}",
    "\u2028\u0000\u202e&lt;b&gt;",
)


class Elements(HTMLParser):
    """Tags and attributes of HTML; its shape, without what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    elements.close()
    return elements


def html_of(given: Facts, allowed: frozenset[str] = ALL) -> str:
    return "\n".join(section.html for section in sections(page_of(given), allowed))


def test_the_view_of_a_small_world() -> None:
    shown = json.loads(msgspec.json.encode(page_of(facts())))
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
        pytest.fail(f"{GOLDEN.name} was written; read it and commit it")
    assert shown == json.loads(GOLDEN.read_text()), f"if this is meant, remove {GOLDEN.name} and run again"


def test_a_new_user_is_told_what_to_do() -> None:
    def titles(given: Facts) -> list[str]:
        return [step.title for step in page_of(given).overview.steps]

    webhook = "Let GitHub tell of a push"
    assert titles(Facts()) == ["Wait for the first pass", webhook]
    broken = Facts(passed=True, error="no branch main", setup=Setup(webhook=True))
    assert titles(broken) == ["Give it a spec"]
    assert page_of(broken).overview.headline.text == "No pass can be made"
    empty = Facts(passed=True, spec=Spec(version=1), setup=Setup(webhook=True))
    assert titles(empty) == ["Describe an environment and a service", "Add a node"]
    assert page_of(empty).overview.headline.text == "Nothing to look after yet"
    full = facts()
    assert titles(full) == []
    unpaired = msgspec.structs.replace(full.recorded, nodes={})
    assert [step.title for step in page_of(_with(full, unpaired)).overview.steps] == ["Let a node join"]
    # Each of them is a whole page all the same.
    for each in (Facts(), broken, empty, full):
        ids = [section.id for section in sections(page_of(each), ALL)]
        assert ids == list(TITLES)


def test_who_only_syncs_directories_is_not_told_that_the_spec_asks_for_nothing() -> None:
    full = facts()
    assert full.spec is not None
    nodes = {"web-1": full.spec.nodes["web-1"]}
    spec = msgspec.structs.replace(full.spec, environments={}, services={}, nodes=nodes)
    given = Facts(passed=True, spec=spec, setup=Setup(webhook=True))
    assert [step.title for step in page_of(given).overview.steps] == ["Let a node join"]
    [node] = full.recorded.nodes.values()
    [target] = full.recorded.syncs.values()
    ready = full.recorded.environments["environments/staging"].conditions
    synced = Recorded()
    for each in (node, target):
        synced = synced.put(msgspec.structs.replace(each, conditions=ready))
    given = replace(given, recorded=synced, connected=full.connected)
    assert page_of(given).overview.steps == ()
    assert page_of(given).overview.headline.text == "Everything in order"


def test_a_node_that_left_the_spec_is_told_of_before_the_first_pass_too() -> None:
    def left(tip: Mapping[str, Node] | None) -> list[tuple[bool, bool]]:
        shown = page_of(replace(facts(), passed=False, spec=None, tip=tip)).nodes
        return [(each.in_spec, each.state.badge.text == "not in the spec") for each in shown if each.paired]

    assert left(facts().nodes) == [(True, False)]
    assert left({}) == [(False, True)]
    assert left(None) == [(True, False)]


def _with(given: Facts, recorded: Recorded) -> Facts:
    return replace(given, recorded=recorded)


def test_buttons_are_there_for_those_who_may_press_them() -> None:
    reading, operating = html_of(facts(), frozenset()), html_of(facts(), ALL)
    assert "<form" not in reading
    assert "<button" not in reading
    assert SLOT not in reading
    shape = parsed(operating).found
    forms = sum(tag == "form" for tag, _ in shape)
    assert forms > 10
    # Each form has the token of the session, and every field that a person fills in has a name of its own.
    assert operating.count(f'name="csrf" value="{SLOT}"') == forms
    # Each deed has a button somewhere, and no button is for what cannot be done.
    left = record("suspend", 2, resource="projects/staging/site")
    frozen = replace(facts(), control=fold([record("freeze", 1), left]))
    pressed = re.findall(r'name="do" value="([^"]+)"', operating + html_of(frozen))
    assert set(pressed) == set(DEEDS)
    section = sections(page_of(facts()), ALL)[1]
    assert SLOT not in section.for_session("token-of-one")
    ids = [part.split('"')[0] for part in operating.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_what_waits_for_a_person_is_told_with_where_it_is() -> None:
    told = page_of(facts()).overview.todos
    assert [(each.text, each.section, each.service) for each in told] == [
        ("v1.4.0 of app waits for approval in production", "environments", ""),
        ("a release of app was refused in production: it was not proven", "environments", ""),
        ("api in staging: DeployFailed", "services", "services/staging/api"),
        ("web-1 is degraded", "nodes", ""),
        ("web-2 is not paired", "nodes", ""),
        ("site: DriftDetected", "projects", ""),
        ("app in staging is kept: ReleaseFailed: api", "environments", ""),
        ("production is held by Bob <bob@example.org> on 2026-11-26 12:00 UTC: sale day", "environments", ""),
        ("cron in production is suspended", "services", "services/production/cron"),
    ]
    assert "What waits for you" in html_of(facts())
    assert "What waits for you" not in html_of(Facts())


def test_what_is_not_listed_of_that_is_counted() -> None:
    [project, *_] = page_of(facts()).projects
    suspended = replace(project, name="site", suspended=True, state=State(Badge("Ready", Tone.GOOD)))
    listed = todos((), (), (), [suspended] * MAX_LISTED)
    assert [each.text for each in listed] == ["site is suspended"] * MAX_LISTED
    more = todos((), (), (), [suspended] * (MAX_LISTED + 2))
    assert more == (*listed, Todo("and 2 more", "projects", Tone.IDLE))


def test_only_what_changed_has_another_digest() -> None:
    before = {section.id: section.digest for section in sections(page_of(facts()), ALL)}
    again = {section.id: section.digest for section in sections(page_of(facts()), ALL)}
    assert before == again
    after = {section.id: section.digest for section in sections(page_of(replace(facts(), events=())), ALL)}
    assert [id for id in TITLES if after[id] != before[id]] == ["events"]


def hostile_names(values: Iterator[str]) -> Callable[[str], str]:
    known: dict[str, str] = {}

    def name(word: str) -> str:
        if word not in known:
            # No slash and no @: ids and revisions are split there.
            known[word] = f"{word}{next(values)}".replace("/", "\u2215").replace("@", "\uff20")
        return known[word]

    return name


def endless(values: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from values


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_text_and_nothing_else(hostile: str) -> None:
    harmless = parsed(html_of(facts()))
    attacked = parsed(html_of(facts(hostile_names(endless((hostile,))))))
    assert attacked.found == harmless.found
    assert hostile.replace("/", "\u2215").replace("@", "\uff20").replace("\0", "\ufffd") in "".join(
        attacked.text
    ).replace("\0", "\ufffd")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12))
def test_any_names_leave_the_shape_of_the_page(values: list[str]) -> None:
    harmless = parsed(html_of(facts()))
    attacked = parsed(html_of(facts(hostile_names(endless(tuple(values))))))
    assert attacked.found == harmless.found


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_other_pages_escape_too(hostile: str) -> None:
    pages = {
        "login.html": {"closed": "", "command": "", "error": "x"},
        "refused.html": {"message": "x"},
        "once.html": {"title": "x", "secret": "x", "back": "#nodes"},
    }
    for template, context in pages.items():
        attacked = render(template, **{key: value.replace("x", hostile) for key, value in context.items()})
        assert parsed(attacked).found == parsed(render(template, **context)).found


def test_templates_and_static_files_are_packed() -> None:
    """What a wheel takes is what setuptools is told: every file beside the code of the page."""
    root = Path(__file__).parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    directory = root / "reconciler/web/page"
    packed = {path for pattern in patterns["reconciler.web.page"] for path in directory.glob(pattern)}
    there = {path for path in directory.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packed == there
