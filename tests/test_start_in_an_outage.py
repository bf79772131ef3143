"""A primary that starts while its secret source is away: what runs goes on as it is."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bad_world import BOTH, DATABASE, errors, make_case, use_vault
from tests.canaries import canary, search_tree
from tests.contracts.infisical_double import InfisicalDouble, server_error


def filled() -> InfisicalDouble:
    double = InfisicalDouble()
    double.secrets[double.project, "staging", "/"] = {"DB_PASSWORD": canary("db-password")}
    return double


@pytest.mark.parametrize("fault", ["closed", "failing"])
async def test_with_the_cache_on_disk_old_values_serve_and_cause_no_step(tmp_path: Path, fault: str) -> None:
    async with make_case(tmp_path) as case:
        case.world.environment["TRUEUP_SECRET_CACHE"] = "disk"
        with ExitStack() as running:
            double = running.enter_context(filled())
            use_vault(case, double, cache_ttl="0s")
            await case.reconcile(expect=0)
            assert case.deployed() == BOTH
            cache = case.world.state / "secret-cache"
            assert [path.stat().st_mode & 0o777 for path in (cache, *cache.iterdir())] == [0o700, 0o600]
            assert search_tree(cache) == []
            if fault == "failing":
                double.fail_with(server_error(), times=1000)
                double.fail_with(server_error(), on="login", times=1000)
            else:
                running.close()
            ran = await case.reconcile(expect=0)
            assert ran.document["steps"] == []
            assert errors(ran) == []
            assert "[Infisical] Using stale cache: source vault" in ran.stderr
            status, reason, message = case.ready("secrets/vault")
            assert (status, reason) == ("False", "StaleSecrets")
            assert "secret source vault: http://127.0.0.1:" in message
            assert case.deployed() == BOTH
            # A release is a reason of its own, and there is something to deploy it with.
            case.release("v1.1.0")
            await case.reconcile(expect=0)
            assert case.deployed() == {"api": ["v1.0.0", "v1.1.0"], "database": ["v1.0.0", "v1.1.0"]}
            assert search_tree(case.world.state / "secret-cache") == []


async def test_with_memory_alone_it_changes_nothing_either(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        with filled() as double:
            use_vault(case, double)
            await case.reconcile(expect=0)
            double.fail_with(server_error(), on="login", times=1000)
            ran = await case.reconcile(expect=4)
            assert ran.document["steps"] == []
            assert case.deployed() == BOTH
            assert case.ready(DATABASE)[:2] == ("Unknown", "SecretFetchFailed")
            assert case.status(DATABASE)["lastAppliedRevision"].startswith("v1.0.0@")
            assert not (case.world.state / "secret-cache").exists()


async def test_a_damaged_cache_and_another_key_are_as_if_there_were_none(tmp_path: Path) -> None:
    async with make_case(tmp_path) as case:
        case.world.environment["TRUEUP_SECRET_CACHE"] = "disk"
        with filled() as double:
            use_vault(case, double)
            await case.reconcile(expect=0)
            # Within the ttl nothing is asked, whatever the source would say.
            await case.reconcile(expect=0)
            assert double.calls("list") == 1
            [file] = (case.world.state / "secret-cache").iterdir()
            file.write_bytes(file.read_bytes()[:100])
            damaged = await case.reconcile(expect=0)
            assert damaged.document["steps"] == []
            assert damaged.stderr.count("is damaged, of another key or of other credentials") == 1
            (case.world.state / "secret-cache.key").unlink()
            assert (await case.reconcile(expect=0)).document["steps"] == []
            assert double.calls("list") == 3
            (case.world.state / "secret-cache.key").write_text("nonsense\n")
            refused = await case.reconcile(expect=1)
            assert errors(refused) == [
                f"error: {case.world.state}/secret-cache.key does not hold a key of the secret cache; "
                "remove it; the cache starts over"
            ]
