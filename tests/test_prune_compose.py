"""Services that leave the spec, through the command line: what their driver takes away, and when it waits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bad_world import Case, error, make_case
from tests.contracts.docker_host import DockerHost, double_host

COMPOSE = 'services:\n  web: {image: busybox, environment: {RELEASE: "${TRUEUP_TAG}"}}\nvolumes: {data: {}}\n'
INVOKED = "  api: {repository: app, deploy: {kind: invoke, task: deploy}, environments: [staging]}\n"


def composed(name: str, more: str = "", environment: str = "staging") -> str:
    return (
        f"  {name}: {{repository: app, deploy: {{kind: compose, file: shop/compose.yaml}}, "
        f"environments: [{environment}]{more}}}\n"
    )


@dataclass
class Shop:
    """A case whose services run in a docker."""

    case: Case
    docker: DockerHost

    def commit(self, *services: str, more: str = "", head: str = "") -> None:
        self.case.commit((head or self.case.head) + "services:\n" + "".join(services) + more)

    def running(self) -> list[str]:
        projects = ("staging-api", "staging-db", "staging-shop", "staging-web", "production-shop")
        return [project for project in projects if self.docker.containers(project)]

    def recorded(self) -> list[str]:
        return sorted(
            name.removesuffix(".yaml").removeprefix("services/")
            for name in self.case.world.status()
            if name.startswith("services/")
        )


@asynccontextmanager
async def make_shop(tmp_path: Path) -> AsyncIterator[Shop]:
    docker = double_host(tmp_path / "docker-host")
    async with make_case(tmp_path) as case:
        case.world.environment["PATH"] = docker.path
        case.world.app.commit({"shop/compose.yaml": COMPOSE})
        case.world.app.tag("v1.1.0")
        yield Shop(case, docker)


async def test_a_service_that_left_the_spec_is_removed(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("db"), composed("shop", ", depends_on: [db]"), INVOKED)
        await shop.case.reconcile(expect=0)
        assert shop.running() == ["staging-db", "staging-shop"]
        status = shop.case.status("services/staging/shop")
        assert status["inventory"] == {"project": "staging-shop", "dependsOn": "services/staging/db"}
        assert shop.docker.variables("staging-shop") == {"RELEASE": "v1.1.0"}
        await shop.case.plan("--detailed-exitcode", expect=0)

        shop.commit(INVOKED, more="limits: {max_prune: 70%}\n")
        planned = await shop.case.plan("--detailed-exitcode", expect=2)
        assert [(step["action"], step["resource"]) for step in planned.document["steps"]] == [
            ("remove", "services/staging/shop"),
            ("remove", "services/staging/db"),
        ]
        assert shop.running() == ["staging-db", "staging-shop"]
        await shop.case.reconcile(expect=0)
        assert shop.running() == []
        assert shop.recorded() == ["staging/api"]
        # Volumes stay.
        assert shop.docker.state is not None
        [daemon] = shop.docker.state.glob("daemon-*.json")
        assert '"volumes": ["staging-db_data", "staging-shop_data"]' in daemon.read_text()
        again = await shop.case.reconcile(expect=0)
        assert (again.document["steps"], again.document["statusCommit"]) == ([], None)


async def test_containers_that_are_gone_come_back(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("shop"))
        await shop.case.reconcile(expect=0)
        shop.docker.run("compose", "--project-name", "staging-shop", "down")
        # A plan may be made on any machine: it does not ask the docker of the one it is made on.
        await shop.case.plan("--detailed-exitcode", expect=0)
        healed = await shop.case.reconcile(expect=0)
        assert [step["reason"] for step in healed.document["steps"]] == ["no container of it is there"]
        assert shop.running() == ["staging-shop"]
        shop.docker.take_away("daemon")
        unknown = await shop.case.reconcile(expect=4)
        assert unknown.document["steps"] == []
        assert shop.case.ready("services/staging/shop")[:2] == ("Unknown", "DockerUnavailable")


async def test_a_removal_waits_for_a_docker_that_does_not_answer(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("shop"), INVOKED)
        await shop.case.reconcile(expect=0)
        shop.commit(INVOKED)
        shop.docker.take_away("daemon")
        ran = await shop.case.reconcile(expect=4)
        failed = ran.document["outcomes"]["services/staging/shop"]
        assert (failed["state"], failed["reason"]) == ("failed", "DockerUnavailable")
        assert shop.case.ready("services/staging/shop")[:2] == ("False", "DockerUnavailable")
        shop.docker.give_back("daemon")
        # It comes back into the spec instead: nobody knows how far the removal got.
        shop.commit(composed("shop"), INVOKED)
        back = await shop.case.reconcile(expect=0)
        assert [step["resource"] for step in back.document["steps"]] == ["services/staging/shop"]
        shop.commit(INVOKED)
        await shop.case.reconcile(expect=0)
        assert (shop.running(), shop.recorded()) == ([], ["staging/api"])


async def test_another_docker_is_left_alone(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("shop"), INVOKED)
        await shop.case.reconcile(expect=0)
        shop.commit(INVOKED)
        there = {"DOCKER_HOST": "tcp://docker.example:2376"}
        ran = await shop.case.reconcile(expect=4, **there)
        failed = ran.document["outcomes"]["services/staging/shop"]
        assert (failed["state"], failed["reason"]) == ("failed", "PruneFailed")
        assert "to another docker (the default one) than the primary uses" in failed["message"]
        assert shop.case.ready("services/staging/shop")[:2] == ("False", "PruneFailed")
        assert shop.running() == ["staging-shop"]
        await shop.case.reconcile(expect=0)
        assert shop.running() == []


async def test_never_all_of_an_environment_without_force(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        more = "  production:\n    release: {from: main, cut: external}\nsecret_sources:"
        head = shop.case.head.replace("secret_sources:", more)
        production = composed("shop", environment="production")
        shop.commit(composed("shop", environment="staging, production"), composed("web"), head=head)
        await shop.case.reconcile(expect=0)
        assert shop.running() == ["staging-shop", "staging-web", "production-shop"]
        shop.commit(production, head=head, more="limits: {max_prune: 70%}\n")
        ran = await shop.case.reconcile(expect=4)
        assert "any of the 2 services of staging; make one pass with --force-prune" in error(ran)
        assert shop.case.ready("summary")[:2] == ("False", "PruneRefused")
        assert len(shop.running()) == 3
        await shop.case.reconcile("--force-prune", expect=0)
        assert shop.running() == ["production-shop"]
        assert shop.recorded() == ["production/shop"]


async def test_a_rename_removes_nothing_and_keeps_the_project(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("shop"), INVOKED)
        await shop.case.reconcile(expect=0)
        shop.commit(composed("web"), INVOKED, more="moved: [{from: services/shop, to: services/web}]\n")
        await shop.case.reconcile(expect=0)
        assert (shop.running(), shop.recorded()) == (["staging-shop"], ["staging/api", "staging/web"])
        # Deployed anew it is the same project still.
        await shop.case.reconcile("--force", "services/staging/web", expect=0)
        assert shop.running() == ["staging-shop"]
        # Without `moved`, the new service claims what the old one leaves.
        named = composed("site").replace("kind: compose,", "kind: compose, project_name: staging-shop,")
        shop.commit(named, INVOKED)
        ran = await shop.case.reconcile(expect=0)
        forgotten = next(step for step in ran.document["steps"] if step["action"] == "forget")
        assert forgotten["reason"].endswith("as services/staging/site is there now")
        assert (shop.running(), shop.recorded()) == (["staging-shop"], ["staging/api", "staging/site"])


async def test_a_service_whose_spec_is_broken_stays(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("shop"), INVOKED)
        await shop.case.reconcile(expect=0)
        shop.commit(composed("shop", ", nonsense: 1"), INVOKED)
        await shop.case.reconcile(expect=3)
        assert (shop.running(), shop.recorded()) == (["staging-shop"], ["staging/api", "staging/shop"])


async def test_what_never_came_up_is_removed_too(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        broken = "services:\n  web: {image: busybox, x-double: {exit: 3}}\n"
        shop.case.world.app.commit({"shop/compose.yaml": broken})
        shop.case.world.app.tag("v1.2.0")
        shop.commit(composed("shop"), INVOKED)
        ran = await shop.case.reconcile(expect=4)
        assert ran.document["outcomes"]["services/staging/shop"]["reason"] == "DeployFailed"
        assert shop.running() == ["staging-shop"]
        shop.commit(INVOKED)
        await shop.case.reconcile(expect=0)
        assert (shop.running(), shop.recorded()) == ([], ["staging/api"])


async def test_what_an_operator_suspended_stays(tmp_path: Path) -> None:
    async with make_shop(tmp_path) as shop:
        shop.commit(composed("shop"), INVOKED)
        await shop.case.reconcile(expect=0)
        await shop.case.world.trueup("suspend", "services/staging/shop")
        shop.commit(INVOKED)
        await shop.case.reconcile(expect=0)
        assert (shop.running(), shop.recorded()) == (["staging-shop"], ["staging/api", "staging/shop"])
        await shop.case.world.trueup("resume", "services/staging/shop")
        await shop.case.reconcile(expect=0)
        assert (shop.running(), shop.recorded()) == ([], ["staging/api"])
