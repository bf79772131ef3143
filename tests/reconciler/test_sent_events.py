"""Server-sent events out of bytes: the same however they are cut, and never more than a primary sends."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.sent_events import MAX_EVENT, SentEvent, SentEvents, TooLarge
from reconciler.web.apis.events import EventView, as_sent
from reconciler.web.streams import BEAT, RETRY


def read(content: bytes, cuts: list[int]) -> list[SentEvent]:
    events = SentEvents()
    places = sorted({0, *(cut % (len(content) + 1) for cut in cuts), len(content)})
    chunks = [content[start:end] for start, end in pairwise(places)]
    return [event for chunk in chunks for event in events.feed(chunk)]


@given(st.lists(st.text(max_size=20), max_size=4), st.lists(st.integers(0, 10_000), max_size=20))
def test_what_a_primary_sends_is_read_as_it_was(messages: list[str], cuts: list[int]) -> None:
    sent = [
        EventView(id=id, at="", kind="failed", resource="", reason="", message=message, trace="")
        for id, message in enumerate(messages, 1)
    ]
    content = b"".join([RETRY, *(part for event in sent for part in (as_sent(event), BEAT))])
    found = read(content, cuts)
    assert [(event.id, event.event) for event in found] == [(str(event.id), "failed") for event in sent]
    assert [msgspec.json.decode(event.data, type=EventView) for event in found] == sent


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(b"data: a\n", [], id="cut off"),
        pytest.param(b"id: 1\nevent: x\n\n", [], id="no data"),
        pytest.param(b"id: 1\n\ndata: a\n\n", [SentEvent("", "message", "a")], id="an id of its own"),
        pytest.param(b"id:1\r\ndata:a\r\n\r\n", [SentEvent("1", "message", "a")], id="as others write it"),
        pytest.param(b":\nodd\ndata: a:b\n\n", [SentEvent("", "message", "a:b")], id="others"),
        pytest.param(b"data: \xff\n\n", [SentEvent("", "message", "\ufffd")], id="no text"),
    ],
)
def test_forms(content: bytes, found: list[SentEvent]) -> None:
    assert read(content, []) == found


@pytest.mark.parametrize("part", [b"x" * 65536, b"data: x\n" * 8192], ids=["one line", "many lines"])
def test_an_event_without_end_is_refused(part: bytes) -> None:
    events = SentEvents()
    with pytest.raises(TooLarge):
        for _ in range(MAX_EVENT // len(part) + 2):
            list(events.feed(part))
