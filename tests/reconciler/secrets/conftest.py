from collections.abc import Iterator

import pytest

from tests.contracts.infisical_double import InfisicalDouble


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        yield running
