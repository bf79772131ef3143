"""API tokens: what a line may say, how one is found, and the file that holds them."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.api_tokens import ApiToken, digest_of, find_token, line_of, parse_tokens
from reconciler.errors import SettingsError
from reconciler.secrets.values import MASK
from reconciler.token_file import TokenFile, TokensUnusable, append_token, new_token, read_tokens
from reconciler.token_table import print_tokens, rows_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
A, B = digest_of("a").hex(), digest_of("b").hex()


def now() -> datetime:
    return NOW


def test_lines() -> None:
    text = (
        "# who\n\n"
        f"ci operate sha256:{A}   # the pipeline\n"
        f"ann@example.org read sha256:{B} expires=2027-02-24T01:00:00+01:00\n"
    )
    ci, ann = parse_tokens(text, path="tokens")
    assert ci == ApiToken("ci", "operate", digest_of("a"))
    assert ann == ApiToken("ann@example.org", "read", digest_of("b"), datetime(2027, 2, 24, tzinfo=UTC))
    assert line_of(ann) == f"ann@example.org read sha256:{B} expires=2027-02-24T00:00:00Z"
    assert parse_tokens(line_of(ann), path="tokens") == (ann,)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ci", "a line reads NAME ROLE sha256:DIGEST [expires=TIME]"),
        (f"ci operate sha256:{A} expires=never", "expires= and a time"),
        (f"ci operate sha256:{A} expires=2027-02-24T00:00:00", "expires= and a time"),
        (f"ci operate sha256:{A} until=2027-02-24T00:00:00Z", "expires= and a time"),
        (f"ci admin sha256:{A}", "a role is read or operate"),
        (f"ci read {A}", "a digest is sha256: and 64 hexadecimal digits"),
        (f"ci read sha256:{A[:-1]}", "a digest is sha256: and 64 hexadecimal digits"),
        (f"c<i> read sha256:{A}", "a name has letters, digits"),
        (f"{'x' * 65} read sha256:{A}", "at most 64"),
        (f"known read sha256:{A}", "there is another token named known"),
        (f"other read sha256:{B}", "another line has the same token"),
    ],
)
def test_a_wrong_line_is_named(line: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_tokens(f"known read sha256:{B}\n\n{line}\nalso\n", path="/etc/tokens")
    first, second = str(raised.value).splitlines()
    assert first.startswith("/etc/tokens:3: ") and told in first
    assert second.startswith("/etc/tokens:4: ")


def test_a_token_in_place_of_its_digest_is_not_repeated() -> None:
    token, _ = new_token("ci", "read", lasts=None, now=now)
    with pytest.raises(SettingsError) as raised:
        parse_tokens(f"ci read {token.reveal()}", path="tokens")
    assert token.reveal() not in str(raised.value)
    assert "only its digest belongs here" in str(raised.value)


def test_a_token_is_found_by_itself_alone() -> None:
    token, entry = new_token("ci", "operate", lasts=3600.0, now=now)
    _, other = new_token("other", "read", lasts=None, now=now)
    assert str(token) == MASK and token.reveal().startswith("trueup_") and len(token.reveal()) == 71
    presented = token.reveal().encode()
    assert find_token([other, entry], presented) is entry
    for wrong in (b"", presented[:-1], presented + b"0", presented.upper(), entry.digest, b"\xff" * 71):
        assert find_token([other, entry], wrong) is None
    # Only what `trueup token new` makes is one, whatever digest somebody wrote into the file.
    assert find_token([ApiToken("weak", "operate", digest_of("hello"))], b"hello") is None
    assert not entry.has_expired(NOW + timedelta(minutes=59))
    assert entry.has_expired(NOW + timedelta(hours=1))


@pytest.mark.parametrize(("name", "lasts"), [("a b", None), ("", None), ("-a", None), ("ok", 1e12)])
def test_what_cannot_be_a_token(name: str, lasts: float | None) -> None:
    with pytest.raises(SettingsError, match="cannot be a token"):
        new_token(name, "read", lasts=lasts, now=now)


def test_tokens_are_added_to_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    _, first = new_token("first", "read", lasts=None, now=now)
    _, second = new_token("second", "operate", lasts=60.0, now=now)
    append_token(path, first)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text().removesuffix("\n"))  # as some editors leave it
    append_token(path, second)
    assert read_tokens(path) == (first, second)
    with pytest.raises(SettingsError, match="has a token named first already"):
        append_token(path, first)
    assert read_tokens(path) == (first, second)


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o440, True), (0o604, False), (0o620, False)])
def test_a_file_that_others_may_read(tmp_path: Path, mode: int, good: bool) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"ci read sha256:{A}\n")
    path.chmod(mode)
    if good:
        assert len(read_tokens(path)) == 1
        return
    with pytest.raises(SettingsError) as raised:
        read_tokens(path)
    assert str(raised.value) == (
        f"{path}: others may read or change it (mode {mode:04o}); run: chmod 600 {path}"
    )
    with pytest.raises(SettingsError, match="others may read"):
        append_token(path, new_token("x", "read", lasts=None, now=now)[1])


def test_what_is_no_file_of_tokens(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file of API tokens; make one with"):
        read_tokens(tmp_path / "none")
    with pytest.raises(SettingsError, match="is no file"):
        read_tokens(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SettingsError, match="is no file"):
        read_tokens(tmp_path / "pipe")
    bad = tmp_path / "bad"
    bad.write_bytes(b"# one\n\xff\n")
    bad.chmod(0o600)
    with pytest.raises(SettingsError, match=f"{bad}:2: is not UTF-8 text"):
        read_tokens(bad)
    bad.write_bytes(b"#" * 600_000)
    with pytest.raises(SettingsError, match="is larger than"):
        read_tokens(bad)


def test_the_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    _, one = new_token("one", "read", lasts=None, now=now)
    _, two = new_token("two", "read", lasts=None, now=now)
    append_token(path, one)
    file = TokenFile(path)
    known = file.tokens()
    assert known == (one,)
    assert file.tokens() is known  # it was not read again
    append_token(path, two)
    assert file.tokens() == (one, two)
    path.write_text(line_of(two) + "\n")
    assert file.tokens() == (two,)
    # A wrong one lets nobody in, not even those who were known: the line that is gone may be the reason.
    path.write_text("two\n" + line_of(one) + "\n")
    for _ in range(2):
        with pytest.raises(TokensUnusable, match=f"{path}:1: a line reads"):
            file.tokens()
    path.unlink()
    with pytest.raises(TokensUnusable, match="there is no such file"):
        file.tokens()
    append_token(path, one)
    assert file.tokens() == (one,)
    file.forget()
    assert file.tokens() == (one,)


def test_what_is_listed_opens_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    token, entry = new_token("ci", "operate", lasts=60.0, now=now)
    [row] = rows_of([entry], NOW + timedelta(minutes=1))
    assert row == {
        "name": "ci",
        "role": "operate",
        "expires": "2026-11-26T12:01:00Z",
        "expired": True,
        "digest": entry.digest.hex()[:16],
    }
    print_tokens([row])
    print_tokens([])
    printed = capsys.readouterr().out
    assert "2026-11-26T12:01:00Z (over)" in printed and "trueup token new" in printed
    assert token.reveal() not in printed
