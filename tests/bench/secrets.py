"""A pass's work on secrets: 1,000 services on 10 Infisical sources, against the double on loopback."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import quantiles

import trio

from reconciler.desired_model import Facts, SecretsKey, split_inputs, used_secrets
from reconciler.gather import _fetch_secrets
from reconciler.observation import Setback
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.known import KNOWN
from reconciler.secrets.merge import merge
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import SecretValue
from reconciler.spec.load import SPEC_FILE, load_or_raise
from reconciler.spec.model import Spec
from tests.bench.report import Measurement
from tests.contracts.infisical_double import InfisicalDouble

SERVICES, SOURCES, KEYS = 1_000, 10, 10
"""Keys are those of each source; a service uses all of its source's."""
READS = 20_000

HEAD = """\
version: 1
repositories: {app: {url: "https://git.example/app.git"}}
environments: {production: {release: {cut: external}}}
secret_sources:
"""
SOURCE = """\
  source-{number}:
    kind: infisical
    host: "{url}"
    project_id: {project}
    environment_slug: prod
    secret_path: /{number}
    client_id: {{env: ID}}
    client_secret: {{env: SECRET}}
"""
SERVICE = """\
  service-{number:04}:
    repository: app
    secrets: [source-{source}]
    env: {{LOG_LEVEL: info}}
    deploy: {{kind: invoke, task: deploy}}
    environments: [production]
"""


@dataclass
class Bench:
    """A spec, what it asks, and the store that a primary would have for it."""

    double: InfisicalDouble
    spec: Spec
    store: SecretStore

    @classmethod
    def of(cls, double: InfisicalDouble, services: int = SERVICES) -> Bench:
        for number in range(SOURCES):
            folder = {f"KEY_{key}": f"value {key} of source {number}" for key in range(KEYS)}
            double.secrets[double.project, "prod", f"/{number}"] = folder
        text = HEAD
        for number in range(SOURCES):
            text += SOURCE.format(number=number, url=double.url, project=double.project)
        text += "services:\n"
        for number in range(services):
            text += SERVICE.format(number=number, source=number % SOURCES)
        spec = load_or_raise({SPEC_FILE: text.encode()})
        credentials = Credentials({"ID": double.client_id, "SECRET": double.client_secret})
        return cls(double, spec, SecretStore(spec.secret_sources, context=SourceContext(credentials)))

    async def secret_stage(self) -> int:
        """All that a pass does about secrets: fetch, learn what to mask, merge, take fingerprints.

        Gives how many fingerprints that were.
        """
        values: dict[SecretsKey, Mapping[str, SecretValue] | Setback] = {}
        await _fetch_secrets(self.spec, self.store, values, ask=True)
        fetched = [each for each in values.values() if not isinstance(each, Setback)]
        KNOWN.learn(value.value for each in fetched for value in each.values())
        facts = replace(self._facts, secrets=values)
        count = 0
        for service in self.spec.services:
            merged = merge(
                env=service.env,
                secrets=used_secrets(facts, service.secrets, service.environment),
                environ={},
                precedence=service.precedence,
            )
            count += len(split_inputs(facts, service.id, merged, service.env).keyed)
        return count

    @property
    def _facts(self) -> Facts:
        return Facts(
            spec=self.spec,
            spec_revision="main@sha1:1",
            releases={},
            branches={},
            commits={},
            ignore_files={},
            templates={},
            secrets={},
            degraded=frozenset(),
            environ={},
            hash_key=b"k" * 32,
            key_id="00000000",
        )

    async def measure(self, runs: int) -> list[Measurement]:
        work = f"secrets, {len(self.spec.services):,} services on {SOURCES} sources"
        first = Measurement(f"{work}, first pass", "trueup", [await self._timed_stage()])
        first.note = f"{self.double.calls('list')} list calls, {self.double.calls('login')} login"
        called = self.double.calls("list")
        cached = Measurement(f"{work}, within the ttl", "trueup")
        cached.seconds = [await self._timed_stage() for _ in range(runs)]
        cached.note = f"{self.double.calls('list') - called} list calls; goal: under 50 ms"
        read = Measurement("secrets, one cached read", "trueup", await self._timed_reads())
        read.note = f"p99 {quantiles(read.seconds, n=100)[-1] * 1e6:.1f} µs of {READS:,}; goal: under 10 µs"
        read.seconds = [read.median]
        return [first, cached, read]

    async def _timed_stage(self) -> float:
        begin = time.perf_counter()
        await self.secret_stage()
        return time.perf_counter() - begin

    async def _timed_reads(self) -> list[float]:
        seconds = []
        for number in range(READS):
            source = f"source-{number % SOURCES}"
            begin = time.perf_counter()
            await self.store.values(source, "production")
            seconds.append(time.perf_counter() - begin)
        return seconds


def bench_secrets(*, services: int = SERVICES, runs: int) -> list[Measurement]:
    with InfisicalDouble() as double:
        return trio.run(Bench.of(double, services).measure, runs)
