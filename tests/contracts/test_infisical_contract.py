"""What the reconciler relies on at Infisical, against the double, and against a real server if one is named.

For a real server set these variables; the identity needs the right to read, create and delete secrets and
folders in that environment. The suite works in a folder of its own at the root, and removes it.

    INFISICAL_TEST_URL            such as https://app.infisical.com
    INFISICAL_TEST_CLIENT_ID      of a machine identity with universal auth
    INFISICAL_TEST_CLIENT_SECRET
    INFISICAL_TEST_PROJECT_ID
    INFISICAL_TEST_ENVIRONMENT    a slug, such as dev
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import pytest

from reconciler.errors import SecretSourceUnavailable
from reconciler.secrets.errors import SourceDown, SourceRefused
from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.source import SourceContext
from reconciler.spec.model import EnvCredential, InfisicalSettings, SecretSource
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble

CLIENT_ID, CLIENT_SECRET = "CONTRACT_CLIENT_ID", "CONTRACT_CLIENT_SECRET"


class Server(Protocol):
    """A server with one empty folder that is ours."""

    url: str
    project: str
    environment: str
    folder: str
    client_id: str
    client_secret: str

    def put(self, values: Mapping[str, str]) -> None: ...


class DoubleServer:
    environment = "dev"
    folder = "/contract"

    def __init__(self, double: InfisicalDouble) -> None:
        self._double = double
        self.url, self.project = double.url, double.project
        self.client_id, self.client_secret = double.client_id, double.client_secret
        double.secrets[self.project, self.environment, "/"] = {"ELSEWHERE": "elsewhere"}

    def put(self, values: Mapping[str, str]) -> None:
        place = (self.project, self.environment, self.folder)
        self._double.secrets.setdefault(place, {}).update(values)


class RealServer:
    def __init__(self) -> None:
        from infisical_sdk import InfisicalSDKClient

        self.url = os.environ["INFISICAL_TEST_URL"]
        self.project = os.environ["INFISICAL_TEST_PROJECT_ID"]
        self.environment = os.environ["INFISICAL_TEST_ENVIRONMENT"]
        self.client_id = os.environ["INFISICAL_TEST_CLIENT_ID"]
        self.client_secret = os.environ["INFISICAL_TEST_CLIENT_SECRET"]
        name = f"trueup-contract-{uuid.uuid4().hex[:12]}"
        self.folder = f"/{name}"
        self._keys: list[str] = []
        self._client = InfisicalSDKClient(host=self.url, cache_ttl=None)
        self._client.auth.universal_auth.login(self.client_id, self.client_secret)
        self._id = self._client.folders.create_folder(name, self.environment, self.project).id

    def put(self, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self._client.secrets.create_secret_by_name(
                key, self.folder, self.environment, project_id=self.project, secret_value=value
            )
            self._keys.append(key)

    def remove(self) -> None:
        for key in self._keys:
            self._client.secrets.delete_secret_by_name(
                key, self.folder, self.environment, project_id=self.project
            )
        self._client.folders.delete_folder(self._id, self.environment, self.project)
        self._client.api.session.close()


@contextmanager
def _real() -> Iterator[Server]:
    server = RealServer()
    try:
        yield server
    finally:
        server.remove()


# Without an address there is nothing to skip: the suite is about the double alone then.
@pytest.fixture(params=["double", "real"] if "INFISICAL_TEST_URL" in os.environ else ["double"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "double":
        with InfisicalDouble() as double:
            yield DoubleServer(double)
        return
    with _real() as real:
        yield real


def make_source(server: Server, *, client_secret: str | None = None, **settings: str) -> InfisicalSource:
    """A source for the server's folder; `settings` replace what the folder's own would be."""
    chosen = {"environment_slug": server.environment, "secret_path": server.folder, **settings}
    spec = SecretSource(
        name="contract",
        kind="infisical",
        settings=InfisicalSettings(
            host=server.url,
            project_id=server.project,
            client_id=EnvCredential(name=CLIENT_ID),
            client_secret=EnvCredential(name=CLIENT_SECRET),
            **chosen,  # type: ignore[arg-type]
        ),
    )
    environ = {CLIENT_ID: server.client_id, CLIENT_SECRET: client_secret or server.client_secret}
    return InfisicalSource(spec, SourceContext.from_environ(environ))


async def plain(source: InfisicalSource) -> dict[str, str]:
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}


async def test_values_come_back_unchanged(server: Server) -> None:
    values = {
        "PLAIN": canary("contract"),
        "QUOTES": 'it\'s "quoted" \\ and $HOME `x`',
        "LINES": "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n".rstrip(),
        "UNICODE": "grüße – 你好",
    }
    server.put(values)
    assert await plain(make_source(server)) == values


async def test_a_reference_is_expanded(server: Server) -> None:
    server.put({"PASSWORD": "xyz", "URL": "postgres://u:${PASSWORD}@db"})
    assert (await plain(make_source(server)))["URL"] == "postgres://u:xyz@db"


async def test_a_reference_without_a_target_is_refused_by_name(server: Server) -> None:
    server.put({"GOOD": "good", "URL": "postgres://u:${NOWHERE}@db"})
    with pytest.raises(SourceRefused, match="unresolved in URL;"):
        await make_source(server).fetch("production")


async def test_an_empty_folder_is_unknown_and_not_empty(server: Server) -> None:
    with pytest.raises(SourceDown, match="no secrets for environment"):
        await make_source(server).fetch("production")


@pytest.mark.parametrize("wrong", [{"secret_path": "/no-such-folder"}, {"environment_slug": "no-such-slug"}])
async def test_a_wrong_place_is_never_empty(server: Server, wrong: dict[str, str]) -> None:
    server.put({"KEY": "value"})
    with pytest.raises(SecretSourceUnavailable):
        await make_source(server, **wrong).fetch("production")


async def test_a_wrong_client_secret_is_tried_once(server: Server) -> None:
    server.put({"KEY": "value"})
    source = make_source(server, client_secret=canary("wrong"))
    with pytest.raises(SourceRefused, match="refused the login"):
        await source.fetch("production")
    with pytest.raises(SourceRefused, match="no further login for"):
        await source.fetch("production")


async def test_one_token_serves_many_lists(server: Server) -> None:
    server.put({"KEY": "value"})
    source = make_source(server)
    assert await plain(source) == await plain(source) == {"KEY": "value"}
