"""Every secret value that this process has fetched, for the last net: the log masks them wherever they stand.

One for the process, as logging is. Values are masked where they could come out (a child's output, errors);
this is for the place that nobody thought of.
"""

from collections.abc import Iterable

from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret

MAX_KNOWN = 10_000
"""Values that are remembered; then those go first that were fetched longest ago."""


class KnownSecrets:
    """Learns values while the process runs; `mask` is what `logs.configure_logging` takes."""

    def __init__(self, limit: int = MAX_KNOWN) -> None:
        self._limit = limit
        self._values: dict[Secret, None] = {}
        """Those fetched last stand last."""
        self._masker: Masker | None = Masker(())
        """None: it is to be made anew, which costs something for each value, so not before it is needed."""

    def learn(self, values: Iterable[Secret]) -> None:
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
        masker = self._masker
        if masker is None:
            # `list` in one go: other threads log too.
            masker = self._masker = Masker(list(self._values))
        return masker.mask(text)


KNOWN = KnownSecrets()
