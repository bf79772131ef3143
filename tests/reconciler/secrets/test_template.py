"""Templates give the text that was meant, or one line that says where they are wrong; and they always end."""

import io
import json
import re
import shlex
import tomllib
import traceback
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from reconciler.secrets import dotenv, template_language
from reconciler.secrets.errors import TemplateInvalid
from reconciler.secrets.template import MAX_TEMPLATE, decode_template, render_template
from reconciler.secrets.template_filters import FILTERS
from tests.canaries import canary

PATH = "deploy/app.toml.j2"
SECRET = canary("in-a-template")
values = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)


def rendered(source: str, **variables: str) -> str:
    return render_template(PATH, source, variables)


def refusal(source: str, **variables: str) -> str:
    """What is said instead; nothing of the secret is in it, nor in anything that hangs on it."""
    with pytest.raises(TemplateInvalid) as caught:
        rendered(source, SECRET=SECRET, **variables)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    shown = str(error)
    everything = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    assert SECRET not in shown + repr(error) + everything
    assert len(shown.splitlines()) == 1
    return shown


def test_variables_are_names_and_nothing_is_escaped() -> None:
    assert rendered("a = {{ A }}\n", A="<&'\"{{ B }}>") == "a = <&'\"{{ B }}>\n"
    assert rendered("no newline at the end") == "no newline at the end"
    assert rendered("one at the end\n") == "one at the end\n"
    # Also those that mean something elsewhere.
    assert rendered("{{ range }} {{ dict }}", range="x", dict="y") == "x y"


def test_a_line_with_nothing_but_a_block_leaves_no_line() -> None:
    source = """\
{% set hosts = HOSTS.split(",") %}
[servers]
{% for host in hosts %}
    {# one each #}
    {% if not loop.first %}
  # {{ loop.index }} of {{ loop.length }}
    {% endif %}
  {{ host|trim }} = {{ PORT|int + loop.index0 }}
{% else %}
  none
{% endfor %}
{% macro flag(name, default="off") %}{{ name|upper }}={{ default }}{% endmacro %}
{{ flag("a") }} {{ flag("b", default="on" if DEBUG is defined else "no") }}
{{ MODE|default("plain") }} {{ hosts|sort|join(";") }} {{ hosts|length }} {{ hosts[-1] }} {{ "x" ~ PORT ~ 1 }}
"""
    assert (
        rendered(source, HOSTS="b, a", PORT="80")
        == """\
[servers]
  b = 80
  # 2 of 2
  a = 81
A=off B=no
plain  a;b 2  a x801
"""
    )


def test_the_documentation_has_every_word_of_the_language() -> None:
    table = {
        "filters": FILTERS,
        "tests": template_language.TESTS,
        "methods of a text": template_language.TEXT_METHODS,
        "of `loop`": template_language.LOOP,
        "functions": template_language.FUNCTIONS,
    }
    lines = (Path(__file__).parents[3] / "docs" / "secrets.md").read_text().splitlines()
    for kind, words in table.items():
        [line] = [line for line in lines if line.startswith(f"| {kind} |")]
        assert set(re.findall(r"`(\w+)`", line.removeprefix(f"| {kind} |"))) == set(words)


@given(values)
def test_quoting_filters_give_each_reader_the_value(value: str) -> None:
    quoted = rendered("{{ V|tojson }}", V=value)
    assert json.loads(quoted) == value
    assert tomllib.loads(f"v = {quoted}\n") == {"v": value}
    assert yaml.safe_load(f"v: {quoted}\n") == {"v": value}
    assert shlex.split(rendered("{{ V|shell_quote }}", V=value)) == [value]


def test_the_dotenv_filter_is_the_dotenv_format() -> None:
    line = rendered("A={{ V|dotenv }}\n", V='it\'s "x"\n')
    assert dotenv.parse(line) == {"A": 'it\'s "x"\n'}
    assert dotenv_values(stream=io.StringIO(line), interpolate=False) == {"A": 'it\'s "x"\n'}
    assert refusal("\nA={{ (SECRET ~ V)|dotenv }}", V="'$").startswith(
        f"{PATH}:2: no dotenv line gives this value to every reader unchanged; "
    )


def test_other_filters() -> None:
    assert rendered("{{ V|urlencode }} {{ V|b64encode }} {{ V|replace('/', '-') }}", V="a/b") == (
        "a%2Fb YS9i a-b"
    )
    assert rendered("key: |\n  {{ V|indent(2) }}", V="one\ntwo\n") == "key: |\n  one\n  two\n"
    assert rendered("{{ V.split(',')|tojson }} {{ true|tojson }}", V="a,b") == '["a", "b"] true'


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\n\n{{ DB_URL }}", "3: `DB_URL` is not defined; add it to `secrets` or `env` of this file, or"),
        ("{{ SECRTE }}", "1: `SECRTE` is not defined; names near it: SECRET; add it to"),
        ("{% if DB_URL %}{% endif %}", "1: `DB_URL` is not defined; "),
        ("{% if SECRET %}\n{{ DB_URL|upper }}{% endif %}", "2: `DB_URL` is not defined; "),
        ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m() }}", "1: `a` is not defined; "),
        ("\n{{ {'a': 1} }}", "2: `{…: …}` cannot be used here; "),
        ("\n{{ [1][SECRET] }}", "2: what is read here is not there, or may not be read; docs/secrets.md has"),
        ("{{ SECRET.nope }}", "1: what is read here is not there, or may not be read; "),
        ("{{ SECRET.split('x')[99] }}", "1: what is read here is not there, or may not be read; "),
        ("a\n{{ SECRET }", "2: unexpected '}'; correct the template"),
        ("a\n{% if SECRET %}", "2: Unexpected end of template. Jinja was looking for "),
        ("{% nope %}", "1: Encountered unknown tag 'nope'; correct the template"),
        ("a\n{{ SECRET|nope }}", "2: there is no filter `nope`; there are b64encode, d, default, dotenv, "),
        ("{{ SECRET is nope }}", "1: there is no test `nope`; there are defined, "),
        ("{{ SECRET|int }}", "1: this is no whole number; correct the value, or leave |int out"),
        ("{{ SECRET + 1 }}", "1: `+` is for numbers; put texts together with ~, or convert with |int"),
        ("{{ SECRET * 2 }}", "1: `*` is for numbers; "),
        ("{{ '%s' % SECRET }}", "1: `%` is for numbers; "),
        ("{{ 1 // 0 }}", "1: this fails with ZeroDivisionError; correct the template"),
        ("{{ SECRET(1) }}", "1: this fails with TypeError; "),
        ("{{ SECRET.split(1) }}", "1: this fails with TypeError; "),
        ("{{ SECRET.split('x') }}", "1: this is neither a text nor a number; use |tojson, or |join(',')"),
        ("{{ none }}", "1: this is neither a text nor a number; "),
        ("{{ SECRET == 'x' }}", "1: this is neither a text nor a number; "),
        ("{% for c in SECRET %}{% endfor %}", "1: a loop needs a list; make one of a text with .split(',')"),
        ("{{ '\\ud800' }}", "1: what it gives is no valid text; "),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place_and_no_value(source: str, said: str) -> None:
    assert refusal(source).startswith(f"{PATH}:{said}")


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("{% include 'x' %}", "include"),
        ("{% include SECRET %}", "include"),
        ("{% import 'x' as y %}", "import"),
        ("{% from 'x' import y %}", "import"),
        ("{% extends 'x' %}", "extends"),
        ("{% block x %}{% endblock %}", "block"),
        ("{% filter upper %}{% endfilter %}", "filter"),
        ("{% call x() %}{% endcall %}", "call"),
        ("{% for a in [1] recursive %}{% endfor %}", "recursive"),
        ("{{ 9**9**9 }}", "**"),
    ],
)
def test_a_template_is_one_file_of_a_small_language(source: str, word: str) -> None:
    assert refusal("\n" + source).startswith(f"{PATH}:2: `{word}` cannot be used here; ")


@pytest.mark.parametrize(
    "expression",
    [
        "SECRET.__class__",
        "SECRET['__class__']",
        "SECRET.format",
        "SECRET.format('x')",
        "SECRET.ljust(9)",
        "SECRET.encode()",
        "''.split.__self__",
        "range.__globals__",
        "namespace.__init__",
        "self._TemplateReference__context",
        "loop",
        "lipsum()",
        "cycler",
        "dict",
        "SECRET|attr('upper')",
        "SECRET|random",
        "range",
        "namespace(a=SECRET)",
    ],
)
def test_nothing_of_python_can_be_reached(expression: str) -> None:
    refusal("{{ " + expression + " }}")


GROW = (
    "{{% set ns = namespace(x={start}) %}}"
    "{{% for i in range(99) %}}{{% set ns.x = {more} %}}{{% endfor %}}{{{{ ns.x }}}}"
)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set r = range(90000) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
        "{% set r = range(40000) %}{% for i in r %}{{ 'x' if 1.5 in r else '' }}{% endfor %}",
        "{% set r = range(40000) %}{% for i in r %}{{ r|join }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}",
        GROW.format(start="'ab'", more="ns.x ~ ns.x"),
        GROW.format(start="'ab'", more="ns.x + ns.x"),
        GROW.format(start="'ab'", more="ns.x|replace('a', ns.x)"),
        GROW.format(start="'ab'", more="[ns.x, ns.x]|join(ns.x)"),
        GROW.format(start="'ab'", more="(ns.x ~ 'é')|urlencode|urlencode|urlencode|urlencode"),
        GROW.format(start="[1]", more="ns.x + ns.x"),
        GROW.format(start="[1]", more="[ns.x, ns.x]"),
        GROW.format(start="2", more="ns.x * ns.x"),
        "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 99,
        "{% set x %}{% for i in range(99999) %}" + "z" * 60000 + "{% endfor %}{% endset %}",
        "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
        "{{ " + "not " * 15000 + "1 }}",
        "{{ " + "1+" * 30000 + "1 }}",
        "{% for i in range(99) %}" + "x" * 60000 + "{% endfor %}",
        "{% for i in range(90000) %}{% if LONG[1:] %}{% endif %}{% endfor %}",
        "{% for i in range(90000) %}{% if LONG.isdigit() %}{% endif %}{% endfor %}",
        "{% for i in range(90000) %}{% if LONG < LONG %}{% endif %}{% endfor %}",
        "{% macro m() %}{{ varargs }}{% endmacro %}{{ m([1], [1]) }}",
    ],
    ids=range(24),
)
def test_a_template_that_would_not_end_or_fill_the_memory_is_refused(source: str) -> None:
    assert len(source) <= MAX_TEMPLATE
    refusal(source, LONG="1" * (1 << 20))


@pytest.mark.parametrize("size", [100, 5000])
def test_a_large_one_that_is_meant_is_within_the_limits(size: int) -> None:
    lines = "".join(f"key_{number} = {{{{ V|tojson }}}}\n" for number in range(min(size, 2000)))
    assert len(rendered(lines[:MAX_TEMPLATE].rpartition("\n")[0], V="x" * 100).splitlines()) > size // 3
    numbers = ",".join(map(str, range(size)))
    assert rendered("{% for n in N.split(',') %}{{ n }}\n{% endfor %}", N=numbers).count("\n") == size


def test_a_file_is_utf_8_with_or_without_a_mark() -> None:
    assert decode_template(PATH, "é\r\n".encode()) == "é\r\n"
    assert decode_template(PATH, b"\xef\xbb\xbfx") == "x"
    with pytest.raises(TemplateInvalid) as caught:
        decode_template(PATH, b"a\n\n\xff")
    assert str(caught.value) == f"{PATH}:3: this is not UTF-8; save the file as UTF-8"
    assert caught.value.__context__ is None
