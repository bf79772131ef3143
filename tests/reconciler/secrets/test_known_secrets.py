"""What the log masks: every value that the process has fetched, whichever thread fetched it when."""

import threading

import trio.testing

from reconciler.secrets.client import InfisicalClient
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.known import KNOWN, KnownSecrets
from reconciler.secrets.source import SourceContext
from reconciler.secrets.values import Secret
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import NOW, config_for, context_for, environ, infisical, store_of

MOMENT = 0.2
"""Seconds that another thread gets to come in between; it needs them only where nothing keeps it out."""


def test_a_value_that_is_learnt_while_the_masker_is_made_is_masked() -> None:
    known = KnownSecrets()
    learner = threading.Thread(target=lambda: known.learn([Secret(canary("second"))]))

    class Interrupting(Secret):
        """Lets the other thread run in the middle of what the masker is made from."""

        __slots__ = ()

        def reveal(self) -> str:
            if learner.ident is None:
                learner.start()
                learner.join(MOMENT)
            return super().reveal()

    known.learn([Interrupting(canary("first"))])
    assert known.mask(canary("first")) == "***"
    learner.join()
    assert known.mask(canary("second")) == "***"


def test_the_oldest_values_are_forgotten_first() -> None:
    known = KnownSecrets(limit=2)
    known.learn([Secret("value-one"), Secret("value-two")])
    known.learn([Secret("value-one"), Secret("value-three")])
    assert known.mask("value-one value-two value-three") == "*** value-two ***"


def is_masked(value: str) -> bool:
    return KNOWN.mask(f"<{value}>") == "<***>"


async def test_what_a_store_reads(double: InfisicalDouble) -> None:
    first, second = canary("known-first"), canary("known-second")
    double.secrets[double.project, "prod", "/"] = {"KEY": first}
    store = store_of(context_for(double), infisical(double))
    assert not is_masked(first)
    await store.values("prod", "production")
    assert is_masked(first)
    double.secrets[double.project, "prod", "/"] = {"KEY": second}
    await store.refresh("prod", "production")
    assert is_masked(first) and is_masked(second)


async def test_what_is_refreshed_in_the_background(autojump_clock: trio.testing.MockClock) -> None:
    variables = {"KEY": canary("known-one")}
    context = SourceContext(Credentials(variables), utc_now=lambda: NOW)
    store = store_of(context, environ("KEY", cache_ttl=100.0))
    async with trio.open_nursery() as nursery:
        await store.values("own", "production")
        variables["KEY"] = canary("known-two")
        changed = trio.Event()
        nursery.start_soon(store.keep_fresh, lambda *_: changed.set())
        await changed.wait()
        nursery.cancel_scope.cancel()
    assert is_masked(canary("known-two"))


def test_what_the_client_reads(double: InfisicalDouble) -> None:
    value = canary("known-by-the-client")
    double.secrets[double.project, "dev", "/"] = {"KEY": value}
    with InfisicalClient(config_for(double)) as client:
        assert client.get_secret("KEY")
    assert is_masked(value)
