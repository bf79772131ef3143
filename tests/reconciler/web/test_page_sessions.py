"""Sessions of the page, and by what it knows its own forms."""

from __future__ import annotations

import pytest

from reconciler.web.endpoints import Caller, Role
from reconciler.web.page.origin import HEADERS, cookie_header, cookie_of, is_own, is_secure, same
from reconciler.web.page.sessions import (
    IDLE,
    LONGEST,
    MAX_MESSAGES,
    MAX_OF_TOKEN,
    MAX_SESSIONS,
    Sessions,
)


class Tokens:
    """Whose tokens there are, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.callers = {b"ann": Caller("ann", Role.OPERATE), b"bob": Caller("bob", Role.READ)}
        self.sessions = Sessions(self.callers.get, lambda: self.now)

    def begin(self, token: bytes) -> str:
        return self.sessions.begin(self.callers[token], token)


def test_a_session_is_found_by_its_cookie_alone() -> None:
    tokens = Tokens()
    cookie, other = tokens.begin(b"ann"), tokens.begin(b"ann")
    assert len(cookie) >= 43
    assert cookie != other
    mine, theirs = tokens.sessions.find(cookie), tokens.sessions.find(other)
    assert mine is not None
    assert theirs is not None
    assert (mine.caller.name, mine is theirs, mine.csrf == theirs.csrf) == ("ann", False, False)
    assert cookie not in repr(vars(tokens.sessions))
    for wrong in ("", cookie[:-1], cookie + "x", "\udcff"):
        assert tokens.sessions.find(wrong) is None
    tokens.sessions.end(cookie)
    assert tokens.sessions.find(cookie) is None
    assert tokens.sessions.find(other) is not None


def test_a_session_ends_by_itself() -> None:
    tokens = Tokens()
    cookie = tokens.begin(b"ann")
    tokens.now += IDLE - 1
    assert tokens.sessions.find(cookie, use=False) is not None  # an open page is no sign of a person
    tokens.now += 1
    assert tokens.sessions.find(cookie) is None
    cookie = tokens.begin(b"ann")
    began = tokens.now
    while tokens.now + IDLE / 2 - began < LONGEST:
        tokens.now += IDLE / 2
        assert tokens.sessions.find(cookie) is not None
    tokens.now = began + LONGEST
    assert tokens.sessions.find(cookie) is None
    assert len(tokens.sessions) == 0


def test_a_session_has_the_rights_of_its_token_now() -> None:
    tokens = Tokens()
    cookie = tokens.begin(b"ann")
    tokens.callers[b"ann"] = Caller("ann", Role.READ)
    session = tokens.sessions.find(cookie)
    assert session is not None
    assert not session.caller.may(Role.OPERATE)
    del tokens.callers[b"ann"]
    assert tokens.sessions.find(cookie) is None
    tokens.callers[b"ann"] = Caller("ann", Role.OPERATE)
    assert tokens.sessions.find(cookie) is None  # it does not come back


def test_sessions_are_bounded_and_nobody_ends_those_of_others() -> None:
    tokens = Tokens()
    bob = tokens.begin(b"bob")
    cookies = [tokens.begin(b"ann") for _ in range(5 * MAX_OF_TOKEN)]
    assert len(tokens.sessions) == MAX_OF_TOKEN + 1
    assert all(tokens.sessions.find(each) is not None for each in cookies[-MAX_OF_TOKEN:])
    assert tokens.sessions.find(cookies[0]) is None
    assert tokens.sessions.find(bob) is not None
    for number in range(2 * MAX_SESSIONS):
        token = str(number).encode()
        tokens.callers[token] = Caller(str(number), Role.READ)
        tokens.begin(token)
    assert len(tokens.sessions) == MAX_SESSIONS


def test_messages_are_told_once() -> None:
    tokens = Tokens()
    session = tokens.sessions.find(tokens.begin(b"ann"))
    assert session is not None
    for number in range(2 * MAX_MESSAGES):
        session.say(str(number), "good")
    assert [each.text for each in session.hear()] == [str(n) for n in range(MAX_MESSAGES, 2 * MAX_MESSAGES)]
    assert session.hear() == []


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "null", "host": "inside"}, True),
        ({"sec-fetch-site": "same-site", "origin": "http://here", "host": "here"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": ""}, False),
        ({"origin": "http://here:9000", "host": "HERE:9000"}, True),
        ({"origin": "https://here", "host": "here"}, True),
        ({"origin": "http://here:9001", "host": "here:9000"}, False),
        ({"origin": "http://there", "host": "here"}, False),
        ({"origin": "null", "host": "null"}, False),
        ({"origin": "file://here", "host": "here"}, False),
        ({"origin": "http://", "host": ""}, False),
        ({"host": "here"}, False),
        ({}, False),
    ],
)
def test_whose_form_it_is(headers: dict[str, str], own: bool) -> None:
    assert is_own(headers) is own


def test_the_cookie() -> None:
    assert cookie_header("abc", secure=False, lasts=60) == (
        "trueup-session=abc; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"
    )
    assert cookie_header("", secure=True, lasts=0) == (
        "__Host-trueup-session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0; Secure"
    )
    assert cookie_of({"trueup-session": "plain", "__Host-trueup-session": "safe"}) == "safe"
    assert cookie_of({"trueup-session": "plain"}) == "plain"
    assert cookie_of({}) == ""
    assert [
        is_secure(headers, scheme)
        for headers, scheme in (
            ({}, "https"),
            ({"x-forwarded-proto": "https"}, "http"),
            ({"origin": "https://here"}, "http"),
            ({"origin": "http://here"}, "http"),
        )
    ] == [True, True, True, False]


def test_tokens_of_forms_are_compared_whatever_they_hold() -> None:
    assert same("abc", "abc")
    assert not same("abd", "abc")
    assert not same("", "abc")
    assert not same("\udcff", "abc")


def test_nothing_from_elsewhere_is_let_in() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
