"""What tests of the primary's connections ask of it all the while."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whoever is at the door, the primary's log has lines for people and nothing that it did not expect."""
    caplog.set_level(logging.INFO, "trueup")
    yield
    assert [r for r in caplog.get_records("call") if r.exc_info] == []
