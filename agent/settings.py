"""The agent's configuration: `agent.toml`, and the environment, which comes before it.

The file says what this host allows; see `AgentRules`. Every mistake in it is reported with file and
line. `load_config` and `parse_config` are the only readers of the file and of the `SYNC_*` variables.
"""

import difflib
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from agent.address import Address
from agent.drift import INTERVAL
from agent.errors import SettingsError
from agent.node_token import NodeToken
from agent.rules import AgentRules
from agent.tomlwriter import Value, write_toml
from agent.workers import MAX_TASKS

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", int, float)

DEFAULT_CONFIG = Path("/etc/trueup/agent.toml")
DEFAULT_STATE_DIR = Path("/var/lib/trueup-agent")

_SIZES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_KEYS = ("node", "primaries", "fingerprint", "state_dir", "tls_dir", "roots", "owners", "limits", "commands")
_OPTIONAL = ("metrics_file", "user", "drop_privileges")
_LIMITS = (
    *("max_tasks", "max_file_size", "max_total_size", "max_entries", "command_timeout"),
    "drift_interval",
)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_COMMAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_COMMENT = """\
What this host allows trueup to do; whatever a primary asks for, these rules win.
Written by `trueup-agent join`; edit it as you like, then restart the agent."""


@dataclass(frozen=True)
class AgentConfig:
    node: str
    primaries: tuple[Address, ...]
    fingerprint: str | None
    """The primary's pin; None: the first one met is trusted."""
    state_dir: Path
    tls_dir: Path
    rules: AgentRules
    max_tasks: int = MAX_TASKS
    drift_interval: float = INTERVAL
    """Seconds between two looks for drift; 0: none."""
    user: str = ""
    """Whom the agent goes on as where root starts it; empty: as whoever started it."""
    drop_privileges: bool | None = None
    """Whether it gives up what file work does not take, for its commands too; None: if it has no commands."""
    metrics_file: Path | None = None
    """Where Prometheus' node_exporter finds what the agent has done."""
    token: NodeToken | None = None
    """From the environment; None: the one that `join` stored."""


def config_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Which file is read: the one that `--config` names, or TRUEUP_AGENT_CONFIG, or the one in /etc."""
    return Path(path or environ.get("TRUEUP_AGENT_CONFIG") or DEFAULT_CONFIG)


def load_config(path: Path | None, environ: Mapping[str, str]) -> AgentConfig:
    """The configuration from a file (`--config`, TRUEUP_AGENT_CONFIG, /etc) and the environment.

    Without a file the environment has to name node, endpoint and token. Raises SettingsError.
    """
    file = config_path(path, environ)
    named = path is not None or bool(environ.get("TRUEUP_AGENT_CONFIG"))
    try:
        config = parse_config(file.read_text("utf-8"), str(file))
    except FileNotFoundError:
        if named or not environ.get("SYNC_NODE_ID"):
            raise SettingsError(
                f"{file}: there is no such file",
                hint="run `trueup-agent join`, or set SYNC_NODE_ID, SYNC_NODE_TOKEN and SYNC_TCP_ENDPOINT",
            ) from None
        config = None
    except UnicodeDecodeError:
        raise SettingsError(f"{file}: is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    return _from_environment(config, environ)


def private_paths(config: AgentConfig, path: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The agent's own files and directories: what `AgentRules.private` is for."""
    paths = [config_path(path, environ), config.state_dir, config.tls_dir]
    paths += [config.metrics_file] if config.metrics_file is not None else []
    if environ.get("SYNC_NODE_TOKEN_FILE"):
        paths.append(Path(environ["SYNC_NODE_TOKEN_FILE"]))
    return tuple(map(str, paths))


def secret_setting(name: str, environ: Mapping[str, str]) -> str | None:
    """The value of a secret variable, or of the file that NAME_FILE names; None where neither is set."""
    value, file = environ.get(name), environ.get(f"{name}_FILE")
    if value and file:
        raise SettingsError(f"{name} and {name}_FILE are both set", hint="keep one of them")
    if not file:
        return value or None
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name}_FILE: {file} cannot be read: {why}") from None


def parse_config(text: str, file: str) -> AgentConfig:
    """Read the text of an agent.toml; SettingsError as `file:line: key: what is wrong`."""
    return _Reader(text, file).config()


def render_config(config: AgentConfig) -> str:
    """The text of an agent.toml that `parse_config` reads back as the same; never holds the token."""
    rules = config.rules
    table: dict[str, Value | Mapping[str, Value]] = {
        "node": config.node,
        "primaries": [str(address) for address in config.primaries],
        **({"fingerprint": config.fingerprint} if config.fingerprint else {}),
        "state_dir": str(config.state_dir),
        **({"tls_dir": str(config.tls_dir)} if config.tls_dir != config.state_dir / "tls" else {}),
        **({"user": config.user} if config.user else {}),
        **({"drop_privileges": config.drop_privileges} if config.drop_privileges is not None else {}),
        **({"metrics_file": str(config.metrics_file)} if config.metrics_file else {}),
        "roots": list(rules.roots),
        "owners": list(rules.owners),
        "limits": {
            "max_tasks": config.max_tasks,
            "max_file_size": rules.max_file_size,
            "max_total_size": rules.max_total_size,
            "max_entries": rules.max_entries,
            "command_timeout": rules.command_timeout,
            "drift_interval": config.drift_interval,
        },
        "commands": {name: list(argv) for name, argv in rules.commands.items()},
    }
    return write_toml(table, comment=_COMMENT)


# --- single values, shared by file, flags and environment --------------------------------------


def check_node(text: str) -> str:
    if not _NODE.fullmatch(text):
        raise SettingsError(f"{text!r} is not the name of a node (letters, digits, '.', '_' and '-')")
    return text


def check_fingerprint(text: str) -> str:
    plain = text.strip().lower()
    if not _FINGERPRINT.fullmatch(plain):
        raise SettingsError(f"{text!r} is not a fingerprint (64 hexadecimal digits)")
    return plain


def check_directory(text: str, option: str = "") -> str:
    """An absolute path without `..`, in its shortest form. `option`: by which it was given."""
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or "\0" in text:
        given = f"{option}: " if option else ""
        raise SettingsError(f"{given}{text!r} is not an absolute path of a directory")
    return str(path)


def check_user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise SettingsError(f"{text!r} is not the name of a user")
    return text


def parse_allow(text: str) -> tuple[str, tuple[str, ...]]:
    """`restart-web=systemctl restart web`: a name, and the arguments a shell would make of it."""
    name, equals, command = text.partition("=")
    if not equals:
        raise SettingsError(f"{text!r} is not NAME=COMMAND, such as restart-web='systemctl restart web'")
    return check_command(name, command)


def check_command(name: str, command: str | list[str]) -> tuple[str, tuple[str, ...]]:
    if not _COMMAND.fullmatch(name):
        raise SettingsError(f"{name!r} is not a name for a command (letters, digits, '.', '_' and '-')")
    try:
        argv = tuple(shlex.split(command) if isinstance(command, str) else command)
    except ValueError:
        raise SettingsError(f"the command {name} has a quote that does not end") from None
    if not argv or not argv[0] or any("\0" in argument for argument in argv):
        raise SettingsError(f"the command {name} is empty or has a NUL byte")
    return name, argv


# --- inside ------------------------------------------------------------------------------------


def _from_environment(config: AgentConfig | None, environ: Mapping[str, str]) -> AgentConfig:
    def variable(name: str, parse: Callable[[str], T], default: T) -> T:
        text = environ.get(name)
        if not text:
            return default
        try:
            return parse(text)
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from None

    def path(text: str) -> Path:
        return Path(check_directory(text))

    def roots(text: str) -> tuple[str, ...]:
        return tuple(check_directory(part) for part in text.split(":") if part)

    known = config is not None
    if config is None:
        config = AgentConfig("", (), None, DEFAULT_STATE_DIR, DEFAULT_STATE_DIR / "tls", AgentRules(roots=()))
    state_dir = variable("SYNC_AGENT_STATE_DIR", path, config.state_dir)
    tls_dir = state_dir / "tls" if config.tls_dir == config.state_dir / "tls" else config.tls_dir
    token = secret_setting("SYNC_NODE_TOKEN", environ)
    config = replace(
        config,
        node=variable("SYNC_NODE_ID", check_node, config.node),
        primaries=variable("SYNC_TCP_ENDPOINT", _addresses, config.primaries),
        fingerprint=variable("SYNC_SERVER_FINGERPRINT", check_fingerprint, config.fingerprint),
        state_dir=state_dir,
        tls_dir=variable("SYNC_AGENT_TLS_DIR", path, tls_dir),
        rules=msgspec.structs.replace(
            config.rules, roots=variable("SYNC_AGENT_ROOTS", roots, config.rules.roots)
        ),
        token=NodeToken.from_text(token, where="SYNC_NODE_TOKEN") if token else None,
    )
    if not known and not config.primaries:
        raise SettingsError("SYNC_TCP_ENDPOINT is not set", hint="give the primary's HOST:PORT")
    return config


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(Address.parse(part) for part in text.split(",") if part.strip())


class _Reader:
    """Checks a parsed file value by value, knowing where each stands."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        try:
            self._document: dict[str, object] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            message = str(error)
            at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
            line = at[1] if at and at[1] else len(text.splitlines()) or 1
            what = message[: at.start()] if at else message
            raise SettingsError(f"{file}:{line}: this is not TOML: {what}") from None

    def config(self) -> AgentConfig:
        self._known(self._document, (*_KEYS, *_OPTIONAL), "")
        state_dir = Path(self._text_of("state_dir", check_directory, str(DEFAULT_STATE_DIR)))
        limits = self._table("limits")
        self._known(limits, _LIMITS, "limits")
        commands = dict(
            self._try("commands", name, check_command, name, self._command(name, value))
            for name, value in self._table("commands").items()
        )
        defaults = AgentRules(roots=())
        primaries = tuple(
            self._try("", "primaries", Address.parse, text) for text in self._texts("primaries")
        )
        for key in ("node", "primaries"):
            if not self._document.get(key):
                raise SettingsError(f"{self._file}:1: {key} is missing")
        return AgentConfig(
            node=self._text_of("node", check_node, ""),
            primaries=primaries,
            fingerprint=self._text_of("fingerprint", check_fingerprint, "") or None,
            state_dir=state_dir,
            tls_dir=Path(self._text_of("tls_dir", check_directory, str(state_dir / "tls"))),
            max_tasks=self._number("max_tasks", MAX_TASKS),
            drift_interval=self._number("drift_interval", INTERVAL, least=0.0),
            user=self._text_of("user", check_user, ""),
            drop_privileges=self._switch("drop_privileges"),
            metrics_file=self._metrics_file(),
            rules=AgentRules(
                roots=tuple(self._try("", "roots", check_directory, r) for r in self._texts("roots")),
                owners=tuple(self._texts("owners")),
                commands=commands,
                max_file_size=self._number("max_file_size", defaults.max_file_size),
                max_total_size=self._number("max_total_size", defaults.max_total_size),
                max_entries=self._number("max_entries", defaults.max_entries),
                command_timeout=float(self._number("command_timeout", defaults.command_timeout)),
            ),
        )

    def _switch(self, key: str) -> bool | None:
        value = self._document.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._fail("", key, "is neither true nor false")
        return value

    def _metrics_file(self) -> Path | None:
        name = self._text_of("metrics_file", check_directory, "")
        if name and not name.endswith(".prom"):
            raise self._fail("", "metrics_file", "does not end in .prom: node_exporter would not read it")
        return Path(name) if name else None

    def _fail(self, table: str, key: str, message: str) -> SettingsError:
        where = f"{table}.{key}" if table else key
        return SettingsError(f"{self._file}:{_line_of(self._text, table, key)}: {where}: {message}")

    def _try(self, table: str, key: str, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return check(*args, **kwargs)
        except SettingsError as error:
            raise self._fail(table, key, str(error)) from None

    def _known(self, table: Mapping[str, object], known: tuple[str, ...], name: str) -> None:
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
                raise self._fail(name, key, f"there is no such setting{hint}")

    def _table(self, key: str) -> Mapping[str, object]:
        value = self._document.get(key, {})
        if not isinstance(value, dict):
            raise self._fail("", key, f"is not a table; write [{key}] on a line of its own")
        return value

    def _text_of(self, key: str, check: Callable[[str], str], default: str) -> str:
        value = self._document.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._fail("", key, "is not a text in quotes")
        return self._try("", key, check, value)

    def _texts(self, key: str) -> list[str]:
        value = self._document.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._fail("", key, f'is not a list of texts, such as {key} = ["..."]')
        return value

    def _command(self, name: str, value: object) -> str | list[str]:
        if isinstance(value, str):
            return value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise self._fail("commands", name, "is neither a text nor a list of texts")

    def _number(self, key: str, default: N, *, least: float | None = None) -> N:
        """A positive number, or at least `least`; sizes may be written as text, such as "64GiB"."""
        value = self._table("limits").get(key, default)
        if isinstance(value, str) and key.endswith("_size"):
            size = re.fullmatch(r"(\d{1,15})\s*(B|KiB|MiB|GiB|TiB|)", value)
            value = int(size[1]) * _SIZES[size[2]] if size else None
        allowed = (int, float) if isinstance(default, float) else (int,)
        if (
            isinstance(value, bool)
            or not isinstance(value, allowed)
            or not (0 < value < 2**63 or value == least)
        ):
            raise self._fail(
                "limits",
                key,
                "is not a positive number" + (' or size, such as "64GiB"' if key.endswith("_size") else ""),
            )
        return type(default)(value)


def _line_of(text: str, table: str, key: str) -> int:
    """The line on which a key stands; that of its table, or 1, where it is written in another way."""
    current, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if header := re.match(r"\[\s*([^\[\]]+?)\s*\]", stripped):
            current = header[1].strip("\"'")
            if current == (table or key):
                found = number
        elif current == table and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*[=.]", stripped):
            return number
    return found
