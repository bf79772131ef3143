"""The words for attempts to have values of a secret source that came to nothing."""

from collections.abc import Sequence

from reconciler.secrets.cache import Failed
from reconciler.secrets.errors import SourceDown, SourceRefused


def no_such(source: str) -> SourceRefused:
    return SourceRefused(f"there is no secret source {source}", hint="add it under secret_sources")


def refused(text: str) -> Failed:
    return Failed(text, SourceRefused.reason, down=False)


def all_failed(source: str, environment: str, failures: Sequence[Failed]) -> SourceDown | SourceRefused:
    """One error for all attempts. It is an outage if any of them was: then waiting may help."""
    waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
    if len(failures) == 1:
        text = failures[0].text
    else:
        listed = ", ".join(f"({number}) {failure.text}" for number, failure in enumerate(failures, 1))
        text = f"nothing serves secret source {source} in environment {environment}: {listed}"
    kind = SourceDown if any(failure.down for failure in failures) else SourceRefused
    return kind(text, retry_after=min(waits, default=None))
