"""Who may connect, from the spec and the status files, and back."""

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import tls
from agent.node_token import NodeToken
from reconciler.control.records import Record
from reconciler.control.state import ControlState, fold
from reconciler.pairing import enrolments, with_pairing, without_pairing
from reconciler.spec.model import Node, Spec
from reconciler.status.documents import NodeStatus, Recorded

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = NodeToken.generate().public_text
SPEC = Spec(version=1, nodes={"web-1": Node(id="web-1", token_key=TOKEN)})
DER = tls.to_der(tls.make_certificate(Ed25519PrivateKey.generate(), tls.agent_subject("web-1")))
NO_DECISIONS = ControlState()


def test_what_was_paired_is_enrolled_again_by_a_successor() -> None:
    recorded = with_pairing(Recorded(), "web-1", DER, trust_on_first_use=False, now=NOW)
    [enrolment] = enrolments(SPEC, recorded, NO_DECISIONS)
    assert (enrolment.node, enrolment.certificate_der, enrolment.token_key) == ("web-1", DER, TOKEN)


def test_a_repaired_node_may_pair_again() -> None:
    paired = with_pairing(Recorded(), "web-1", DER, trust_on_first_use=True, now=NOW)
    [enrolment] = enrolments(SPEC, without_pairing(paired, "web-1", now=NOW), NO_DECISIONS)
    assert (enrolment.certificate_der, enrolment.made_at) == (None, None)


def test_a_node_that_left_the_spec_is_not_enrolled() -> None:
    recorded = with_pairing(Recorded(), "web-2", DER, trust_on_first_use=False, now=NOW)
    assert [enrolment.node for enrolment in enrolments(SPEC, recorded, NO_DECISIONS)] == ["web-1"]


def test_a_revoked_token_is_not_enrolled_and_another_one_is() -> None:
    recorded = with_pairing(Recorded(), "web-1", DER, trust_on_first_use=False, now=NOW)

    def revoked(*more: Record, token_key: str = TOKEN) -> bool:
        first = Record(number=1, kind="revoke", by="", at=NOW, resource="nodes/web-1", token_key=token_key)
        return not enrolments(SPEC, recorded, fold([first, *more]))

    assert revoked()
    assert revoked(token_key="")
    assert not revoked(token_key="ed25519:before")
    resumed = Record(number=2, kind="resume", by="", at=NOW, resource="nodes/web-1")
    assert not revoked(resumed)
    assert not revoked(resumed, token_key="")


def test_an_unreadable_certificate_fits_nobody_and_lets_nobody_pair() -> None:
    status = NodeStatus(id="nodes/web-1", certificate="-----BEGIN CERTIFICATE-----\nx\n")
    [enrolment] = enrolments(SPEC, Recorded().put(status), NO_DECISIONS)
    assert enrolment.certificate_der not in (None, DER)


def test_a_tokens_age_counts_from_when_it_was_first_seen() -> None:
    status = NodeStatus(id="nodes/web-1", token_key=TOKEN, token_since=NOW - timedelta(hours=3))
    [enrolment] = enrolments(SPEC, Recorded().put(status), NO_DECISIONS)
    assert enrolment.made_at == (NOW - timedelta(hours=3)).timestamp()
    # Another token starts anew.
    other = NodeStatus(id="nodes/web-1", token_key="ed25519:other", token_since=NOW - timedelta(hours=3))
    [enrolment] = enrolments(SPEC, Recorded().put(other), NO_DECISIONS)
    assert enrolment.made_at is None
