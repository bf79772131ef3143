from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.infisical_double import InfisicalDouble
from tests.reconciler.secrets.restarting import Machine
from tests.reconciler.secrets.sources import VALUE


@pytest.fixture
def double() -> Iterator[InfisicalDouble]:
    with InfisicalDouble() as running:
        yield running


@pytest.fixture
def filled(double: InfisicalDouble) -> InfisicalDouble:
    double.secrets[double.project, "prod", "/"] = {"KEY": VALUE}
    return double


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "secret-cache")
