"""Every secret value that this process has fetched, for the last net: the log masks them wherever they stand.

One for the process, as logging is. Values are masked where they could come out (a child's output, errors);
this is for the place that nobody thought of.
"""

import threading
from collections.abc import Iterable

from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret

MAX_KNOWN = 10_000
"""Values that are remembered; then those go first that were fetched longest ago."""


class KnownSecrets:
    """Learns values while the process runs; `mask` is what `logs.configure_logging` takes."""

    def __init__(self, limit: int = MAX_KNOWN) -> None:
        self._limit = limit
        # A value that is learnt while a masker is made must not be forgotten with it: threads log too.
        # Reentrant, as a finalizer that fails in here has its traceback masked.
        self._lock = threading.RLock()
        self._values: dict[Secret, None] = {}
        """Those fetched last stand last."""
        self._masker: Masker | None = Masker(())
        """None: it is to be made anew, which costs something for each value, so not before it is needed."""

    def learn(self, values: Iterable[Secret]) -> None:
        with self._lock:
            for value in values:
                if value in self._values:
                    del self._values[value]
                else:
                    self._masker = None
                self._values[value] = None
            while len(self._values) > self._limit:
                del self._values[next(iter(self._values))]
                self._masker = None

    def mask(self, text: str) -> str:
        with self._lock:
            if self._masker is None:
                self._masker = Masker(self._values)
            masker = self._masker
        return masker.mask(text)


KNOWN = KnownSecrets()
