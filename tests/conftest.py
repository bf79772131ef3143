"""The whole run's setting: a hermetic environment, and the search for leaked secrets at its end."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import canaries
from tests.processlist import ProcessList, watch_process_list

# What these assert is told as fully as in a test.
pytest.register_assert_rewrite(
    "tests.operating",
    "tests.pressing",
    "tests.pressing_nodes",
    "tests.reconciler.scripted_fleet",
    "tests.reconciler.deploy.invoking",
    "tests.reconciler.secrets.restarting",
    "tests.reconciler.secrets.sources",
    "tests.reconciler.source_directories",
    "tests.reconciler.spec.documents",
)

# What a developer's or a CI machine's own settings may not decide here. Names with _TEST_ are for the tests.
_FOREIGN = re.compile(
    r"(TRUEUP|SYNC|INFISICAL|DOKPLOY|DOCKER|COMPOSE|GIT|XDG|SSH|GH|GITHUB)_|(WEBHOOK|DEPLOY)_SECRET|(SOURCE|CHECK)_SECRETS_|NOTIFY_URL"
    r"|(https?|ftp|all|no)_proxy$|(FORCE_COLOR|NO_COLOR|COLUMNS|LINES|PAGER|EDITOR|PYTHONPATH)$"
    # Without its compiled form each of the many processes would compile the whole program anew.
    r"|PYTHON(DONTWRITEBYTECODE|PYCACHEPREFIX)$",
    re.IGNORECASE,
)
_GIT_CONFIG = """\
[user]
    name = Test
    email = test@example.org
[init]
    defaultBranch = main
[commit]
    gpgSign = false
[tag]
    gpgSign = false
[gc]
    auto = 0
[maintenance]
    auto = false
"""
# No test may depend on the speed of the machine.
settings.register_profile(
    "trueup",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # What decides whether a change lands is the same each time; other runs look for something new.
    derandomize="CI" in os.environ,
)
settings.load_profile("trueup")

_session_dir = pytest.StashKey[Path]()
_reported: list[canaries.Find] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="every byte, system call and seed where otherwise a part of them is tried; takes an hour",
    )


@pytest.fixture(scope="session")
def exhaustive(request: pytest.FixtureRequest) -> bool:
    """Whether to try every point of a kind, or as many as an ordinary run has time for."""
    return bool(request.config.getoption("--exhaustive"))


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    session = Path(config.workerinput["trueup_session_dir"]) if _is_worker(config) else base  # type: ignore[attr-defined]
    config.stash[_session_dir] = session
    canaries.use_registry(session / "may-hold")
    _make_hermetic(base)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """pytest-xdist: tell each worker where the whole run's directory is; its own lies below."""
    node.workerinput["trueup_session_dir"] = str(node.config.stash[_session_dir])  # type: ignore[attr-defined]


def _make_hermetic(base: Path) -> None:
    for name in list(os.environ):
        if _FOREIGN.match(name) and "_TEST_" not in name:
            del os.environ[name]
    home, temporary = base / "home", base / "tmp"
    home.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    git_config = home / "gitconfig"
    git_config.write_text(_GIT_CONFIG)
    os.environ.update(
        HOME=str(home),
        TMPDIR=str(temporary),
        GIT_CONFIG_GLOBAL=str(git_config),
        GIT_CONFIG_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        LC_ALL="C.UTF-8",
        TZ="UTC",
    )
    tempfile.tempdir = None  # asked again, it finds the new TMPDIR
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell has it that runs the tests in the background; their children would ignore Ctrl-C, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def process_list() -> Iterator[ProcessList]:
    """The process list while the test runs; a secret in it fails the test."""
    with watch_process_list() as seen:
        yield seen


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Search what a test printed and what its failure shows. Under xdist only the controller keeps finds."""
    for title, text in report.sections:
        _reported.extend(canaries.search_text(text, f"{report.nodeid} ({title})"))
    if report.failed:
        _reported.extend(canaries.search_text(report.longreprtext, f"{report.nodeid} (failure)"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search all that was written, once: by the only process, or by xdist's controller after its workers.

    Hooks run in the reverse order of their registration: xdist has joined its workers by now, and pytest
    has not yet given the directory up to the cleaning of other runs on this machine.
    """
    if _is_worker(session.config):
        return
    root = session.config.stash[_session_dir]
    registry = root / "may-hold"
    allowed = canaries.registered(registry) | {registry}
    # A section grows with each phase of a test and is reported each time: say it once.
    finds = list(dict.fromkeys([*_reported, *canaries.search_tree(root, allowed=allowed)]))
    if not finds:
        return
    shown = "\n".join(str(find) for find in finds)
    report = pytest.TestReport(
        nodeid="tests/canaries.py::search",
        location=("tests/canaries.py", None, "secret values outside the files that may hold them"),
        keywords={},
        outcome="failed",
        longrepr=f"secret values outside the files that may hold them:\n{shown}",
        when="teardown",
    )
    session.config.hook.pytest_runtest_logreport(report=report)
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
