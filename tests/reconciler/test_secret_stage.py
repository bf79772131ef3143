"""What a pass over many services asks of its sources, and what it publishes of the values."""

import hashlib
import hmac

from reconciler.hashing import FINGERPRINT_HEX, fingerprint
from tests.bench.secrets import KEYS, SERVICES, SOURCES, Bench
from tests.contracts.infisical_double import InfisicalDouble


async def test_a_thousand_services_make_one_call_for_each_list_and_none_within_the_ttl() -> None:
    with InfisicalDouble() as double:
        bench = Bench.of(double)
        assert (len(bench.spec.services), len(bench.spec.secret_sources)) == (SERVICES, SOURCES) == (1000, 10)
        assert await bench.secret_stage() == SERVICES * KEYS
        assert (double.calls("list"), double.calls("login")) == (10, 1)
        for _ in range(3):
            await bench.secret_stage()
        assert (double.calls("list"), double.calls("login")) == (10, 1)


def test_a_fingerprint_is_an_hmac_over_target_name_and_value_with_their_lengths() -> None:
    for key in (b"k" * 32, b"o" * 32, b"long" * 40):
        for parts in (("t", "N", "v"), ("t", "N", ""), ("tN", "", "vä"), ("services/a", "KEY", "x" * 5000)):
            message = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
            expected = hmac.new(key, message, hashlib.sha256).hexdigest()[:FINGERPRINT_HEX]
            assert fingerprint(key, target=parts[0], name=parts[1], value=parts[2]) == expected
