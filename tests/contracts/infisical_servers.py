"""The Infisical that the contract's suites run against: the double, and a real server if one is named.

For a real server set these variables; the identity needs the right to read, create, change and delete
secrets, folders and imports in that environment. The suites work in a folder of their own at the root, and
remove it.

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
from typing import Any, Protocol

from reconciler.secrets.infisical import InfisicalSource
from reconciler.secrets.source import SourceContext
from reconciler.spec.model import EnvCredential, InfisicalSettings, SecretSource
from tests.contracts.infisical_double import Import, InfisicalDouble

CLIENT_ID, CLIENT_SECRET = "CONTRACT_CLIENT_ID", "CONTRACT_CLIENT_SECRET"

SERVERS = ["double", "real"] if "INFISICAL_TEST_URL" in os.environ else ["double"]
"""Without an address there is nothing to skip: the suites are about the double alone then."""


class Server(Protocol):
    """A server with one empty folder that is ours."""

    url: str
    project: str
    environment: str
    folder: str
    client_id: str
    client_secret: str

    def put(self, values: Mapping[str, str], below: str = "") -> None:
        """Create secrets in our folder, or in a folder `below` it, such as `/a`, which is made."""

    def change(self, key: str, value: str) -> None: ...

    def import_from(self, below: str) -> None:
        """Let our folder import those below it, after the imports that it has."""

    def revoke(self, token: str) -> None: ...


class DoubleServer:
    environment = "dev"
    folder = "/contract"

    def __init__(self, double: InfisicalDouble) -> None:
        self._double = double
        self.url, self.project = double.url, double.project
        self.client_id, self.client_secret = double.client_id, double.client_secret
        double.secrets[self.project, self.environment, "/"] = {"ELSEWHERE": "elsewhere"}

    def put(self, values: Mapping[str, str], below: str = "") -> None:
        self._double.secrets.setdefault(self._place(below), {}).update(values)

    def change(self, key: str, value: str) -> None:
        self._double.secrets[self._place()][key] = value

    def import_from(self, below: str) -> None:
        self._double.imports.append(Import(self._place(), self._place(below)))

    def revoke(self, token: str) -> None:
        self._double.revoke_tokens()

    def _place(self, below: str = "") -> tuple[str, str, str]:
        return self.project, self.environment, self.folder + below


class RealServer:
    def __init__(self) -> None:
        from infisical_sdk import InfisicalSDKClient

        self.url = os.environ["INFISICAL_TEST_URL"]
        self.project = os.environ["INFISICAL_TEST_PROJECT_ID"]
        self.environment = os.environ["INFISICAL_TEST_ENVIRONMENT"]
        self.client_id = os.environ["INFISICAL_TEST_CLIENT_ID"]
        self.client_secret = os.environ["INFISICAL_TEST_CLIENT_SECRET"]
        self._client = InfisicalSDKClient(host=self.url, cache_ttl=None)
        self._client.auth.universal_auth.login(self.client_id, self.client_secret)
        name = f"trueup-contract-{uuid.uuid4().hex[:12]}"
        self.folder = f"/{name}"
        self._folders = [self._make_folder(name, "/")]
        self._below: set[str] = {""}
        self._keys: list[tuple[str, str]] = []

    def put(self, values: Mapping[str, str], below: str = "") -> None:
        if below not in self._below:
            self._folders.append(self._make_folder(below.strip("/"), self.folder))
            self._below.add(below)
        for key, value in values.items():
            self._client.secrets.create_secret_by_name(
                key, self.folder + below, self.environment, project_id=self.project, secret_value=value
            )
            self._keys.append((key, self.folder + below))

    def change(self, key: str, value: str) -> None:
        self._client.secrets.update_secret_by_name(
            key, self.folder, self.environment, project_id=self.project, secret_value=value
        )

    def import_from(self, below: str) -> None:
        self._post(
            "/api/v1/secret-imports",
            {
                "workspaceId": self.project,
                "environment": self.environment,
                "path": self.folder,
                "import": {"environment": self.environment, "path": self.folder + below},
            },
        )

    def revoke(self, token: str) -> None:
        self._post("/api/v1/auth/token/revoke", {"accessToken": token})

    def remove(self) -> None:
        for key, folder in self._keys:
            self._client.secrets.delete_secret_by_name(key, folder, self.environment, project_id=self.project)
        for folder, path in reversed(self._folders):
            self._client.folders.delete_folder(folder, self.environment, self.project, path)
        self._client.api.session.close()

    def _make_folder(self, name: str, path: str) -> tuple[str, str]:
        made = self._client.folders.create_folder(name, self.environment, self.project, path)
        return made.id, path

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        session = self._client.api.session
        session.post(self.url.rstrip("/") + path, json=body, timeout=120).raise_for_status()


@contextmanager
def running(kind: str) -> Iterator[Server]:
    """The server of that kind, one of SERVERS."""
    if kind == "double":
        with InfisicalDouble() as double:
            yield DoubleServer(double)
        return
    server = RealServer()
    try:
        yield server
    finally:
        server.remove()


def make_source(
    server: Server, context: SourceContext | None = None, *, client_secret: str | None = None, **settings: Any
) -> InfisicalSource:
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
            **chosen,
        ),
    )
    return InfisicalSource(spec, context or make_context(server, client_secret=client_secret))


def make_context(server: Server, *, client_secret: str | None = None) -> SourceContext:
    return SourceContext.from_environ(
        {CLIENT_ID: server.client_id, CLIENT_SECRET: client_secret or server.client_secret}
    )


async def plain(source: InfisicalSource) -> dict[str, str]:
    return {key: value.reveal() for key, value in (await source.fetch("production")).items()}
