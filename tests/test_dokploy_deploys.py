"""Compose applications in Dokploy, through the command line: deployed, healed, adopted and stopped."""

import json
from pathlib import Path

import pytest

from tests.bad_world import Case, error, errors
from tests.canaries import canary, may_hold
from tests.contracts.dokploy_double import HTML, Fault, slow_down
from tests.dokploy_case import FILE, OTHER, PASSWORD, SHOP, make_dokploy
from tests.processlist import ProcessList
from tests.world import Ran


def reasons(ran: Ran) -> dict[str, tuple[str, str]]:
    return {step["resource"]: (step["action"], step["reason"]) for step in ran.document["steps"]}


def outcome(ran: Ran, resource: str = SHOP) -> tuple[str, str]:
    found = ran.document["outcomes"][resource]
    return found["reason"], found["message"]


def rotate(case: Case, value: str) -> None:
    case.env_file.write_text(f"DB_PASSWORD={value}\n")


async def test_the_first_deploy_and_then_nothing(tmp_path: Path, process_list: ProcessList) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        ran = await dokploy.deploy()
        assert reasons(ran)[SHOP][0] == "deploy"
        assert dokploy.double.asked() == ["compose.update", "compose.deploy"]
        assert dokploy.shop.source == "raw"
        assert dokploy.hash() == dokploy.status_hash()
        assert dokploy.shop.running == {
            "DB_PASSWORD": PASSWORD,
            "LEVEL": "debug",
            "IAC_CONFIG_HASH": dokploy.hash(),
        }
        assert dokploy.case.status(SHOP)["inventory"] == {
            "server": dokploy.double.url,
            "compose_id": "abc",
            "api_key": "env:DOKPLOY_KEY",
            "environment": "staging",
        }
        await dokploy.case.plan("--detailed-exitcode", expect=0)
        again = await dokploy.case.reconcile(expect=0)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)
        assert dokploy.double.asked() == ["compose.update", "compose.deploy"]
        for secret in (PASSWORD, dokploy.double.key):
            for said in (ran, again):
                assert secret not in said.stdout + said.stderr
            assert not any(secret.encode() in content for content in dokploy.case.world.status().values())
    assert process_list.commands


async def test_another_secret_deploys_anew_with_its_hash(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        before = dokploy.hash()
        rotate(dokploy.case, canary("rotated"))
        ran = await dokploy.case.reconcile(expect=0)
        assert reasons(ran) == {SHOP: ("deploy", "changed: secret DB_PASSWORD")}
        assert dokploy.runs()[0] == canary("rotated")
        assert dokploy.hash() == dokploy.status_hash() != before


async def test_a_tag_over_the_same_files_deploys_nothing(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        dokploy.case.world.app.commit({"elsewhere": "x"})
        dokploy.case.world.app.tag("v1.2.0")
        ran = await dokploy.case.reconcile(expect=0)
        assert SHOP not in reasons(ran)
        assert dokploy.double.asked() == ["compose.update", "compose.deploy"]


@pytest.mark.parametrize(
    ("how", "drift"),
    [
        ("a variable", "its variables or its compose file were changed in Dokploy"),
        ("the file", "its variables or its compose file were changed in Dokploy"),
        ("the hash", "its IAC_CONFIG_HASH is another than was deployed"),
        ("everything", "it has no IAC_CONFIG_HASH"),
        ("legacy", "its IAC_CONFIG_HASH is one of an earlier tool"),
        ("the source", "it was set to another source in Dokploy"),
        ("stopped", "it was stopped in Dokploy"),
    ],
)
async def test_what_somebody_changed_in_dokploy_is_put_right(tmp_path: Path, how: str, drift: str) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        shop, env = dokploy.shop, dokploy.shop.env or ""
        match how:
            case "a variable":
                shop.env = env.replace("debug", "trace")
            case "the file":
                shop.file += "# mine\n"
            case "the hash":
                shop.env = env.replace("IAC_CONFIG_HASH=v1:", "IAC_CONFIG_HASH=v1:0")
            case "everything":
                shop.env = ""
            case "legacy":
                shop.env = f"IAC_CONFIG_HASH={'0' * 64}\n"
            case "the source":
                shop.source = "github"
            case _:
                shop.status, shop.running = "idle", None
        planned = await dokploy.case.plan("--detailed-exitcode", expect=2)
        assert reasons(planned) == {SHOP: ("deploy", f"drift: {drift}")}
        await dokploy.case.reconcile(expect=0)
        assert dokploy.runs() == (PASSWORD, FILE)
        assert shop.env == env
        assert (await dokploy.case.reconcile(expect=0)).document["steps"] == []


async def test_what_an_earlier_tool_deployed_is_deployed_once(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        dokploy.shop.env, dokploy.shop.status = f"A=1\nIAC_CONFIG_HASH={'0f' * 32}\n", "done"
        ran = await dokploy.deploy()
        assert "one of an earlier tool, which one deploy replaces" in reasons(ran)[SHOP][1]
        assert (await dokploy.case.reconcile(expect=0)).document["steps"] == []


async def test_what_an_earlier_tool_deployed_is_adopted(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        shop = dokploy.shop
        shop.env, shop.status = f"A=1\nIAC_CONFIG_HASH={'0f' * 32}\n", "done"
        dokploy.commit(dokploy.service(), OTHER)
        ran = await dokploy.case.reconcile("--adopt", SHOP, expect=0)
        assert reasons(ran)[SHOP] == ("adopt", "taken over as it is")
        # It is marked, and nothing that runs was touched.
        assert dokploy.double.asked() == ["compose.update"]
        assert (shop.running, shop.deployments, shop.queued) == (None, [], [])
        assert f"IAC_CONFIG_HASH={dokploy.status_hash()}" in (shop.env or "")
        assert dokploy.case.ready(SHOP)[0] == "True"
        assert dokploy.case.status(SHOP)["inventory"]["compose_id"] == "abc"
        conditions = {each["type"]: each for each in dokploy.case.status(SHOP)["conditions"]}
        assert conditions["SecretsVerified"]["message"] == (
            "what runs there was taken over as it is; the next deploy settles it"
        )
        again = await dokploy.case.reconcile(expect=0)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)
        # From now on it is like any other.
        rotate(dokploy.case, canary("rotated"))
        await dokploy.case.reconcile(expect=0)
        assert dokploy.runs() == (canary("rotated"), FILE)
        assert "SecretsVerified" not in {each["type"] for each in dokploy.case.status(SHOP)["conditions"]}


async def test_what_cannot_be_adopted(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        dokploy.commit(dokploy.service(), OTHER)
        for resource, said in {
            "services/staging/api": "nothing of it can be taken over without a deploy",
            "services/staging/shopp": "did you mean services/staging/shop?",
        }.items():
            ran = await dokploy.case.reconcile("--adopt", resource, expect=1)
            assert said in error(ran)
        # Nothing runs there yet.
        ran = await dokploy.case.reconcile("--adopt", SHOP, expect=4)
        assert outcome(ran)[0] == "DeployFailed"
        assert "its state in Dokploy is idle and not done" in outcome(ran)[1]
        assert dokploy.double.asked() == []
        await dokploy.deploy()
        # Where nothing is due, nothing is adopted.
        ran = await dokploy.case.reconcile("--adopt", SHOP, expect=0)
        assert ran.document["steps"] == []


@pytest.mark.parametrize(("ends", "how"), [("error", "failed in Dokploy"), ("cancelled", "was cancelled")])
async def test_a_deployment_that_fails_is_told_with_dokploys_words_masked(
    tmp_path: Path, ends: str, how: str
) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        dokploy.double.ends = ends  # type: ignore[assignment]
        dokploy.double.says = f"no login with {PASSWORD} or {dokploy.double.key}\x1b[31m"
        dokploy.commit(dokploy.service(), OTHER)
        ran = await dokploy.case.reconcile(expect=4)
        reason, message = outcome(ran)
        assert reason == "DeployFailed"
        assert f"the deployment of v1.1.0 {how}" in message
        assert "no login with *** or ***" in message
        assert "/etc/dokploy/logs/shop/" in message
        assert dokploy.case.ready(SHOP)[:2] == ("False", "DeployFailed")
        # Something of it may be there: it is found again.
        assert dokploy.case.status(SHOP)["inventory"]["compose_id"] == "abc"
        dokploy.double.ends = "done"
        again = await dokploy.case.reconcile(expect=0)
        assert reasons(again) == {SHOP: ("deploy", "the last attempt failed")}
        assert dokploy.runs() == (PASSWORD, FILE)


@pytest.mark.parametrize("ends", ["never", "stuck"])
async def test_a_deployment_that_does_not_end_in_time(tmp_path: Path, ends: str) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        dokploy.double.ends = ends  # type: ignore[assignment]
        dokploy.commit(dokploy.service(more=", timeout: 2s"), OTHER)
        ran = await dokploy.case.reconcile(expect=4)
        assert outcome(ran)[0] == "Timeout"
        assert "Dokploy did not finish the deployment within 2s" in outcome(ran)[1]


async def test_a_server_that_is_down_is_unknown_and_nothing_follows_from_it(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        faults = {
            Fault(502): "DokployUnavailable",
            HTML: "DokployUnavailable",
            slow_down(600): "DokployUnavailable",
            Fault(401, body=b'{"message": "Unauthorized"}'): "DokployRefused",
            Fault(404, body=b'{"message": "Compose not found", "code": "NOT_FOUND"}'): "DokployRefused",
        }
        for fault, reason in faults.items():
            dokploy.double.fail_with(fault, on="compose.one")
            ran = await dokploy.case.reconcile(expect=4)
            assert ran.document["steps"] == []
            assert dokploy.case.ready(SHOP)[:2] == ("Unknown", reason)
        assert dokploy.double.asked() == ["compose.update", "compose.deploy"]
        again = await dokploy.case.reconcile(expect=0)
        assert again.document["steps"] == []
        assert dokploy.case.ready(SHOP)[0] == "True"


async def test_without_its_key_it_is_unknown(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        del dokploy.case.world.environment["DOKPLOY_KEY"]
        ran = await dokploy.case.reconcile(expect=4)
        assert ran.document["steps"] == []
        assert dokploy.case.ready(SHOP)[0] == "Unknown"
        assert any("DOKPLOY_KEY" in line for line in errors(ran))


@pytest.mark.parametrize("source", ["file", "secret"])
async def test_the_key_comes_from_where_the_spec_says(tmp_path: Path, source: str) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        del dokploy.case.world.environment["DOKPLOY_KEY"]
        if source == "file":
            path = may_hold(tmp_path / "dokploy.key")
            path.write_text(dokploy.double.key + "\n")
            path.chmod(0o600)
            service = dokploy.service(key=f'{{file: "{path}"}}')
        else:
            with dokploy.case.env_file.open("a") as file:
                file.write(f"DOKPLOY_KEY={dokploy.double.key}\n")
            service = dokploy.service(key="{secret: local/DOKPLOY_KEY}")
        dokploy.commit(service, OTHER)
        await dokploy.case.reconcile(expect=0)
        assert dokploy.runs() == (PASSWORD, FILE)
        assert "DOKPLOY_KEY" not in (dokploy.shop.running or {})
        dokploy.commit(OTHER)
        await dokploy.case.reconcile(expect=0)
        assert dokploy.shop.status == "idle"


async def test_a_pass_that_is_killed_before_the_deployment_is_repeated(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        rotate(dokploy.case, canary("rotated"))
        dokploy.double.fail_with(Fault(hold=True), on="compose.deploy")
        await dokploy.case.world.kill_during(dokploy.double.holding.wait, "reconcile")
        dokploy.double.release()
        # File, variables and hash are the new ones, and nothing runs with them.
        assert canary("rotated") in (dokploy.shop.env or "")
        assert dokploy.runs()[0] == PASSWORD
        ran = await dokploy.case.reconcile(expect=0)
        assert reasons(ran) == {SHOP: ("deploy", "a step was interrupted")}
        assert dokploy.runs()[0] == canary("rotated")
        assert dokploy.hash() == dokploy.status_hash()


async def test_what_left_the_spec_is_stopped_and_stays(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        dokploy.commit(OTHER)
        dokploy.double.fail_with(Fault(503), on="compose.one")
        ran = await dokploy.case.reconcile(expect=4)
        assert outcome(ran)[0] == "PruneFailed"
        assert dokploy.shop.status == "done"
        ran = await dokploy.case.reconcile(expect=0)
        assert reasons(ran) == {SHOP: ("remove", "no longer in the spec")}
        assert (dokploy.shop.status, dokploy.shop.running) == ("idle", None)
        assert "abc" in dokploy.double.applications
        assert f"{SHOP}.yaml" not in dokploy.case.world.status()


async def test_an_application_that_was_never_written_to_is_not_stopped(tmp_path: Path) -> None:
    """The id was a mistake, and the deploy failed; taking it out must not end what others run there."""
    async with make_dokploy(tmp_path) as dokploy:
        shop = dokploy.shop
        shop.env, shop.status, shop.runs = "THEIRS=1", "done", "services: {}"
        shop.running, shop.writes_env_file = {"THEIRS": "1"}, False
        dokploy.commit(dokploy.service(), OTHER)
        await dokploy.case.reconcile(expect=4)
        dokploy.commit(OTHER)
        await dokploy.case.reconcile(expect=0)
        assert (shop.status, shop.running, shop.env) == ("done", {"THEIRS": "1"}, "THEIRS=1")
        assert f"{SHOP}.yaml" not in dokploy.case.world.status()


async def test_an_application_that_others_took_over_is_not_stopped(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        dokploy.shop.env = "THEIRS=1"
        dokploy.commit(OTHER)
        await dokploy.case.reconcile(expect=0)
        assert dokploy.shop.status == "done"
        assert f"{SHOP}.yaml" not in dokploy.case.world.status()


async def test_what_somebody_deleted_in_dokploy_has_left(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        del dokploy.double.applications["abc"]
        dokploy.commit(OTHER)
        await dokploy.case.reconcile(expect=0)
        assert f"{SHOP}.yaml" not in dokploy.case.world.status()


async def test_an_application_that_another_service_has_is_not_stopped(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        dokploy.commit(dokploy.service("site"), OTHER)
        ran = await dokploy.case.reconcile(expect=0)
        assert reasons(ran)[SHOP] == (
            "forget",
            "no longer in the spec; what it deployed stays, as services/staging/site is there now",
        )
        assert "compose.stop" not in dokploy.double.asked()
        assert dokploy.runs() == (PASSWORD, FILE)


async def test_two_services_cannot_have_one_application(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        same = dokploy.service("site").replace(dokploy.double.url, dokploy.double.url + "/api/")
        dokploy.commit(dokploy.service(), same, OTHER)
        world = dokploy.case.world
        ran = await world.trueup("validate", "--spec-repo", world.spec.url, expect=3)
        assert "the same application in Dokploy" in ran.stderr + ran.stdout
        assert "another `deploy.compose_id`" in ran.stderr + ran.stdout


async def test_an_application_that_writes_no_variables_is_refused(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        dokploy.shop.writes_env_file = False
        dokploy.commit(dokploy.service(), OTHER)
        ran = await dokploy.case.reconcile(expect=4)
        assert "set to write no environment file" in outcome(ran)[1]
        # Nothing of it was touched, so that it may be another's: it is not stopped either.
        dokploy.shop.status = "done"
        dokploy.commit(OTHER)
        ran = await dokploy.case.reconcile(expect=0)
        assert reasons(ran)[SHOP][0] == "forget"
        assert dokploy.double.asked() == []


async def test_nothing_of_a_secret_is_in_the_journal(tmp_path: Path) -> None:
    async with make_dokploy(tmp_path) as dokploy:
        await dokploy.deploy()
        ran = await dokploy.case.world.trueup("secrets", "audit", "-o", "json")
        assert "DB_PASSWORD" in json.dumps(ran.document)
        for path in dokploy.case.world.state.rglob("*"):
            if path.is_file() and path.name != "master.key":
                content = path.read_bytes()
                assert PASSWORD.encode() not in content
                assert dokploy.double.key.encode() not in content
