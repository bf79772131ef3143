"""Trace ids: taken over from others where they have the form, kept through tasks, forgotten where told."""

import pytest

from reconciler.pass_requests import MAX_TRACES, NOTHING, request_for
from reconciler.tracing import (
    current_causes,
    current_trace,
    forget_trace,
    from_traceparent,
    is_trace,
    new_trace,
    trace,
    traced,
)

GIVEN = "0af7651916cd43dd8448eb211c80319c"


def test_a_traceparent_is_taken_over() -> None:
    assert from_traceparent(f"00-{GIVEN}-b7ad6b7169203331-01") == GIVEN
    assert from_traceparent(f"01-{GIVEN}-b7ad6b7169203331-01-more") == GIVEN


@pytest.mark.parametrize(
    "header",
    [
        "",
        GIVEN,
        f"00-{GIVEN.upper()}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"ff-{GIVEN}-b7ad6b7169203331-01",
        f"00-{GIVEN}-b7ad6b7169203331-01\nforged",
        f"00-{GIVEN[:-1]}é-b7ad6b7169203331-01",
    ],
)
def test_what_has_not_the_form_is_replaced(header: str) -> None:
    found = from_traceparent(header)
    assert found != GIVEN
    assert is_trace(found)


def test_an_inner_trace_keeps_the_outer_one_unless_it_is_given_another() -> None:
    assert current_trace() == ""
    assert current_causes() == ()
    with trace() as outer:
        assert current_causes() == (outer,)
        with trace() as inner:
            assert inner == outer
        with trace(GIVEN, causes=[GIVEN, outer]):
            assert (current_trace(), current_causes()) == (GIVEN, (GIVEN, outer))
        assert (current_trace(), current_causes()) == (outer, (outer,))
        forget_trace()
        assert current_trace() == ""
    assert current_trace() == ""


async def test_a_traced_function_has_a_trace_whoever_calls_it() -> None:
    @traced
    async def work(given: str) -> tuple[str, str]:
        return given, current_trace()

    said, found = await work("x")
    assert said == "x"
    assert is_trace(found)
    with trace() as id:
        assert await work("y") == ("y", id)


def test_one_pass_remembers_all_who_asked_up_to_a_limit() -> None:
    ids = [new_trace() for _ in range(MAX_TRACES + 5)]
    request = NOTHING
    for id in (*ids, ids[0]):
        request |= request_for(trace=id)
    assert request.traces == tuple(ids[:MAX_TRACES])
