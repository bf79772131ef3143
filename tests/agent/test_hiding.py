"""Secrets in what commands print: hidden in any of the forms in which tools print them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.hiding import MASK, hide
from tests.canaries import canary

SECRET = canary("hidden")
FILE = f"# what the service reads\nGREETING={SECRET}\nPORT=8080\n".encode()


def cut(text: str, width: int) -> list[str]:
    return [text[at : at + width] for at in range(0, len(text), width)]


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


FORMS = {
    "as it is": SECRET,
    "base64": base64_of(SECRET.encode()),
    "base64 of the file, wrapped as coreutils do": "\n".join(cut(base64_of(FILE), 76)),
    "base64 of the file, wrapped early": "\n".join(cut(base64_of(FILE), 8)),
    "the rest of a base64": base64_of(FILE)[7:],
    "base64 for URLs": base64.urlsafe_b64encode(b"\xff\xfe" + FILE).decode().rstrip("="),
    "base64 with CR LF": "\r\n".join(cut(base64_of(FILE), 64)),
    "hexadecimal": SECRET.encode().hex(),
    "xxd -p": "\n".join(cut(FILE.hex(), 60)),
    "od": FILE.hex(" "),
    "upper case, with colons": FILE.hex(":").upper(),
    "the rest of a hexadecimal": FILE.hex()[3:],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_no_form_of_a_secret_stays(form: str) -> None:
    told = hide(f"begin of it\n{form}\nthe end: 4 files, exit", [SECRET])
    assert MASK in told
    assert form not in told
    assert all(line not in told for line in form.splitlines())
    assert told.startswith("begin of")


def test_what_says_no_secret_stays_as_it_is() -> None:
    encoded = f"{base64_of(b'nothing to hide here')}\n{b'neither here'.hex()}"
    text = f"deployed abcdef0123456789 in 3 s\n{encoded}\n"
    assert hide(text, [SECRET]) == text
    assert hide(text, []) == text
    assert hide("too short: abc", ["abc"]) == "too short: abc"


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(2, 40))
def test_wherever_it_stands_in_what_is_encoded(before: bytes, after: bytes, width: int) -> None:
    content = before + SECRET.encode() + after
    for digits in (base64_of(content), content.hex()):
        told = hide("\n".join(cut(digits, 2 * width)), [SECRET])
        assert told == MASK
