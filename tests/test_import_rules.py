"""The rules that keep the parts apart, read off the source; `lint-imports` checks those between packages.

A rule that must be loosened is loosened here, in a table, with the reason next to it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("agent", "reconciler", "schema")
MAX_LINES = 400

# Pure: no I/O, clock or randomness, neither itself nor in anything of ours that it imports.
PURE = (
    "reconciler.node_health",
    "reconciler.release.past",
    "agent.blocks",
    "agent.packing",
    "agent.changes",
    "agent.filenames",
    "agent.gitglob",
    "agent.ignore",
    "agent.index",
    "agent.ownership",
    "agent.runs",
    "agent.totals",
    "agent.pieces",
    "agent.wire.connection",
    "agent.wire.frames",
    "agent.wire.messages",
    "reconciler.api_tokens",
    "reconciler.around",
    "reconciler.back_off",
    "reconciler.carried",
    "reconciler.control.files",
    "reconciler.control.orders",
    "reconciler.control.records",
    "reconciler.control.requests",
    "reconciler.control.situation",
    "reconciler.control.state",
    "reconciler.deploy.dokploy_env",
    "reconciler.desired",
    "reconciler.drift",
    "reconciler.environment_status",
    "reconciler.export_work",
    "reconciler.github.export_work",
    "reconciler.github.scopes",
    "reconciler.git.signers",
    "reconciler.hashing",
    "reconciler.health_status",
    "reconciler.holds",
    "reconciler.install.facts",
    "reconciler.install.plan",
    "reconciler.install.unit",
    "reconciler.lease",
    "reconciler.notes",
    "reconciler.notifications.news",
    "reconciler.notifications.wording",
    "reconciler.returned",
    "reconciler.secret_fingerprints",
    "reconciler.secret_uses",
    "reconciler.selecting",
    "reconciler.sent_events",
    "reconciler.secrets_diff_report",
    "reconciler.secrets_report",
    "reconciler.pass_requests",
    "reconciler.plan",
    "reconciler.progress",
    "reconciler.gates",
    "reconciler.release.current",
    "reconciler.release.decide",
    "reconciler.release.facts",
    "reconciler.release.numbers",
    "reconciler.release.outcome",
    "reconciler.release.planning",
    "reconciler.release.reporting",
    "reconciler.release.rules",
    "reconciler.release.told",
    "reconciler.prune",
    "reconciler.release.versions",
    "reconciler.status.revisions",
    "reconciler.sync.directory_changes",
    "reconciler.release.windows",
    "reconciler.retry_after",
    "reconciler.scope",
    "reconciler.secrets.circular",
    "reconciler.secrets.merge",
    "reconciler.secrets.stored",
    "reconciler.secrets.template",
    "reconciler.source_status",
    "reconciler.spec.load",
    "reconciler.spec.mixed",
    "reconciler.spec.model",
    "reconciler.spec.released",
    "reconciler.spec.rewrite",
    "reconciler.spec.yaml_layout",
    "reconciler.spec_edit",
    "reconciler.status.conditions",
    "reconciler.status.documents",
    "reconciler.status.transitions",
    "reconciler.web.addresses",
    "reconciler.web.deliveries",
    "reconciler.web.deploy_bodies",
    "reconciler.web.deploy_orders",
    "reconciler.web.page.form_text",
    "reconciler.web.page.model",
    "reconciler.web.page.node_list",
    "reconciler.web.page.origin",
    "reconciler.web.page.view",
    "reconciler.web.page.waiting",
    "reconciler.web.rates",
    "reconciler.target_work",
    "reconciler.timetable",
)
IMPURE_MODULES = frozenset({
    *("asyncio", "fcntl", "glob", "http", "io", "logging", "mmap", "multiprocessing", "random", "secrets"),
    *("select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile"),
    *("threading", "time", "urllib.request", "uuid"),
    *("apprise", "boto3", "click", "dotenv", "git", "infisical_sdk", "invoke", "requests", "rich"),
    *("structlog", "trio"),
})  # fmt: skip
PURE_ALL_THE_SAME = frozenset({"io.BytesIO", "io.StringIO", "dotenv.parser.parse_stream"})
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint", "exec", "eval"})
# Names that are impure although their module has pure parts: only these of `os`, `pathlib`, `datetime` are.
PURE_OF_OS = frozenset({"path", "fspath", "fsencode", "fsdecode", "PathLike", "sep"})
CLOCKS = frozenset({"now", "utcnow", "today"})

AGENT_MAY_IMPORT = frozenset({"agent", "trio", "cryptography", "msgspec", "pathspec"})

MAY_READ_THE_ENVIRONMENT = {
    "agent/cli.py",  # hands it whole to the settings
    "agent/settings.py",
    "agent/status.py",  # NOTIFY_SOCKET: systemd's, no setting of ours
    "reconciler/cli_options.py",  # hands it whole to the settings
    "reconciler/demo.py",  # the processes it starts inherit PATH and LANG
    "reconciler/settings.py",
    "reconciler/git/process.py",  # hands git the few variables (PATH, HOME, SSH agent) that it may inherit
}

# Slow to import, or not needed by most verbs: `trueup --help` must not pay for them.
HEAVY = (
    *("apprise", "boto3", "git", "httpx", "hypercorn", "hypothesis", "infisical_sdk", "invoke", "jinja2"),
    *("jsonschema", "markupsafe", "requests", "rich", "starlette"),
)


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), relative(path))


def file_of(module: str) -> Path | None:
    """The file of one of our modules; None for anything else, such as a name inside a module."""
    place = ROOT.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def outside_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, save those that exist for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from outside_type_checking(node)


def imported(nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str, str]]:
    """Line, module and name (empty for `import module`) of each import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this project"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def ours(module: str, name: str) -> Iterator[str]:
    """The modules of ours that an import runs: the module, its packages, and a submodule named in it."""
    parts = module.split(".")
    if parts[0] in PACKAGES:
        yield from (".".join(parts[: count + 1]) for count in range(len(parts)))
        if name and file_of(f"{module}.{name}"):
            yield f"{module}.{name}"


def impurities(path: Path) -> Iterator[str]:
    """What in one file does I/O, reads the clock or is random."""
    tree = parsed(path)
    for line, module, name in imported(outside_type_checking(tree)):
        full = f"{module}.{name}" if name else module
        impure = bool({module, module.split(".")[0], full} & IMPURE_MODULES) and full not in PURE_ALL_THE_SAME
        if impure or full == "pathlib.Path" or (module == "os" and name and name not in PURE_OF_OS):
            yield f"{relative(path)}:{line}: imports {full}"
    for node in outside_type_checking(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if (owner == "os" and name not in PURE_OF_OS) or (owner, name) == ("pathlib", "Path"):
                yield f"{relative(path)}:{node.lineno}: uses {owner}.{name}"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                yield f"{relative(path)}:{node.lineno}: calls {node.func.id}"
            elif isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
                yield f"{relative(path)}:{node.lineno}: calls {ast.unparse(node.func)}"


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_reach_nothing_impure(module: str) -> None:
    assert file_of(module), f"{module} is listed as pure and does not exist"
    waiting: list[tuple[str, ...]] = [(module,)]
    seen: set[str] = {module}
    found: list[str] = []
    while waiting:
        way = waiting.pop()
        path = file_of(way[-1])
        assert path, f"{' -> '.join(way)}: no such module"
        found += [f"{' -> '.join(way)}: {impurity}" for impurity in impurities(path)]
        for _, target, name in imported(outside_type_checking(parsed(path))):
            for inner in ours(target, name):
                if inner not in seen:
                    seen.add(inner)
                    waiting.append((*way, inner))
    assert not found, "\n".join(found)


def test_the_agent_imports_its_own_dependencies_only() -> None:
    found = [
        f"{relative(path)}:{line}: imports {module}"
        for path in sources()
        if relative(path).startswith("agent/")
        for line, module, _ in imported(ast.walk(parsed(path)))
        if module.split(".")[0] not in AGENT_MAY_IMPORT | sys.stdlib_module_names
    ]
    assert not found, "\n".join(found)


def test_only_the_settings_read_the_environment() -> None:
    names = {"environ", "environb", "getenv", "getenvb"}
    found = []
    for path in sources():
        tree = parsed(path)
        used = [line for line, module, name in imported(ast.walk(tree)) if module == "os" and name in names]
        used += [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os"
        ]
        if relative(path) not in MAY_READ_THE_ENVIRONMENT:
            found += [f"{relative(path)}:{line}" for line in used]
    assert not found, "\n".join(found)


def test_no_file_has_grown_past_one_subject() -> None:
    tests = (ROOT / "tests").rglob("*.py")
    files = [*sources(), *tests, ROOT / "tasks.py"]
    lengths = {relative(path): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("module", ["reconciler.cli", "reconciler.secrets.client", "agent.cli"])
def test_commands_start_without_the_heavy_libraries(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert set(HEAVY) & set(result.stdout.split()) == set()


def test_the_tables_name_what_exists() -> None:
    missing = [name for name in MAY_READ_THE_ENVIRONMENT if not (ROOT / name).is_file()]
    assert not missing, f"the tables above name files that are gone: {missing}"
