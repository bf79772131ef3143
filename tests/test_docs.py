"""What the documentation names exists, and what exists is documented where that was promised."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import click
import pytest

import agent.cli
from agent.failures import _REASONS, code_of
from agent.settings import parse_config
from reconciler.cli import cli
from reconciler.console import pass_document, plan_document
from reconciler.errors import Problem
from reconciler.plan import Action, Finding, Plan, Step
from reconciler.reconcile import Pass
from reconciler.settings import FLAGS, SECRETS
from reconciler.spec.document import Map
from reconciler.spec.load import load
from reconciler.spec.schema import spec_schema, violations
from reconciler.spec.yaml_reader import Budget, read_yaml
from reconciler.status.conditions import ConditionType, Reason

ROOT = Path(__file__).parent.parent
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

# Named in a page that says that they are not there yet, or that explains a refusal which names them.
NOT_BUILT = {
    "docs/secrets.md": {"trueup secrets"},
}
NO_COMMAND = "trueup status v1"
"""The first line of what is signed, see `reconciler/status/signature.py`."""

each_doc = pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))


def prose(doc: Path) -> str:
    """The text without fenced blocks of a language of their own: they are no commands or links of ours."""
    return re.sub(r"^```\w+\n.*?^```$", "", doc.read_text(), flags=re.DOTALL | re.MULTILINE)


def fenced(doc: Path, language: str) -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", doc.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [str(block) for block in blocks]


# --- commands ----------------------------------------------------------------------------------


class Verb(NamedTuple):
    """A command with its options, all spellings, and the verbs below it."""

    options: frozenset[str]
    below: Mapping[str, Verb]


def of_click(command: click.Command) -> Verb:
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("-")}
    below = command.commands if isinstance(command, click.Group) else {}
    return Verb(
        frozenset({*options, "-h", "--help"}), {name: of_click(child) for name, child in below.items()}
    )


def of_argparse(parser: argparse.ArgumentParser) -> Verb:
    options: set[str] = set()
    below: dict[str, Verb] = {}
    for action in parser._actions:
        options.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            below = {name: of_argparse(child) for name, child in action.choices.items()}
    return Verb(frozenset(options), below)


@cache
def commands() -> Mapping[str, Verb]:
    return {"trueup": of_click(cli), "trueup-agent": of_argparse(agent.cli._parser())}


def verbs(name: str, verb: Verb) -> Iterator[tuple[str, Verb]]:
    """Every command that does something, by its full name."""
    if not verb.below:
        yield name, verb
    for word, child in verb.below.items():
        yield from verbs(f"{name} {word}", child)


def mentioned_commands(doc: Path) -> Iterator[list[str]]:
    """The words of each command line of ours, in code spans and in indented code."""
    text = prose(doc)
    lines = re.findall(r"`([^`\n]+)`", text)
    lines += [line.strip().removeprefix("$ ") for line in text.splitlines() if line.startswith("    ")]
    for line in lines:
        for part in map(str.strip, re.split(r"&&|;|\|\|?(?= )|\$\(|  +#", line)):
            if part != NO_COMMAND and re.match(r"(\w+=\S+ )*trueup(-agent)?( |$)", part):
                # An apostrophe in a comment is no quote; what a shell would not take is split at spaces.
                try:
                    words = shlex.split(part)
                except ValueError:
                    words = part.split()
                while "=" in words[0]:
                    words.pop(0)
                yield words


@each_doc
def test_every_command_and_option_that_is_named_exists(doc: Path) -> None:
    wrong: list[str] = []
    for words in mentioned_commands(doc):
        name, rest = words[0], words[1:]
        verb = commands()[name]
        while rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]) and verb.below:
            name = f"{name} {rest[0]}"
            if rest[0] not in verb.below:
                break
            verb, rest = verb.below[rest[0]], rest[1:]
        else:
            options = {
                word.strip("[],.").partition("=")[0] for word in rest if word.strip("[").startswith("-")
            }
            wrong += [f"{name} has no {option}" for option in options - verb.options - {"-vv", "-"}]
            continue
        if name not in NOT_BUILT.get(str(doc.relative_to(ROOT)), ()):
            wrong.append(f"there is no {name}")
    assert not wrong


def test_what_is_said_to_be_not_built_is_not() -> None:
    built = {name for program, verb in commands().items() for name, _ in verbs(program, verb)}
    assert built.isdisjoint(set().union(*NOT_BUILT.values()))


def sections(doc: Path) -> dict[str, str]:
    """The text below each heading that is a code span, by the words of the command in it."""
    found = re.split(r"^#+ `([^`]+)`$", doc.read_text(), flags=re.MULTILINE)
    names = [re.sub(r"( \[?[A-Z|/]+\]?(\.\.\.)?)+$", "", heading) for heading in found[1::2]]
    texts = [re.split(r"^#+ ", text, flags=re.MULTILINE)[0] for text in found[2::2]]
    return dict(zip(names, texts, strict=True))


def options_in(text: str) -> set[str]:
    """The options in the first column of tables."""
    cells = re.findall(r"^\| (`-[^|]*(?:\\\|[^|]*)*) \|", text, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(--?[a-z-]+)", cell)}


def test_the_page_of_commands_has_each_verb_with_its_options() -> None:
    page = ROOT / "docs/commands.md"
    of_most = options_in(page.read_text().partition("## Options of most commands")[2].partition("\n## ")[0])
    of_agent = options_in(page.read_text().partition("\n## trueup-agent")[2].partition("\n### ")[0])
    found = {name: options_in(text) for name, text in sections(page).items()}
    expected: dict[str, set[str]] = {}
    for program, verb in commands().items():
        for name, leaf in verbs(program, verb):
            common = of_agent if program == "trueup-agent" else of_most
            if name not in ("trueup validate", "trueup demo"):
                assert common <= leaf.options, name
            expected[name] = set(leaf.options) - {"-h", "--help"} - common
    assert found == expected


def test_the_json_of_a_plan_is_as_the_page_shows_it() -> None:
    (block,) = fenced(ROOT / "docs/commands.md", "json")
    shown = json.loads(block)
    step = Step("services/staging/web", Action.DEPLOY, "changed: env A", "", ("env A",))
    plan = Plan("main@sha1:0", (step,), (Finding("services/staging/api", "AwaitingRelease", ""),))
    document = plan_document(plan, (), ())
    assert _keys(shown) == _keys(document)
    added = pass_document(Pass(plan)).keys() - document.keys()
    assert all(f"`{name}`" in sections(ROOT / "docs/commands.md")["trueup reconcile"] for name in added)


def _keys(value: object) -> object:
    """A document without its values: the keys of maps, and of the first item of lists."""
    if isinstance(value, dict):
        return {name: _keys(inner) for name, inner in value.items()}
    return _keys(value[0]) if isinstance(value, list) and value else None


# --- links, files, names -----------------------------------------------------------------------


def anchors(doc: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", prose(doc), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_doc
def test_every_link_leads_somewhere(doc: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(doc)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (doc.parent / path).resolve() if path else doc
        if not there.exists() or not there.is_relative_to(ROOT):
            wrong.append(target)
        elif anchor and anchor not in anchors(there):
            wrong.append(f"{target}: no such heading")
    assert not wrong


def defined(path: Path) -> set[str]:
    """What a module defines: names at its top, and `Class.name` for what a class has."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        names |= _names(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for inner in node.body for name in _names(inner)}
    return names


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


CODE = re.compile(
    r"\b((?:reconciler|agent|schema|tests|requirements)/[\w/.-]*\.(?:py|json|lock))(?::([A-Za-z_][\w.]*\w))?"
)


@each_doc
def test_every_file_and_name_of_the_code_exists(doc: Path) -> None:
    wrong = []
    for path, name in CODE.findall(doc.read_text()):
        if not (ROOT / path).is_file():
            wrong.append(path)
        elif name and name not in defined(ROOT / path):
            wrong.append(f"{path}:{name}")
    assert not wrong


# --- settings, reasons, examples ---------------------------------------------------------------

VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
PREFIXES = ("TRUEUP_", "SYNC_", "INFISICAL_", "GIT_", "WEBHOOK_", "DEPLOY_")


def variables_in(*paths: str) -> set[str]:
    """The variables that the code of these files names, apart from its comments and docstrings."""
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if VARIABLE.fullmatch(node.value):
                found.add(node.value)
    return found


def test_every_setting_is_documented_and_every_documented_one_is_read() -> None:
    documented = set(VARIABLE.findall((ROOT / "docs/settings.md").read_text()))
    read = variables_in("reconciler/settings.py", "agent/settings.py", "agent/cli.py")
    assert set(FLAGS.values()) | set(SECRETS) <= read
    settings = {name for name in read if name.startswith(PREFIXES)}
    assert settings <= documented, "variables that docs/settings.md does not name"
    given = variables_in(
        *("reconciler/git/process.py", "reconciler/deploy/context.py", "reconciler/deploy/orphans.py"),
        *("agent/commands.py", "agent/status.py"),
    )
    known = read | given | {f"{name}_FILE" for name in (*SECRETS, "SYNC_NODE_TOKEN", "NAME")}
    assert documented <= known, "variables that nothing reads"


def test_the_configuration_of_an_agent_in_the_docs_is_one() -> None:
    (text,) = fenced(ROOT / "docs/settings.md", "toml")
    config = parse_config(text, "docs/settings.md")
    assert (config.node, config.rules.roots) == ("web-1", ("/srv",))


def agents_reasons() -> set[str]:
    """The reasons that an agent gives in the report of a task, beside those of the reconciler."""
    found = {reason for reason, _ in _REASONS.values()} | {code_of(OSError())}
    for path in sorted((ROOT / "agent").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            position = {"TaskFailed": 0, "_failed": 1}.get(node.func.id)
            if position is not None and len(node.args) > position:
                reason = node.args[position]
                if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                    found.add(reason.value)
    return found


def test_every_reason_and_condition_is_explained() -> None:
    text = (ROOT / "docs/status.md").read_text()
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, flags=re.MULTILINE)
    rows = {word for cell in cells for word in re.findall(r"\w+", cell)}
    assert {*map(str, Reason), *map(str, ConditionType), *agents_reasons()} - rows == set()


def test_the_reasons_said_to_be_unused_are_those() -> None:
    text = (ROOT / "docs/status.md").read_text()
    said = re.search(r"given by nothing in this version: (.*?)\.\n\n", text, flags=re.DOTALL)
    code = "\n".join(
        path.read_text()
        for package in ("agent", "reconciler")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "conditions.py"
    )
    unused = {
        str(reason)
        for reason in Reason
        if not re.search(rf"\bReason\.{reason.name}\b", code) and f'"{reason}"' not in code
    }
    assert said is not None and set(re.findall(r"\w+", said[1])) == unused


def test_examples_of_specs_are_valid() -> None:
    """A block that is a whole spec loads; in a part of one, or of a service, only other parts are missing."""
    for page in ("docs/spec.md", "docs/secrets.md"):
        blocks = fenced(ROOT / page, "yaml")
        assert blocks, page
        for block in blocks:
            if re.search(r"^version: 1$", block, flags=re.MULTILINE):
                problems = [str(problem) for problem in load({"trueup.yaml": block.encode()}).problems]
            else:
                sections = spec_schema()["properties"]
                if block.partition(":")[0] not in sections:
                    block = f"services:\n  a:\n{indent(block, '    ')}"
                read = read_yaml(page, f"version: 1\n{block}".encode(), Budget())
                assert not isinstance(read, Problem), read
                assert isinstance(read.data, Map)
                messages = [violation.message for violation in violations(read.data, spec_schema())]
                problems = [message for message in messages if " is missing; " not in message]
            assert not problems, f"{page}:\n{block}\n{problems}"
