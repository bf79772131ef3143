"""Every secret value that this process has seen, for the last net: the log masks them wherever they stand.

One for the process, as logging is. Values are masked where they could come out (a child's output, errors);
this is for the place that nobody thought of.
"""

from collections.abc import Iterable

from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret


class KnownSecrets:
    """Learns values while the process runs; `mask` is what `logs.configure_logging` takes."""

    def __init__(self) -> None:
        self._values: set[Secret] = set()
        self._masker = Masker(())

    def learn(self, values: Iterable[Secret]) -> None:
        new = set(values) - self._values
        if new:
            self._values |= new
            self._masker = Masker(self._values)

    def mask(self, text: str) -> str:
        return self._masker.mask(text)


KNOWN = KnownSecrets()
