"""What the reconciler relies on at Dokploy, against the double, and against a real one if it is named.

For a real one set these variables. The application is one for this purpose alone: the suite replaces its
variables and its compose file, deploys it and stops it. Tests that are called `test_trap_…` are about what
is easily overlooked.

    DOKPLOY_TEST_URL          its address, such as https://dokploy.example.org
    DOKPLOY_TEST_KEY          a key that may see, change and deploy the application
    DOKPLOY_TEST_COMPOSE_ID   a compose application
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import trio

from reconciler import rest_client
from reconciler.deploy import dokploy_client
from reconciler.deploy.dokploy import _wait
from reconciler.deploy.dokploy_client import Dokploy, DokployDown, DokployGone, DokployRefused
from reconciler.deploy.dokploy_env import hash_in, is_as_written, is_legacy, render
from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.values import Secret
from tests.canaries import canary
from tests.contracts.dokploy_double import HTML, DokployDouble, Fault, slow_down, variables_in

HASH = "v1:066d4dcb:1f0c:2e7b"
FILE = "services:\n  web:\n    image: busybox\n    command: sleep 600\n    environment: {ONE: $ONE}\n"


@dataclass
class Place:
    url: str
    key: str
    compose_id: str
    double: DokployDouble | None = None

    def dokploy(self, key: str | None = None, *, patience: float = 60.0) -> Dokploy:
        return Dokploy(self.url, Secret(key or self.key), patience=patience)


@pytest.fixture(params=["double", "real"] if "DOKPLOY_TEST_URL" in os.environ else ["double"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "double":
        with DokployDouble() as double:
            double.add("shop")
            yield Place(double.url, double.key, "shop", double)
        return
    yield Place(
        os.environ["DOKPLOY_TEST_URL"], os.environ["DOKPLOY_TEST_KEY"], os.environ["DOKPLOY_TEST_COMPOSE_ID"]
    )


@pytest.fixture
async def double() -> AsyncIterator[DokployDouble]:
    with DokployDouble() as double:
        double.add("shop")
        yield double


def client(double: DokployDouble, *, patience: float = 60.0) -> Dokploy:
    return Dokploy(double.url, Secret(double.key), patience=patience)


async def test_variables_and_file_come_back_as_they_were_written(place: Place) -> None:
    env = render({"ONE": canary("written"), "TWO": "grüße # 'all' $HOME\nline"}, HASH, FILE)
    async with place.dokploy() as dokploy:
        await dokploy.update(place.compose_id, env=Secret(env), file=Secret(FILE))
        found = await dokploy.application(place.compose_id)
    assert (found.env.reveal(), found.file.reveal()) == (env, FILE)
    assert found.is_raw
    assert found.writes_env_file
    assert hash_in(found.env.reveal()) == HASH
    assert is_as_written(found.env.reveal(), found.file.reveal())


async def test_a_deployment_is_queued_found_by_its_description_and_stopped(place: Place) -> None:
    env = Secret(render({"ONE": canary("deployed")}, HASH, FILE))
    if place.double is not None:
        place.double.ends = "error"
        await deploy(place, "an older one")
        place.double.ends, place.double.takes = "done", 1
    async with place.dokploy() as dokploy:
        await dokploy.update(place.compose_id, env=env, file=Secret(FILE))
    assert await deploy(place, "trueup contract suite") == "done"
    async with place.dokploy() as dokploy:
        assert (await dokploy.application(place.compose_id)).status == "done"
        await dokploy.stop(place.compose_id)
        stopped = await dokploy.application(place.compose_id)
    assert (stopped.status, stopped.env.reveal()) == ("idle", env.reveal())


async def deploy(place: Place, mark: str) -> str:
    """Deploys, and gives how it ended."""
    mark = f"{mark} {os.urandom(4).hex()}"
    async with place.dokploy() as dokploy:
        await dokploy.deploy(place.compose_id, title="trueup", description=mark)
        with trio.fail_after(600):
            while True:
                for found in await dokploy.deployments(place.compose_id):
                    if found.description == mark and found.status != "running":
                        return found.status
                if place.double is None:
                    await trio.sleep(2)


async def test_a_wrong_key_is_refused(place: Place) -> None:
    async with place.dokploy(canary("wrong-key")) as dokploy:
        with pytest.raises(DokployRefused, match=r"does not accept the key.*\(http 401\)"):
            await dokploy.application(place.compose_id)


async def test_an_application_that_is_not_there_is_gone_and_not_empty(place: Place) -> None:
    async with place.dokploy() as dokploy:
        with pytest.raises(DokployGone, match=r"no such compose application \(http 404\)"):
            await dokploy.application("there-is-no-such-id")


async def test_a_request_that_lacks_something_is_refused(place: Place) -> None:
    async with place.dokploy() as dokploy:
        with pytest.raises(DokployRefused, match=r"does not accept the request \(http 400\)"):
            await dokploy.deployments("")


# --- what only the double can show ----------------------------------------------------------------


async def test_trap_a_404_of_another_server_is_not_gone(double: DokployDouble) -> None:
    """A removal takes `gone` for done: a proxy that knows no such path must not be believed."""
    double.fail_with(Fault(404, body=b"<html>not found"), on="compose.one")
    double.fail_with(Fault(404, body=b'{"message": "Not found", "code": "NOT_FOUND"}'), on="compose.one")
    async with client(double) as dokploy:
        for _ in range(2):
            with pytest.raises(DokployRefused) as raised:
                await dokploy.application("shop")
            assert not isinstance(raised.value, DokployGone)


async def test_trap_a_page_with_status_200_is_no_answer(double: DokployDouble) -> None:
    double.fail_with(HTML, on="compose.one")
    double.fail_with(HTML, on="deployment.allByCompose")
    async with client(double) as dokploy:
        with pytest.raises(DokployDown, match="not what Dokploy's API answers"):
            await dokploy.application("shop")
        with pytest.raises(DokployDown, match="not what Dokploy's API answers"):
            await dokploy.deployments("shop")


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"composeId": "other", "env": ""}', b"null", b"", b"[" * 9999]
)
async def test_trap_an_answer_about_something_else_is_none(double: DokployDouble, body: bytes) -> None:
    double.fail_with(Fault(200, body=body), on="compose.one")
    async with client(double) as dokploy:
        with pytest.raises(DokployDown, match="not what Dokploy's API answers"):
            await dokploy.application("shop")


async def test_trap_an_error_with_status_200_is_none(double: DokployDouble) -> None:
    said = Fault(200, body=b'{"message": "Unauthorized", "code": "UNAUTHORIZED"}')
    double.fail_with(said, on="compose.stop")
    async with client(double) as dokploy:
        with pytest.raises(DokployDown):
            await dokploy.stop("shop")


async def test_trap_the_cloud_answers_a_deploy_with_true(double: DokployDouble) -> None:
    double.answers_true = True
    async with client(double) as dokploy:
        await dokploy.deploy("shop", title="t", description="d")
        assert [each.description for each in await dokploy.deployments("shop")] == ["d"]


async def test_trap_an_older_deployment_that_failed_is_not_ours(double: DokployDouble) -> None:
    double.ends = "error"
    async with client(double) as dokploy:
        await dokploy.deploy("shop", title="t", description="older")
        await dokploy.deployments("shop")
        double.ends = "done"
        await dokploy.deploy("shop", title="t", description="ours")
        ended = await _wait(dokploy, "shop", "ours")
    assert (ended.description, ended.status) == ("ours", "done")
    assert [each.status for each in double.applications["shop"].deployments] == ["done", "error"]


async def test_a_rate_limit_is_waited_for(double: DokployDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dokploy_client, "SHORT_WAIT", 0.0)
    double.fail_with(slow_down(0), on="compose.one")
    async with client(double) as dokploy:
        assert (await dokploy.application("shop")).status == "idle"
    assert len(double.requests) == 2


async def test_a_rate_limit_that_asks_for_too_long_is_an_outage_that_says_how_long(
    double: DokployDouble,
) -> None:
    double.fail_with(slow_down(500), on="compose.one")
    async with client(double, patience=30.0) as dokploy:
        with pytest.raises(DokployDown, match=r"asks to slow down \(http 429\)") as raised:
            await dokploy.application("shop")
    assert raised.value.retry_after == 500.0
    assert len(double.requests) == 1


async def test_a_rate_limit_may_give_a_date(double: DokployDouble) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)
    double.fail_with(Fault(429, (("Retry-After", until),)), on="compose.one")
    async with client(double) as dokploy:
        with pytest.raises(DokployDown) as raised:
            await dokploy.application("shop")
    assert raised.value.retry_after == dokploy_client.LONG_WAIT


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(500), DokployDown, "Dokploy has a fault (http 500)"),
        (Fault(503), DokployDown, "Dokploy has a fault (http 503)"),
        (Fault(403), DokployRefused, "the key has no right to this (http 403)"),
        (Fault(302, (("Location", "https://example.org/"),)), DokployRefused, "redirects or refuses"),
    ],
)
async def test_other_answers(double: DokployDouble, fault: Fault, kind: type[Exception], said: str) -> None:
    double.fail_with(fault, on="compose.one")
    async with client(double) as dokploy:
        with pytest.raises(kind) as raised:
            await dokploy.application("shop")
    assert said in str(raised.value)
    assert len(double.requests) == 1


async def test_a_server_that_hangs_is_left_after_a_deadline(
    double: DokployDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_client, "DEADLINE", 0.05)
    double.fail_with(Fault(hold=True), on="compose.one")
    async with client(double) as dokploy:
        with pytest.raises(DokployDown, match="no answer in time"):
            await dokploy.application("shop")
    double.release()


async def test_an_answer_that_is_too_large_is_none(
    double: DokployDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dokploy_client, "MAX_ANSWER", 100)
    double.applications["shop"].file = "x" * 200
    async with client(double) as dokploy:
        with pytest.raises(DokployDown, match="its answer is too large"):
            await dokploy.application("shop")


async def test_nothing_listens(double: DokployDouble) -> None:
    async with Dokploy("http://127.0.0.1:1", Secret(double.key), patience=1) as dokploy:
        with pytest.raises(DokployDown, match="it cannot be reached"):
            await dokploy.application("shop")


async def test_the_key_is_sent_over_https_or_to_this_machine_alone() -> None:
    with pytest.raises(DokployRefused, match="plain http"):
        async with Dokploy("http://192.0.2.1", Secret(canary("key")), patience=1):
            pass


async def test_a_key_that_no_header_can_hold_is_not_shown(double: DokployDouble) -> None:
    with pytest.raises(DokployRefused, match="no HTTP header can hold") as raised:
        async with Dokploy(double.url, Secret(canary("key") + "\nx"), patience=1):
            pass
    assert canary("key") not in repr(raised.value)


@pytest.mark.parametrize("address", ["{}", "{}/", "{}/api", "{}/api/"])
async def test_the_address_may_have_the_path_of_the_api(double: DokployDouble, address: str) -> None:
    async with Dokploy(address.format(double.url), Secret(double.key), patience=1) as dokploy:
        assert (await dokploy.application("shop")).status == "idle"


# --- the text of the variables --------------------------------------------------------------------

VALUES = {
    "PLAIN": "value",
    "EMPTY": "",
    "SPACES": "  two  ",
    "HASH_SIGN": "a # b",
    "DOLLAR": "$HOME ${HOME} $$",
    "SINGLE": "it's",
    "BOTH": 'it\'s "quoted"',
    "BACKTICK": "`x` and 'y'",
    "BACKSLASH": "a\\nb \\ c",
    "LINES": "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n",
    "UNICODE": "grüße – 你好",
    "EQUALS": "a=b=c",
    "a.b-c": "dotted",
}


def test_trap_values_reach_containers_unchanged() -> None:
    assert variables_in(render(VALUES, HASH, FILE)) == {**VALUES, "IAC_CONFIG_HASH": HASH}


@pytest.mark.parametrize(
    "value", ["a\rb", "${{project.KEY}}", "ends with \\", "all ' ` \" of them", "' ` \\n \\r"]
)
def test_trap_what_no_quoting_keeps_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(VariableUnusable) as raised:
        render({"ODD": canary("odd") + value}, HASH, FILE)
    assert "ODD" in str(raised.value)
    assert canary("odd") not in str(raised.value)


def test_the_hash_is_no_variable_of_the_spec() -> None:
    with pytest.raises(VariableUnusable, match="trueup's own"):
        render({"IAC_CONFIG_HASH": "x"}, HASH, FILE)


@pytest.mark.parametrize("name", ["with space", "1ST", "", "A=B", "A\nB"])
def test_a_name_that_dotenv_cannot_read_is_refused(name: str) -> None:
    with pytest.raises(VariableUnusable, match="cannot take a variable of the name"):
        render({name: "x"}, HASH, FILE)


def test_what_somebody_changed_is_seen() -> None:
    env = render({"ONE": "1"}, HASH, FILE)
    assert is_as_written(env, FILE)
    assert not is_as_written(env.replace("'1'", "'2'"), FILE)
    assert not is_as_written(env + "TWO=2\n", FILE)
    assert not is_as_written(env, FILE + "\n")
    assert not is_as_written(env.partition("\n")[2], FILE)
    assert not is_as_written("", "")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("", None),
        ("OTHER=x\n# IAC_CONFIG_HASH=no\n", None),
        ("IAC_CONFIG_HASH=abc", "abc"),
        ("A=1\r\nIAC_CONFIG_HASH='abc'\r\nB=2\r\n", "abc"),
        (' export IAC_CONFIG_HASH = "abc" \n', "abc"),
        ("IAC_CONFIG_HASH=old\nIAC_CONFIG_HASH=new\n", "new"),
        ("IAC_CONFIG_HASH=\nB=2\n", ""),
    ],
)
def test_the_hash_that_is_there(env: str, expected: str | None) -> None:
    assert hash_in(env) == expected


def test_a_bare_sha256_is_of_an_earlier_tool() -> None:
    assert is_legacy("0" * 64)
    assert not is_legacy(HASH)
    assert not is_legacy("0" * 63)
    assert not is_legacy("Z" * 64)
