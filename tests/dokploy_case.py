"""A released application whose service `shop` is a compose application in Dokploy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bad_world import Case, make_case
from tests.canaries import canary
from tests.contracts.dokploy_double import Application, DokployDouble
from tests.world import Ran

SHOP = "services/staging/shop"
FILE = "services:\n  web: {image: busybox, environment: {PASSWORD: $DB_PASSWORD}}\n"
OTHER = "  api: {repository: app, deploy: {kind: invoke, task: deploy}, environments: [staging]}\n"
PASSWORD = canary("db-password")


@dataclass
class Dokploy:
    """A case whose service `shop` is the application `abc` in Dokploy."""

    case: Case
    double: DokployDouble
    shop: Application

    def service(self, name: str = "shop", *, key: str = "{env: DOKPLOY_KEY}", more: str = "") -> str:
        return (
            f"  {name}: {{repository: app, environments: [staging], paths: [shop/**], env: {{LEVEL: debug}}, "
            f"secrets: [{{source: local, keys: [DB_PASSWORD]}}], deploy: {{kind: dokploy, compose_id: abc, "
            f'file: shop/compose.yaml, server: "{self.double.url}", api_key: {key}{more}}}}}\n'
        )

    def commit(self, *services: str) -> None:
        self.case.commit(self.case.head + "services:\n" + "".join(services))

    async def deploy(self) -> Ran:
        self.commit(self.service(), OTHER)
        ran = await self.case.reconcile(expect=0)
        assert self.runs() == (PASSWORD, FILE)
        return ran

    def runs(self) -> tuple[str, str]:
        """The password and the file that the containers have."""
        return (self.shop.running or {}).get("DB_PASSWORD", ""), self.shop.runs

    def hash(self) -> str:
        return (self.shop.running or {}).get("IAC_CONFIG_HASH", "")

    def status_hash(self) -> str:
        return str(self.case.status(SHOP)["configHash"])


@asynccontextmanager
async def make_dokploy(tmp_path: Path) -> AsyncIterator[Dokploy]:
    async with make_case(tmp_path) as case:
        with DokployDouble() as double:
            case.world.environment["DOKPLOY_KEY"] = double.key
            case.world.app.commit({"shop/compose.yaml": FILE})
            case.world.app.tag("v1.1.0")
            yield Dokploy(case, double, double.add("abc"))
