"""What the log masks: every value that the process has fetched, whichever thread fetched it when."""

import threading

from reconciler.secrets.known import KnownSecrets
from reconciler.secrets.values import Secret
from tests.canaries import canary

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
