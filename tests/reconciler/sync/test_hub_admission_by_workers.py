"""Who gets in where a worker process ends TLS: the same as where the primary does it, with the same words."""

import pytest

from tests.reconciler.sync.test_hub_admission import (  # noqa: F401 - each is run here once more
    test_a_bulk_connection_belongs_to_its_own_session,
    test_a_change_of_rights_ends_the_session_at_once,
    test_a_node_opens_one_session_at_a_time,
    test_a_session_that_is_being_opened_is_revoked_too,
    test_a_stall_before_authentication_ends_by_the_deadline,
    test_a_strangers_certificate,
    test_a_wrong_token_in_the_hello,
    test_an_enrolled_certificate_cannot_sign_another,
    test_an_expired_certificate,
    test_another_certificate_for_the_same_key_is_shown_and_nobody_is_cut_off,
    test_another_nodes_certificate,
    test_broken_tls,
    test_malformed_first_frames,
    test_no_certificate,
    test_no_common_protocol,
    test_old_tls_is_refused,
    test_one_unreadable_record_keeps_out_nobody_else,
    test_the_65th_gets_in_when_a_place_comes_free,
)
from tests.reconciler.sync.test_hub_pairing import test_a_node_pairs_and_connects  # noqa: F401 - as those above

pytestmark = pytest.mark.usefixtures("no_traceback")


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.connected.WORKERS", 1)
