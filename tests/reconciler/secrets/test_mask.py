"""No form of a secret value comes through, wherever the text is cut."""

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.secrets.mask import Masker
from reconciler.secrets.values import Secret

PASSWORD = 'pä55/w"ord+&\\x'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n  AQEA7Zf9x3kP\n-----END KEY-----\n"


def masker(*values: str) -> Masker:
    return Masker([Secret(value) for value in values])


def streamed(hidden: Masker, pieces: list[str]) -> str:
    stream = hidden.stream()
    return "".join([*(stream.feed(piece) for piece in pieces), stream.close()])


@pytest.mark.parametrize(
    "form",
    [
        PASSWORD,
        json.dumps(PASSWORD)[1:-1],
        json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
        repr(PASSWORD)[1:-1],
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD),
        "p%c3%a455%2fw%22ord%2b%26%5cx",
    ],
)
def test_each_form_is_masked(form: str) -> None:
    assert masker(PASSWORD).mask(f"a={form};") == "a=***;"


AWKWARD = "pä$5`it's\" a\\b~#c=~d!{x,y}*?[z]&|;<>(e)^%+@f"
"""What shells quote, each in its way."""


BOTH = ('set -x; : $VALUE; : "$VALUE"', "set", "export -p")
BASH_ALONE = ('printf %q "$VALUE"', "echo ${VALUE@Q}")


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        *(("dash", command) for command in BOTH),
        *(("bash", command) for command in (*BOTH, *BASH_ALONE)),
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "value", [PASSWORD, AWKWARD, "-----BEGIN-----\nit's\t\x01$2\n-----END-----", "#~pass word"]
)
def test_what_shells_make_of_it(shell: str, locale: str, value: str, command: str) -> None:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": locale, "VALUE": value}
    # No word splitting, no globbing: `$VALUE` bare is the value, once.
    run = subprocess.run(
        [shell, "-c", f"IFS=; set -f; {command}"],
        env=environment,
        capture_output=True,
        timeout=60,
        check=True,
    )
    printed = (run.stdout + run.stderr).decode("utf-8", "replace")
    shown = masker(value).mask(printed)
    assert "***" in shown
    assert not [part for part in re.findall(r"[a-z0-9ä]{2,}", value) if part in shown], shown


@pytest.mark.parametrize(
    "encode", [bytes.hex, lambda raw: raw.hex().upper(), lambda raw: binascii.b2a_hex(raw).decode()]
)
def test_hexadecimal_is_masked(encode: Callable[[bytes], str]) -> None:
    assert masker(PASSWORD).mask(f"<{encode(PASSWORD.encode())}>") == "<***>"
    wrapped = encode(KEY.encode())
    lines = [wrapped[start : start + 60] for start in range(0, len(wrapped), 60)]
    assert set(masker(KEY).mask("\n".join(lines))) <= set("*\n")


def test_half_a_character_does_no_harm() -> None:
    assert masker("half \ud800 of it", "whole one").mask("a whole one, half \ud800 of it") == "a ***, ***"


@pytest.mark.parametrize("user", ["", "u", "us", "user:", "admin:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_masked_inside_a_longer_text(user: str, encode: Callable[[bytes], bytes]) -> None:
    plain = f"{user}{PASSWORD}@host".encode()
    shown = masker(PASSWORD).mask(encode(plain).decode())
    assert "***" in shown
    # All that is left encodes what stands around the value, and at most a few bits of it.
    assert len(shown.replace("***", "")) <= 4 * (len(user) // 3 + 1) + 4 * (len("@host") // 3 + 2)


@pytest.mark.parametrize("width", [76, 64])
def test_wrapped_base64_is_masked(width: int) -> None:
    encoded = base64.b64encode(KEY.encode()).decode()
    wrapped = "\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    assert set(masker(KEY).mask(wrapped)) <= set("*\n=")


def test_lines_of_a_value_are_masked_by_themselves() -> None:
    shown = masker(KEY).mask("".join(f"web | {line}\n" for line in KEY.splitlines()))
    assert shown == "web | ***\nweb | ***\nweb |   ***\nweb | ***\n"
    assert masker(KEY).mask(KEY.replace("\n", "\r\n")).replace("***", "").strip() == ""


def test_a_whole_value_over_lines_becomes_one_mask() -> None:
    assert masker(KEY).mask(f"<{KEY}>") == "<***>"


def test_short_values_are_left_alone() -> None:
    assert masker("", "1", "on", "dev", "   ab   ").mask("on dev 1 ab") == "on dev 1 ab"
    assert masker("prod").mask("prod") == "***"


def test_overlapping_values_leave_no_end() -> None:
    assert masker("secret-one", "one-secret").mask("<secret-one-secret>") == "<***>"
    assert masker("secret", "secret-longer").mask("secret-longer secret") == "*** ***"


def test_nothing_to_hide() -> None:
    assert masker().mask("text") == "text"
    assert streamed(masker(), ["te", "xt"]) == "text"


def test_a_stream_passes_on_what_cannot_become_a_secret() -> None:
    stream = masker("topsecret").stream()
    assert stream.feed("starting top") == "starting "
    assert stream.feed("s") == ""
    assert stream.feed("ecre") == ""
    assert stream.feed("t!\n") == "***!\n"
    assert stream.close() == ""


def test_a_stream_holds_back_less_than_the_longest_form() -> None:
    stream = masker("abab").stream()
    # One endless stretch of overlapping values is one mask, and does not pile up.
    assert "".join(stream.feed("ab" * 500) for _ in range(20)) == "***"
    assert stream.feed("!") == "!"
    assert stream.close() == ""


texts = st.text(alphabet='abc\n"é ', max_size=40)


@given(st.lists(st.text(alphabet='abc\n"é', max_size=8), max_size=4), st.lists(texts, max_size=8))
def test_cuts_do_not_matter(secrets: list[str], pieces: list[str]) -> None:
    hidden = masker(*secrets)
    assert streamed(hidden, pieces) == hidden.mask("".join(pieces))


@given(st.lists(st.text(alphabet="abcd", min_size=4, max_size=9), min_size=1, max_size=4), st.data())
def test_no_value_comes_through(secrets: list[str], data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from([*secrets, "a", "b", "-"]), max_size=12)))
    shown = masker(*secrets).mask(text)
    assert not any(secret in shown for secret in secrets)


def test_printing_shows_nothing() -> None:
    hidden = masker(PASSWORD)
    stream = hidden.stream()
    stream.feed(PASSWORD[:-1])
    assert PASSWORD[:-1] not in repr(hidden) + repr(stream)
