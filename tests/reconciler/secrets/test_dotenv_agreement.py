"""The dotenv files that python-dotenv writes and reads give here the values that it means."""

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values, set_key
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.secrets import dotenv
from reconciler.secrets.env_file import EnvFileSource
from reconciler.secrets.environ import EnvironSource
from reconciler.secrets.source import SourceContext
from tests.reconciler.secrets.sources import env_file, environ

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
# Without carriage returns: set_key itself turns those of a value into newlines when it writes the next one.
texts = st.text(st.characters(exclude_characters="\0\r", codec="utf-8"), max_size=20)
awkward = st.text(alphabet="ab \t\n\\'\"$`#={}é", max_size=10)
mappings = st.dictionaries(names, texts | awkward, max_size=3)


async def served(path: Path) -> dict[str, str]:
    values = await EnvFileSource(env_file(path), SourceContext.from_environ({})).fetch("production")
    return {key: value.reveal() for key, value in values.items()}


@settings(max_examples=60, deadline=None)
@given(values=mappings, export=st.booleans())
@example({"A": "two\nlines\n", "B": "it's \\'so\\'", "C": "\\", "D": "# x", "E": " x ", "F": ""}, False)
@example({"KEY": "-----BEGIN-----\nabc\n-----END-----\n", "URL": "postgres://u:p@h/db?x=1#f"}, True)
async def test_what_set_key_writes(values: Mapping[str, str], export: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / ".env"
        path.touch(0o600)
        for name, value in values.items():
            set_key(path, name, value, export=export)
        assert await served(path) == values


@given(st.text(alphabet="AB= \t\n\r\\'\"$#{}x\u00e9", max_size=40))
@example("A='one\ntwo' # three\nB=\"x\\ny\"\n")
@example("A=1\rB=2\r\nC=3")
def test_what_is_read_is_what_it_reads(text: str) -> None:
    found = dotenv.parse(text)
    if isinstance(found, dotenv.BadLine):
        return
    assert found == dict(dotenv_values(stream=io.StringIO(text, newline=""), interpolate=False))


@pytest.mark.parametrize("text", ["A", "A=1\nB\n", "A='\n", "=1\n", "A B=1\n", "A='x' y\n", "'A=1\n"])
def test_what_it_would_skip_or_leave_without_a_value_is_an_error(text: str) -> None:
    assert isinstance(dotenv.parse(text), dotenv.BadLine)


async def test_environ_gives_the_names_of_the_spec_that_are_set_and_no_others() -> None:
    own = {"DB": "a\nb", "EMPTY": "", "OTHER": "1", "TOKEN_FILE": "/etc/token", "DB_OLD": "2"}
    context = SourceContext.from_environ(own)
    values = await EnvironSource(environ("DB", "EMPTY", "TOKEN", "NOT_SET"), context).fetch("production")
    assert {key: value.reveal() for key, value in values.items()} == {"DB": "a\nb", "EMPTY": ""}
