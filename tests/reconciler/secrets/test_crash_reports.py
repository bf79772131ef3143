"""Real failures as a crash reporter would have them: every frame of the chain with its variables."""

import json
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.deploy.build_user import BuildUser
from reconciler.deploy.context import RunContext
from reconciler.deploy.driver import DRIVERS
from reconciler.deploy.request import DeployFailed, DeployRequest
from reconciler.errors import SettingsError, TrueupError
from reconciler.github.client import GitHub, PublicKey, sealed
from reconciler.github.pace import Pace
from reconciler.github.scopes import MAX_VALUE, RepositoryScope
from reconciler.keys import PREFIX, MasterKey
from reconciler.live import request as ask_primary
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.disk_cache_key import PREFIX as CACHE_PREFIX
from reconciler.secrets.disk_cache_key import DiskCacheKey, load_or_make
from reconciler.secrets.mask import Masker
from reconciler.secrets.merge import Merged, merge
from reconciler.secrets.render import render
from reconciler.secrets.values import Secret, SecretValue
from reconciler.settings import load_settings
from reconciler.spec.model import EnvCredential, InvokeDeploy, RenderedFile, SecretUse, Service
from tests.canaries import MARKER, canary, may_hold, redact, search_text
from tests.contracts.github_double import Fault, GitHubDouble

VALUE = canary("crash")
REPO = "acme/app"


def crash_report(error: BaseException) -> str:
    """All of the chain, also what `raise … from None` only hides, with the variables of our frames."""
    parts: list[str] = []
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop()
        parts += [repr(one), repr(vars(one)), *traceback.format_exception(one)]
        stack = traceback.TracebackException.from_exception(one, capture_locals=True).stack
        # The tests' own frames hold values in the clear.
        parts += [f"{frame.name}: {frame.locals}" for frame in stack if "/tests/" not in frame.filename]
        waiting += [linked for linked in (one.__cause__, one.__context__) if linked is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return "\n".join(parts)


def assert_tells_nothing(error: BaseException) -> None:
    report = crash_report(error)
    assert search_text(report, "the report") == [], redact(report)


def test_the_report_would_have_them() -> None:
    namespace: dict[str, object] = {}
    exec(compile("def fail(value):\n    raise ValueError\n", "elsewhere.py", "exec"), namespace)
    with pytest.raises(ValueError) as caught:
        namespace["fail"](VALUE)  # type: ignore[operator]
    assert search_text(crash_report(caught.value), "the report")


# --- a task that cannot start ---------------------------------------------------------------------


def deploy_request(tmp_path: Path, value: str, *command: str, user: BuildUser | None = None) -> DeployRequest:
    (tmp_path / "tasks.py").write_text("")
    deploy = InvokeDeploy(task="show", args=(), workdir=".", timeout=60.0)
    return DeployRequest(
        service=Service(name="web", environment="staging", repository="app", unit="app", deploy=deploy),
        checkout=tmp_path,
        tag="v1.0.0",
        revision="0" * 40,
        variables=merged(value).sealed(),
        masker=Masker([Secret(value)]),
        context=RunContext(base_environment={}, scratch=tmp_path / "homes", invoke_command=command),
    )


def merged(value: str) -> Merged:
    found = SecretValue("KEY", Secret(value), "staging", "env_file", False, datetime.now(UTC), "local")
    passed = merge(env={"OPEN": "x"}, secrets=[], environ={"PASSED": f"{VALUE}-passed"})
    return Merged({**passed.variables, "KEY": found}, ())


@pytest.mark.parametrize(
    ("command", "value", "told"),
    [
        ("/nowhere/invoke", VALUE, "cannot start /nowhere/invoke"),
        ("/dev/null", VALUE, "Permission denied"),
        ("/bin/\0sh", VALUE, "its arguments cannot be passed"),
        ("/bin/true", VALUE * 100_000, "Argument list too long"),
        ("/bin/true", f"{VALUE}\0", "variable 'KEY' cannot be passed"),
        ("/bin/true", f"{VALUE}\ud800", "variable 'KEY' cannot be passed"),
    ],
)
async def test_a_task_that_cannot_start(tmp_path: Path, command: str, value: str, told: str) -> None:
    with pytest.raises(DeployFailed) as caught:
        await DRIVERS["invoke"].deploy(deploy_request(tmp_path, value, command))
    assert told in str(caught.value)
    assert_tells_nothing(caught.value)


# --- files that cannot be rendered ----------------------------------------------------------------

FILES = {
    "a name that is not there": "{{ KEY }} {{ NOWHERE }}",
    "what is no number": "{{ KEY|int }} {{ KEY + 1 }}",
    "what fails inside a filter": "{{ KEY|round }}",
    "a method that is not there": "{{ KEY.nothing() }}",
    "a template that is none": "{{ KEY",
    "too much": "{% for i in range(9) %}" * 7 + "{{ KEY }}" + "{% endfor %}" * 7,
}


@pytest.mark.parametrize("template", FILES.values(), ids=FILES)
def test_a_template_that_fails(template: str) -> None:
    with pytest.raises(TrueupError) as caught:
        render(RenderedFile(path="app.conf", template="app.conf.j2"), merged(VALUE), template)
    assert_tells_nothing(caught.value)


def test_a_value_that_no_dotenv_line_carries() -> None:
    with pytest.raises(TrueupError, match="KEY has") as caught:
        render(RenderedFile(path=".env", format="dotenv"), merged(f"{VALUE}'$"))
    assert_tells_nothing(caught.value)


@pytest.mark.parametrize(
    "use", [SecretUse(source="prod", keys=("BAD",)), SecretUse(source="prod", keys=("NO",))]
)
def test_values_that_cannot_be_merged(use: SecretUse) -> None:
    bad = SecretValue("BAD", Secret(f"{VALUE}\0"), "staging", "env_file", False, datetime.now(UTC), "local")
    with pytest.raises(TrueupError) as caught:
        merge(env={}, secrets=[(use, {"BAD": bad})], environ={})
    assert_tells_nothing(caught.value)


# --- GitHub ---------------------------------------------------------------------------------------


@pytest.fixture
def github() -> Iterator[GitHubDouble]:
    with GitHubDouble() as double:
        double.add(REPO)
        yield double


ECHO = json.dumps({"message": VALUE, "secrets": [{"name": VALUE}], "key": VALUE}).encode()


@pytest.mark.parametrize("on", ["key", "put", "list"])
@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status, body=ECHO) for status in (401, 403, 404, 422, 500)),
        Fault(200, body=ECHO),
        Fault(200, body=b"[1]"),
        Fault(200, body=f"{{{VALUE}".encode()),
    ],
    ids=lambda fault: f"{fault.status} {len(fault.body)}",
)
async def test_a_push_that_fails(github: GitHubDouble, on: str, fault: Fault) -> None:
    github.fail_with(fault, on=on, times=20)  # type: ignore[arg-type]
    scope = RepositoryScope(REPO)
    async with GitHub(github.url, Secret(github.token), pace=Pace(0.0)) as client:
        error: TrueupError | None = None
        try:
            await client.list_secrets(scope)
            await client.put_secret(scope, "KEY", Secret(VALUE), await client.public_key(scope))
        except TrueupError as caught:
            error = caught
    # A write is not judged by what the answer says beside its status.
    assert error is not None or (on == "put" and fault.status == 200)
    if error is not None:
        assert_tells_nothing(error)


async def test_a_github_that_is_gone(github: GitHubDouble) -> None:
    async with GitHub("http://127.0.0.1:1", Secret(github.token), pace=Pace(0.0)) as client:
        with pytest.raises(TrueupError) as caught:
            await client.put_secret(RepositoryScope(REPO), "KEY", Secret(VALUE), PublicKey("1", b"k" * 32))
    assert_tells_nothing(caught.value)


@pytest.mark.parametrize(
    ("value", "key"), [(VALUE, b"short"), (VALUE * MAX_VALUE, b"k" * 32), (f"{VALUE}\ud800", b"k" * 32)]
)
def test_a_value_that_cannot_be_sealed(value: str, key: bytes) -> None:
    with pytest.raises(TrueupError) as caught:
        sealed(Secret(value), PublicKey("1", key), "acme/app: writing KEY")
    assert_tells_nothing(caught.value)


# --- what a primary is started with ---------------------------------------------------------------

KEY = f"{PREFIX}{VALUE}"
CACHE_KEY = f"{CACHE_PREFIX}{VALUE}"


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    latin = may_hold(tmp_path / "latin")
    latin.write_bytes(f"{VALUE}\xe9".encode("latin-1"))
    large = may_hold(tmp_path / "large")
    large.write_text(VALUE * 10_000)
    for more in (
        {"TRUEUP_INTERVAL": "soon"},
        {"TRUEUP_MASTER_KEY_FILE": str(latin)},
        {"WEBHOOK_SECRET_FILE": str(latin)},
        {"WEBHOOK_SECRET_FILE": str(large)},
        {"WEBHOOK_SECRET_FILE": str(tmp_path / "nowhere")},
    ):
        environ = {
            "TRUEUP_MASTER_KEY": VALUE,
            "DEPLOY_SECRET": VALUE,
            "OTHER": VALUE,
            "HOME": "/root",
            **more,
        }
        with pytest.raises(SettingsError) as caught:
            load_settings(environ)
        assert_tells_nothing(caught.value)
    settings = load_settings({"OTHER": VALUE, "HOME": "/root"})
    assert MARKER not in f"{settings!r} {settings.environ!r} {settings.readable_environ()!r}"
    with pytest.raises(SettingsError) as caught:
        settings.visible(["TRUEUP_MASTER_KEY"])
    assert_tells_nothing(caught.value)


@pytest.mark.parametrize("text", [VALUE, KEY, f"{PREFIX}c2hvcnQ=", CACHE_KEY, f"{CACHE_PREFIX}c2hvcnQ="])
def test_damaged_keys(text: str, tmp_path: Path) -> None:
    for make in (MasterKey.from_text, DiskCacheKey.from_text):
        with pytest.raises(SettingsError) as caught:
            make(text)
        assert_tells_nothing(caught.value)
    path = may_hold(tmp_path / "key")
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        load_or_make(path)
    assert_tells_nothing(caught.value)


async def test_credentials_given_twice() -> None:
    credentials = Credentials({"TOKEN": VALUE, "TOKEN_FILE": "/nowhere"})
    with pytest.raises(SettingsError, match="both TOKEN and TOKEN_FILE") as caught:
        await credentials.read(EnvCredential(name="TOKEN"), "")
    assert_tells_nothing(caught.value)


async def test_a_primary_that_cannot_be_asked() -> None:
    settings = load_settings({"TRUEUP_SERVER": "http://127.0.0.1:1", "TRUEUP_TOKEN": VALUE, "HOME": "/root"})
    with pytest.raises(TrueupError, match="no running primary") as caught:
        await ask_primary(settings, "GET", "/api/secrets")
    assert_tells_nothing(caught.value)
