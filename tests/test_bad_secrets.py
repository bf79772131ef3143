"""Secrets that are missing, and sources that are down: nothing is deployed with less than it asks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.bad_world import API, BOTH, DATABASE, Case, error, errors, make_case, use_vault
from tests.canaries import canary, may_hold
from tests.contracts.infisical_double import InfisicalDouble, server_error


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as double:
        double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("db-password")}
        yield double


async def test_a_missing_key_is_told_with_the_names_near_it(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good.replace("keys: [DB_PASSWORD]", "keys: [DB_PASSWRD]"))
        ran = await case.reconcile(expect=4)
        assert error(ran) == (
            f"error: {DATABASE}: SecretNotFound: secret source local has no key 'DB_PASSWRD'; "
            "near names there: DB_PASSWORD"
        )
        assert case.deployed() == {"api": ["v1.0.0"]}
        assert case.ready(DATABASE)[:2] == ("False", "SecretNotFound")
        assert error(await case.plan(expect=1)) == error(ran)
        # Deployed before, and its key gone since then: it stays as it is.
        case.commit(case.good)
        await case.reconcile(expect=0)
        case.release("v1.1.0")
        may_hold(case.env_file).write_text(f"UNRELATED={canary('unrelated')}\n")
        gone = await case.reconcile(expect=4)
        assert error(gone) == (
            f"error: {DATABASE}: SecretNotFound: secret source local has no key 'DB_PASSWORD'; "
            "it has 1 other key; add this one, or mend the name"
        )
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0"]}
        assert case.status(DATABASE)["lastAppliedRevision"].startswith("v1.0.0@")


@pytest.mark.parametrize("fault", ["gone", "garbled", "a directory"])
async def test_an_env_file_that_cannot_be_used(tmp_path: Path, fault: str) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        case.env_file.unlink()
        if fault == "garbled":
            case.env_file.write_text(f"DB_USER=app\n{canary('garbled')}\n")
            case.env_file.chmod(0o600)
        elif fault == "a directory":
            case.env_file.mkdir()
        told = {
            "gone": ": there is no such file; create it, or mend `file`",
            "garbled": ":2: a name without `=`; write NAME= for an empty value; mend that line",
            "a directory": ": it is not a regular file",
        }
        ran = await case.reconcile(expect=4)
        message = f"secret source local: {case.env_file}{told[fault]}"
        assert error(ran) == f"error: {DATABASE}: SecretFetchFailed: {message}"
        assert case.deployed() == {"api": ["v1.0.0"]}
        assert case.ready("secrets/local") == ("Unknown", "SecretFetchFailed", message)


@pytest.mark.parametrize("fault", ["closed", "failing"])
async def test_a_source_that_is_down(
    tmp_path: Path, double: InfisicalDouble, fault: Literal["closed", "failing"]
) -> None:
    async with make_case(tmp_path) as case:
        use_vault(case, double)
        where = case.head
        take_down(case, double, fault)
        # Nothing is recorded: the service is not deployed, and what is there is not known.
        ran = await case.reconcile(expect=4)
        assert error(ran).startswith(f"error: {DATABASE}: SecretFetchFailed: secret source vault: ")
        assert case.deployed() == {"api": ["v1.0.0"]}
        assert case.ready(DATABASE)[:2] == ("Unknown", "SecretFetchFailed")
        assert case.ready("secrets/vault")[:2] == ("Unknown", "SecretFetchFailed")
        [finding] = (await case.plan("--detailed-exitcode", expect=1)).document["findings"]
        assert (finding["resource"], finding["unknown"]) == (DATABASE, True)
        # Back again: it is deployed. Down again: it stays as it is, a new release included.
        case.head = where
        double.recover()
        case.commit(case.good.replace("source: local", "source: vault"))
        await case.reconcile(expect=0)
        assert case.deployed() == BOTH
        case.release("v1.1.0")
        take_down(case, double, fault)
        during = await case.reconcile(expect=4)
        assert [step["resource"] for step in during.document["steps"]] == [API]
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0"]}
        assert case.status(DATABASE)["lastAppliedRevision"].startswith("v1.0.0@")
        assert "forget" not in during.stdout


def take_down(case: Case, double: InfisicalDouble, fault: Literal["closed", "failing"]) -> None:
    if fault == "failing":
        double.fail_with(server_error(), times=1000)
        return
    # The same host with a port on which nothing listens.
    case.head = case.head.replace(double.url, "http://127.0.0.1:1")
    case.commit(case.good.replace("source: local", "source: vault"))


async def test_a_fallback_alone_causes_no_step(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_case(tmp_path) as case:
        use_vault(case, double)
        case.head += "    fallback: [local]\n"
        case.commit(case.good.replace("source: local", "source: vault"))
        await case.reconcile(expect=0)
        case.env_file.write_text(f"DB_PASSWORD={canary('of-the-fallback')}\n")
        double.fail_with(server_error(), times=1000)
        ran = await case.reconcile(expect=0)
        assert ran.document["steps"] == []
        assert errors(ran) == []
        assert "Using fallback: source vault: local serves" in ran.stderr
        assert case.deployed() == BOTH
        status, reason, message = case.ready("secrets/vault")
        assert (status, reason) == ("False", "FallbackSecrets")
        assert message.startswith("local serves instead: secret source vault: ")
        # A release is a reason of its own; the fallback's values serve for it.
        case.release("v1.1.0")
        await case.reconcile(expect=0)
        assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0", "v1.1.0"]}


async def test_credentials_that_are_not_set_or_refused(tmp_path: Path, double: InfisicalDouble) -> None:
    async with make_case(tmp_path) as case:
        use_vault(case, double)
        unset = await case.reconcile(expect=4, INFISICAL_CLIENT_SECRET="")
        assert error(unset).startswith(f"error: {DATABASE}: SecretFetchFailed: secret source vault: ")
        assert "INFISICAL_CLIENT_SECRET" in error(unset)
        wrong = await case.reconcile(expect=4, INFISICAL_CLIENT_SECRET=canary("wrong"))
        assert error(wrong).startswith(f"error: {DATABASE}: SecretFetchFailed: secret source vault: ")
        assert case.deployed() == {"api": ["v1.0.0"]}
        # A refusal is an answer, not an outage.
        assert case.ready(DATABASE)[:2] == ("False", "SecretFetchFailed")


async def test_a_source_that_may_not_serve_an_environment(tmp_path: Path) -> None:
    """Found before anything is asked: it is an error of the spec."""
    async with make_case(tmp_path) as case:
        text = case.good.replace("kind: env_file,", "kind: env_file, environments: [production],")
        case.commit(text.replace("environments:\n", "environments:\n  production: {}\n", 1))
        ran = await case.reconcile(expect=3)
        assert "`local` may not serve staging" in errors(ran)[0]
        assert case.deployed() == {"api": ["v1.0.0"]}


async def test_a_refused_login_is_remembered_by_the_next_command(
    tmp_path: Path, double: InfisicalDouble
) -> None:
    """Three bad logins lock an identity out, and each command is a process of its own."""
    async with make_case(tmp_path) as case:
        use_vault(case, double)
        wrong = {"INFISICAL_CLIENT_SECRET": canary("wrong")}
        first = await case.reconcile(expect=4, **wrong)
        assert "it refused the login (status 401" in error(first)
        for _ in range(3):
            again = await case.reconcile(expect=4, **wrong)
            assert "it refused the login; no further login for " in error(again)
        assert double.bad_logins == 1
        kept = case.world.state / "refused-logins.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        # Other credentials are tried at once, and a file that is damaged stands in nobody's way.
        await case.reconcile(expect=0)
        kept.write_text("[")
        assert "it refused the login (status 401" in error(await case.reconcile(expect=4, **wrong))
