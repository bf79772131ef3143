"""Requests for passes: many become one, and none of them loses anything."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.pass_requests import EVERYTHING, MAX_NAMES, NOTHING, PassRequest, request_for

NAMES = st.frozensets(st.sampled_from(["services/web", "services/staging/api", "nodes/web-1"]))
REQUESTS = st.builds(
    request_for, NAMES, st.frozensets(st.sampled_from(["staging", "production"])), forced=NAMES
)


def test_nothing_named_is_everything() -> None:
    assert request_for() == EVERYTHING
    assert request_for(["services/web"]) == PassRequest(False, frozenset({"services/web"}))
    assert not request_for(environments=["staging"]).everything
    assert not request_for(forced=["services/web"]).everything


@given(REQUESTS, REQUESTS, REQUESTS)
def test_requests_become_one_in_any_order(one: PassRequest, two: PassRequest, three: PassRequest) -> None:
    assert one | two == two | one
    assert (one | two) | three == one | (two | three)
    assert one | one == one
    assert one | NOTHING == one
    assert (one | EVERYTHING).everything


@given(REQUESTS, REQUESTS)
def test_what_is_asked_by_name_stays_known(one: PassRequest, two: PassRequest) -> None:
    both = one | two
    assert both.everything == (one.everything or two.everything)
    assert both.named == one.named | two.named
    assert both.forced == one.forced | two.forced
    assert both.environments == one.environments | two.environments


def test_too_many_names_ask_for_everything() -> None:
    both = request_for([f"services/{number}" for number in range(MAX_NAMES)], forced=["services/web"])
    assert not both.everything
    both |= request_for(["services/more"])
    assert both == PassRequest(forced=frozenset({"services/web"}))
