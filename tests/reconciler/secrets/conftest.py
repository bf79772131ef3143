from collections.abc import Iterator

import pytest

from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.sources import VALUE


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        yield running


@pytest.fixture
def filled(double: InfisicalDouble) -> InfisicalDouble:
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    return double
