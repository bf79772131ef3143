"""agent.toml and the environment: what is read, what comes first, and where each mistake is."""

import string
import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.address import Address
from agent.errors import SettingsError
from agent.node_token import NodeToken
from agent.rules import GIB, AgentRules
from agent.settings import (
    AgentConfig,
    load_config,
    parse_allow,
    parse_config,
    render_config,
    secret_setting,
)
from agent.tomlwriter import write_toml

FULL = """\
# a comment
node = "web-1"
primaries = ["primary.example:9001", "[2001:db8::1]:9001"]
fingerprint = "ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB"
state_dir = "/var/lib/one"
metrics_file = "/var/lib/metrics/trueup.prom"
roots = ["/srv", "/opt/apps/"]
owners = ["app"]

[limits]
max_tasks = 8
max_file_size = "2GiB"
command_timeout = 30
drift_interval = 0

[commands]
restart-web = "systemctl restart 'the web'"
"reload.nginx" = ["nginx", "-s", "reload"]
"""

MINIMAL = 'node = "web-1"\nprimaries = ["h:1"]\n'


def test_a_full_file() -> None:
    config = parse_config(FULL, "agent.toml")
    assert config == AgentConfig(
        node="web-1",
        primaries=(Address("primary.example", 9001), Address("2001:db8::1", 9001)),
        fingerprint="ab" * 32,
        state_dir=Path("/var/lib/one"),
        tls_dir=Path("/var/lib/one/tls"),
        max_tasks=8,
        drift_interval=0.0,
        metrics_file=Path("/var/lib/metrics/trueup.prom"),
        rules=AgentRules(
            roots=("/srv", "/opt/apps"),
            owners=("app",),
            commands={
                "restart-web": ("systemctl", "restart", "the web"),
                "reload.nginx": ("nginx", "-s", "reload"),
            },
            max_file_size=2 * GIB,
            command_timeout=30.0,
        ),
    )


def test_what_is_not_said_has_safe_defaults() -> None:
    config = parse_config(MINIMAL, "agent.toml")
    assert config.rules == AgentRules(roots=())
    assert config.fingerprint is None


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("node = ", 1, "not TOML"),
        (MINIMAL + "\n\nroots = [", 5, "not TOML"),
        (MINIMAL + "rotos = []", 3, "rotos: there is no such setting; did you mean roots?"),
        (MINIMAL + "zzz = 1", 3, "known are node, primaries"),
        (
            MINIMAL + "\n[limits]\nmax_task = 1",
            5,
            "limits.max_task: there is no such setting; did you mean max_tasks?",
        ),
        (MINIMAL + "\n[limits]\nmax_tasks = 0", 5, "limits.max_tasks: is not a positive number"),
        (MINIMAL + "\n[limits]\nmax_tasks = true", 5, "limits.max_tasks"),
        (MINIMAL + '\n[limits]\nmax_file_size = "2 gigs"', 5, "limits.max_file_size"),
        (MINIMAL + '\n[limits]\ncommand_timeout = "5m"', 5, "limits.command_timeout"),
        (MINIMAL + 'roots = ["srv"]', 3, "roots: 'srv' is not an absolute path"),
        (MINIMAL + 'roots = ["/srv/../etc"]', 3, "roots"),
        (MINIMAL + 'roots = "/srv"', 3, "roots: is not a list"),
        (MINIMAL + "roots = [1]", 3, "roots: is not a list"),
        (MINIMAL + "state_dir = 1", 3, "state_dir: is not a text"),
        (MINIMAL + 'fingerprint = "abc"', 3, "fingerprint: 'abc' is not a fingerprint"),
        (MINIMAL + "commands = 1", 3, "commands: is not a table"),
        (MINIMAL + "[commands]\nx = 1", 4, "commands.x: is neither"),
        (MINIMAL + '[commands]\nx = "it\'s"', 4, "commands.x: the command x has a quote"),
        (MINIMAL + '[commands]\nx = ""', 4, "commands.x: the command x is empty"),
        (MINIMAL + '[commands]\n"../x" = "a"', 4, "'../x' is not a name"),
        ('primaries = ["h:1"]', 1, "node is missing"),
        ('node = "x"', 1, "primaries is missing"),
        ('node = "a b"\nprimaries = ["h:1"]', 1, "node: 'a b' is not the name of a node"),
        ('node = "x"\nprimaries = ["h"]', 2, "primaries: 'h' is not HOST:PORT"),
    ],
)
def test_each_mistake_has_its_line(text: str, where: int, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_config(text, "/etc/trueup/agent.toml")
    assert str(caught.value).startswith(f"/etc/trueup/agent.toml:{where}: ")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_its_file(text: str) -> None:
    try:
        parse_config(text, "f.toml")
    except SettingsError as error:
        assert str(error).startswith("f.toml:")


names = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=12).map(lambda t: f"a{t}")
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
configs = st.builds(
    AgentConfig,
    node=names,
    primaries=st.lists(st.builds(Address, names, st.integers(1, 65535)), min_size=1, max_size=3).map(tuple),
    fingerprint=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    state_dir=paths.map(Path),
    tls_dir=paths.map(Path),
    max_tasks=st.integers(1, 100),
    drift_interval=st.floats(0, 1e9),
    rules=st.builds(
        AgentRules,
        roots=st.lists(paths, max_size=3).map(tuple),
        owners=st.lists(words, max_size=3).map(tuple),
        commands=st.dictionaries(names, st.lists(words, min_size=1, max_size=4).map(tuple), max_size=3),
        max_file_size=st.integers(1, 2**62),
        max_total_size=st.integers(1, 2**62),
        max_entries=st.integers(1, 2**62),
        command_timeout=st.floats(0.001, 1e9),
    ),
)


@given(configs)
def test_what_is_written_is_read_back(config: AgentConfig) -> None:
    assert parse_config(render_config(config), "x") == config


def test_the_token_is_never_written() -> None:
    token = NodeToken.generate()
    config = replace(parse_config(MINIMAL, "x"), token=token)
    assert token.to_text() not in render_config(config)
    assert token.to_text() not in repr(config)


@given(
    st.dictionaries(
        words,
        words
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.floats(allow_nan=False)
        | st.lists(words),
        max_size=5,
    ),
    st.dictionaries(words, words, max_size=3),
)
def test_any_table_survives_toml(plain: dict[str, str], inner: dict[str, str]) -> None:
    table = plain | {"the table": inner}
    assert tomllib.loads(write_toml(table, comment="on top\nof it")) == table


def test_toml_cannot_hold_everything() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        write_toml({"x": "\ud800"})


def test_commands_are_split_as_a_shell_would() -> None:
    assert parse_allow("a=systemctl restart 'my web'") == ("a", ("systemctl", "restart", "my web"))
    for text in ("a", "=x", "a=", "a='", "a b=c", "a=''"):
        with pytest.raises(SettingsError):
            parse_allow(text)


# --- file and environment ----------------------------------------------------------------------


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(FULL)
    token = NodeToken.generate()
    secret = tmp_path / "token"
    secret.write_text(token.to_text() + "\n")
    environ = {
        "TRUEUP_AGENT_CONFIG": str(file),
        "SYNC_NODE_ID": "web-2",
        "SYNC_TCP_ENDPOINT": "a:1, b:2",
        "SYNC_SERVER_FINGERPRINT": "cd" * 32,
        "SYNC_AGENT_STATE_DIR": "/var/lib/two",
        "SYNC_NODE_TOKEN_FILE": str(secret),
    }
    config = load_config(None, environ)
    assert (config.node, config.primaries) == ("web-2", (Address("a", 1), Address("b", 2)))
    assert (config.fingerprint, config.tls_dir) == ("cd" * 32, Path("/var/lib/two/tls"))
    assert config.rules == parse_config(FULL, "x").rules
    assert config.token is not None
    assert config.token.public_text == token.public_text


def test_the_seeds_variables_alone_are_enough() -> None:
    environ = {
        "SYNC_NODE_ID": "1",
        "SYNC_NODE_TOKEN": NodeToken.generate().to_text(),
        "SYNC_TCP_ENDPOINT": "10.0.0.10:9001",
        "SYNC_AGENT_TLS_DIR": "/var/agent_tls",
        "SYNC_AGENT_ROOTS": "/srv:/opt",
    }
    config = load_config(None, environ)
    assert (config.node, config.tls_dir) == ("1", Path("/var/agent_tls"))
    assert config.rules.roots == ("/srv", "/opt")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "run `trueup-agent join`"),
        (
            {"TRUEUP_AGENT_CONFIG": "/nowhere/agent.toml", "SYNC_NODE_ID": "x"},
            "/nowhere/agent.toml: there is no",
        ),
        ({"SYNC_NODE_ID": "x"}, "SYNC_TCP_ENDPOINT is not set"),
        ({"SYNC_NODE_ID": "x/y"}, "SYNC_NODE_ID: 'x/y'"),
        ({"SYNC_NODE_ID": "x", "SYNC_TCP_ENDPOINT": "h"}, "SYNC_TCP_ENDPOINT: "),
        ({"SYNC_NODE_ID": "x", "SYNC_TCP_ENDPOINT": "h:1", "SYNC_NODE_TOKEN": "x"}, "SYNC_NODE_TOKEN is not"),
        (
            {"SYNC_NODE_ID": "x", "SYNC_TCP_ENDPOINT": "h:1", "SYNC_SERVER_FINGERPRINT": "x"},
            "SYNC_SERVER_FIN",
        ),
        (
            {"SYNC_NODE_ID": "x", "SYNC_TCP_ENDPOINT": "h:1", "SYNC_NODE_TOKEN_FILE": "/nowhere"},
            "/nowhere cannot",
        ),
    ],
)
def test_mistakes_in_the_environment(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_config(None, environ)
    assert message in str(caught.value)


def test_a_secret_is_set_once(tmp_path: Path) -> None:
    assert secret_setting("X", {}) is None
    assert secret_setting("X", {"X": "a"}) == "a"
    with pytest.raises(SettingsError, match="both set"):
        secret_setting("X", {"X": "a", "X_FILE": "b"})


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_config(file, {})


def test_rules_come_from_the_file_and_nowhere_else() -> None:
    """Each limit of the rules can be set in agent.toml, so that none is left to a default by mistake."""
    settable = {
        "roots",
        "owners",
        "commands",
        "max_file_size",
        "max_total_size",
        "max_entries",
        "command_timeout",
    }
    follows = {"private"}  # from where the agent's own files are
    assert {field.name for field in msgspec.structs.fields(AgentRules)} == settable | follows
