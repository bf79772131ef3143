"""Secrets that are committed encrypted: deployed like any others, and a commit of new ones acts at once."""

from pathlib import Path

import pyrage

from tests.bad_world import BOTH, DATABASE, Case, error, make_case
from tests.canaries import canary, may_hold
from tests.contracts.sops_tool import Sops, double_in

KEY = pyrage.x25519.Identity.generate()

TASKS = """\
import os
from pathlib import Path
from invoke import task

@task
def deploy(c):
    with (Path({deployed!r}) / os.environ["TRUEUP_SERVICE"]).open("a") as log:
        log.write(os.environ["TRUEUP_TAG"] + "\\n")
    if "DB_PASSWORD" in os.environ:
        Path({got!r}).write_text(os.environ["DB_PASSWORD"])
"""

SEALED = """\
secret_sources:
  local: {{kind: age, repository: app, file: secrets/staging.age, identity: {{file: "{identity}"}}}}
"""


def sealed(text: str) -> bytes:
    data: bytes = pyrage.encrypt(text.encode(), [KEY.to_public()], armored=True)
    return data


def seal(case: Case, secrets: dict[str, str]) -> None:
    """Commit the encrypted file; the release that runs stays the one before."""
    text = "".join(f"{name}={value}\n" for name, value in secrets.items())
    case.world.app.commit({"secrets/staging.age": sealed(text)})


def use_age(case: Case, root: Path) -> Path:
    """The good spec with its source in the repository; gives the file that the deployed task writes."""
    identity = root / "age.key"
    identity.write_text(f"# created: today\n# public key: {KEY.to_public()}\n{KEY}\n")
    identity.chmod(0o600)
    got = may_hold(root / "got")
    case.world.app.commit({"tasks.py": TASKS.format(deployed=str(case.world.deployed), got=str(got))})
    case.world.app.tag("v1.0.1")
    start = case.head.index("secret_sources:")
    case.head = case.head[:start] + SEALED.format(identity=identity)
    case.commit(case.good)
    return got


async def test_a_commit_of_new_secrets_deploys_who_uses_them(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        got = use_age(case, tmp_path)
        first, second = canary("sealed-first"), canary("sealed-second")
        seal(case, {"DB_PASSWORD": first, "OTHER": "1"})
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.1"], "database": ["v1.0.1"]}
        assert got.read_text() == first
        assert case.ready("secrets/local")[:2] == ("True", "ReconciliationSucceeded")
        # A key that nobody uses: nothing to do. One that is used: exactly its service, and the plan says why.
        seal(case, {"DB_PASSWORD": first, "OTHER": "2"})
        assert (await case.reconcile(expect=0)).document["steps"] == []
        seal(case, {"DB_PASSWORD": second, "OTHER": "2"})
        planned = await case.plan("--detailed-exitcode", expect=2)
        [step] = planned.document["steps"]
        assert (step["resource"], step["action"]) == (DATABASE, "deploy")
        assert "DB_PASSWORD" in step["reason"]
        ran = await case.reconcile(expect=0)
        assert [each["resource"] for each in ran.document["steps"]] == [DATABASE]
        assert case.deployed() == {"api": ["v1.0.1"], "database": ["v1.0.1", "v1.0.1"]}
        assert got.read_text() == second
        assert (await case.reconcile(expect=0)).document["steps"] == []


async def test_a_file_that_does_not_open_deploys_nothing(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        use_age(case, tmp_path)
        missing = "there is no such file on that repository's branch; commit it there, or mend `file`"
        where = f"error: {DATABASE}: SecretFetchFailed: secret source local: app:secrets/staging.age: "
        assert error(await case.reconcile(expect=4)) == where + missing
        case.world.app.commit({"secrets/staging.age": f"DB_PASSWORD={canary('in-the-clear')}\n"})
        may_hold(case.world.app.path)
        may_hold(case.world.state / "mirrors")
        said = error(await case.reconcile(expect=4))
        assert said.startswith(where + "it is not a file that age encrypted")
        seal(case, {"DB_PASSWORD": canary("sealed-first")})
        (tmp_path / "age.key").write_text(f"{pyrage.x25519.Identity.generate()}\n")
        assert error(await case.reconcile(expect=4)).startswith(where + "`identity` does not open it")
        (tmp_path / "age.key").write_text(f"{KEY}\n")
        assert case.deployed() == {"api": ["v1.0.1"]}
        await case.reconcile(expect=0)
        assert case.deployed() == {name: ["v1.0.1"] for name in BOTH}


async def test_a_sops_file_in_a_repository(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        sops = Sops(double_in(tmp_path / "bin"), tmp_path)
        case.world.environment["PATH"] = sops.environ["PATH"]
        start = case.head.index("secret_sources:")
        source = "{kind: sops, repository: app, file: a.yaml}"
        case.head = f"{case.head[:start]}secret_sources:\n  local: {source}\n"
        case.commit(case.good)
        case.world.app.commit({"a.yaml": sops.encrypt("a.yaml", f"DB_PASSWORD: {canary('sopsed')}\n")})
        where = f"error: {DATABASE}: SecretFetchFailed: secret source local: app:a.yaml: "
        assert error(await case.reconcile(expect=4)).startswith(where + "sops has no key that opens it")
        case.world.environment["SOPS_AGE_KEY"] = str(sops.key)
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH
        assert (await case.reconcile(expect=0)).document["steps"] == []
        case.world.app.commit({"a.yaml": sops.encrypt("a.yaml", f"DB_PASSWORD: {canary('sopsed-anew')}\n")})
        [step] = (await case.reconcile(expect=0)).document["steps"]
        assert step["resource"] == DATABASE
