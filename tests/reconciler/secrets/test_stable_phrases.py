"""Texts that people search logs and output for. They are promised, and stay as they are.

Each phrase stands here with what makes it appear. Those of the export by dispatch are tested where that is.
"""

import logging
from collections.abc import Callable

import pytest

from reconciler.secrets.client import (
    CacheState,
    ClientState,
    InfisicalClient,
    InfisicalConnectionError,
    SecretNotFoundError,
)
from reconciler.secrets.client.model import SOURCES
from tests.canaries import canary
from tests.contracts.infisical_double import InfisicalDouble, server_error
from tests.reconciler.secrets.sources import config_for

Told = Callable[[InfisicalClient, InfisicalDouble], None]


def first_read(client: InfisicalClient, _double: InfisicalDouble) -> None:
    client.get_secret("KEY")


def second_read(client: InfisicalClient, _double: InfisicalDouble) -> None:
    client.get_secret("KEY")
    client.get_secret("KEY")


def read_in_an_outage(client: InfisicalClient, double: InfisicalDouble) -> None:
    client.get_secret("KEY")
    double.fail_with(server_error())
    client.get_secret("KEY", force_refresh=True)


def first_read_in_an_outage(client: InfisicalClient, double: InfisicalDouble) -> None:
    double.fail_with(server_error())
    client.get_secret("KEY")


def read_of_nothing(client: InfisicalClient, _double: InfisicalDouble) -> None:
    with pytest.raises(SecretNotFoundError) as caught:
        client.get_secret("xxx")
    logging.error("%s", caught.value)


def nothing_serves(client: InfisicalClient, double: InfisicalDouble) -> None:
    double.fail_with(server_error())
    with pytest.raises(InfisicalConnectionError):
        client.get_secret("OTHER")


PHRASES: dict[str, tuple[Told, str]] = {
    "[Infisical] Fetching fresh secrets": (first_read, "INFO"),
    "[Infisical] Using cached secrets": (second_read, "INFO"),
    "[Infisical] Failed to fetch secrets": (nothing_serves, "WARNING"),
    "[Infisical] Using stale cache": (read_in_an_outage, "WARNING"),
    "Infisical unavailable, using .env fallback": (first_read_in_an_outage, "WARNING"),
    "Secret xxx not found": (read_of_nothing, "ERROR"),
}


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_stands(phrase: str, double: InfisicalDouble, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    double.secrets[double.project, "dev", "/"] = {"KEY": canary("key")}
    told, level = PHRASES[phrase]
    with InfisicalClient(config_for(double), environ={"KEY": canary("own")}) as client:
        told(client, double)
    [record] = [record for record in caplog.records if phrase in record.getMessage()]
    assert record.levelname == level
    assert canary("key") not in caplog.text


def test_the_names_of_states_and_sources_stand() -> None:
    assert [state.value for state in ClientState] == [
        *("Uninitialized", "Authenticating", "Authenticated", "Ready", "Disconnected")
    ]
    assert [state.value for state in CacheState] == ["Empty", "Populated", "Stale", "Refreshed"]
    assert SOURCES == ("infisical", "cache", "env_file")
