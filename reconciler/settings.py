"""The primary's settings: variables of its environment, or flags. Nothing else reads the environment."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeVar

from reconciler.errors import SettingsError
from reconciler.lease import RENEW
from reconciler.secrets.values import Plain, Secret, is_text
from reconciler.settings_values import (
    Address,
    Network,
    parse_address,
    parse_command,
    parse_duration,
    parse_flag,
    parse_hosts,
    parse_line,
    parse_log_format,
    parse_minutes,
    parse_name,
    parse_networks,
    parse_on_disk,
    parse_path,
    parse_server,
)
from reconciler.sync.worker_count import WorkerCount, how_many, parse_workers

T = TypeVar("T")

FLAGS: Final[Mapping[str, str]] = {
    "spec_repo": "TRUEUP_SPEC_REPO",
    "branch": "TRUEUP_SPEC_BRANCH",
    "status_repo": "TRUEUP_STATUS_REPO",
    "state_dir": "TRUEUP_STATE_DIR",
    "allow_local_repos": "TRUEUP_ALLOW_LOCAL_REPOS",
    "interval": "TRUEUP_INTERVAL",
    "http_addr": "TRUEUP_HTTP_ADDR",
    "tcp_addr": "SYNC_TCP_ADDR",
    "tls_dir": "SYNC_TLS_DIR",
    "build_user": "TRUEUP_BUILD_USER",
    "invoke_command": "TRUEUP_INVOKE_COMMAND",
    "api_tokens_file": "TRUEUP_API_TOKENS_FILE",
    "server": "TRUEUP_SERVER",
    "log_format": "TRUEUP_LOG_FORMAT",
}
"""Flags (`--spec-repo` is `spec_repo` here) and the variables that they stand before. No secret is one:
everybody on a host can read a command line."""

SECRETS: Final = (
    "TRUEUP_MASTER_KEY",
    "WEBHOOK_SECRET",
    "DEPLOY_SECRET",
    "INFISICAL_WEBHOOK_SECRET",
    "TRUEUP_SECRET_CACHE_KEY",
    "TRUEUP_TOKEN",
)
"""Each of them also as NAME_FILE."""

_RESERVED = frozenset(SECRETS) | {f"{name}_FILE" for name in SECRETS} | {"TRUEUP_API_TOKENS_FILE"}

MAX_SECRET: Final = 64 * 1024
"""Bytes of a file that holds one secret."""

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON: Final = ("LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_DOCKER: Final = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_TOOLS: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Durations are seconds; a secret that is not set is None."""

    spec_repo: str | None = field(repr=False)
    """Not shown: some people write a token into the URL."""
    spec_branch: str
    status_repo: str | None = field(repr=False)
    """The spec repository where not set."""
    state_dir: Path
    allow_local_repos: bool
    git_ssh_command: str | None
    """None: ssh with the options that a process without a person needs."""
    git_askpass: Path | None
    """A program that prints credentials for https, as git's own GIT_ASKPASS; None: nobody is asked."""
    signing_key_file: Path | None
    """The ssh key that signs the tags trueup makes; None: they are not signed."""
    master_key: Secret | None
    interval: float
    lease_renew: float
    """Seconds between renewals of the lease, from which all its other times follow."""
    http_addr: Address
    tcp_addr: Address
    tls_dir: Path
    sync_workers: WorkerCount
    build_user: str | None
    invoke_command: tuple[str, ...] | None
    """None: the invoke that trueup itself is installed with."""
    webhook_secret: Secret | None
    deploy_secret: Secret | None
    infisical_webhook_secret: Secret | None
    http_hosts: frozenset[str]
    """Names, besides loopback's, that requests to the HTTP address may be sent to."""
    trusted_proxies: tuple[Network, ...]
    """Whose `X-Forwarded-For` is believed."""
    metrics_open: bool
    """Whether `/metrics` needs no token."""
    api_tokens_file: Path | None
    """None: the API is closed on the network."""
    infisical_enabled: bool
    infisical_sync_interval: float | None
    """None: each source's own `refresh_interval`; 0: never."""
    secret_cache_on_disk: bool
    secret_cache_key: Secret | None
    """None: the file in the state directory."""
    github_api_url: str | None
    """None: github.com's."""
    source_secrets_repo: str | None
    """Where `trueup secrets check` lets secrets be exported from; None: a source of the spec."""
    server: str | None
    token: Secret | None
    log_format: Literal["text", "json"]
    environ: Mapping[str, str] = field(repr=False)
    """The whole environment; read it through the methods below."""

    def require_status_repo(self) -> str:
        """Where the status branch is: the spec's repository unless set. Raises SettingsError."""
        return self.status_repo or self.require_spec_repo()

    def require_spec_repo(self) -> str:
        """The spec repository. Raises SettingsError where none is set."""
        if self.spec_repo is None:
            raise SettingsError(
                "no spec repository is set", hint="set TRUEUP_SPEC_REPO, or give --spec-repo URL"
            )
        return self.spec_repo

    def has_state(self, name: str) -> bool:
        """Whether something of that name is in the state directory; no where it may not be entered."""
        return os.path.exists(self.state_dir / name)  # noqa: PTH110 - Path.exists raises there

    def sees_state(self, name: str) -> bool:
        """The same, but SettingsError where that cannot be told."""
        try:
            (self.state_dir / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise SettingsError(
                f"cannot look into the state directory {self.state_dir}: {error.strerror}",
                hint="run this as its owner, or give the primary's --state-dir",
            ) from None
        return True

    def child_environment(self) -> dict[str, str]:
        """What every child process gets, whoever wrote the code that it runs: nothing secret.

        Proxies are passed on unless they hold credentials.
        """
        given = self.environ
        child = {"PATH": given.get("PATH") or _DEFAULT_PATH, "LANG": given.get("LANG") or "C.UTF-8"}
        child |= {name: given[name] for name in _PASSED_ON if given.get(name)}
        return child | {name: given[name] for name in _PROXIES if given.get(name) and "@" not in given[name]}

    def docker_environment(self) -> dict[str, str]:
        """What docker's client is told besides: where its daemon is, and where its own settings are.

        Of a primary with a home these are in `.docker` there, as for a person. An agent for ssh is passed on
        where a daemon may be reached by ssh.
        """
        given = {name: self.environ[name] for name in _DOCKER if self.environ.get(name)}
        home = self.environ.get("HOME", "")
        if "DOCKER_CONFIG" not in given and Path(home).is_absolute():
            given["DOCKER_CONFIG"] = str(Path(home) / ".docker")
        by_ssh = given.get("DOCKER_HOST", "").startswith("ssh://") or "DOCKER_CONTEXT" in given
        if by_ssh and self.environ.get("SSH_AUTH_SOCK"):
            given["SSH_AUTH_SOCK"] = self.environ["SSH_AUTH_SOCK"]
        return given

    def workers_for(self, nodes: int) -> int:
        """Worker processes for so many nodes."""
        return how_many(self.sync_workers, len(os.sched_getaffinity(0)), nodes)

    def tool_environment(self) -> dict[str, str]:
        """What a person's own tools are told where trueup runs them in that person's place: ssh and pip.

        Their configuration, agent, index and proxies; nothing that the primary or a spec names.
        """
        named = {*_TOOLS, *_PASSED_ON, *_PROXIES}
        given = {n: value for n, value in self.environ.items() if n in named or n.startswith("PIP_")}
        return {"PATH": _DEFAULT_PATH, **given}

    def visible(self, names: Iterable[str]) -> dict[str, str]:
        """Those of the named variables that are set, for services that name them under `environ`.

        Raises SettingsError for the primary's own secrets: a spec must not be able to fetch them.
        """
        wanted = tuple(names)
        for name in wanted:
            _refuse_reserved(name)
        return {name: self.environ[name] for name in wanted if name in self.environ}

    def github_token(self) -> Secret | None:
        """What a person or a build gave for GitHub: `GH_PAT`, else `GITHUB_TOKEN`; None where neither is set.

        Not among the primary's own secrets: a spec may name them. Raises SettingsError for a file that
        cannot be read.
        """
        return read_secret(self.environ, "GH_PAT") or read_secret(self.environ, "GITHUB_TOKEN")

    @property
    def sudo_user(self) -> str | None:
        """Who called `sudo`, where this process was started with it. Anybody may set it: for records only."""
        return self.environ.get("SUDO_USER") or None

    @property
    def watchdog(self) -> float | None:
        """Seconds within which systemd wants a sign of life from this process; None where it does not."""
        period, pid = self.environ.get("WATCHDOG_USEC", ""), self.environ.get("WATCHDOG_PID", "")
        asked = period.isdecimal() and (not pid or pid == str(os.getpid()))
        return int(period) / 1_000_000 if asked and int(period) else None

    def readable_environ(self) -> dict[str, str]:
        """The environment without the primary's own secrets: what a spec's `{env: NAME}` may name."""
        return Plain((name, value) for name, value in self.environ.items() if name not in _RESERVED)


def load_settings(
    environ: Mapping[str, str],
    flags: Mapping[str, str | bool | None] | None = None,
    *,
    root: bool | None = None,
) -> Settings:
    """Read and check all settings. A flag that is None, or a variable that is empty, is not set.

    `root` says whether the process is root, which decides where state is kept. Reads the files that
    `NAME_FILE` variables name. Raises SettingsError with one line for each setting that is wrong.
    """
    # Under its own name, so that no crash report with local variables shows the environment.
    environ = Plain(environ)
    as_root = os.geteuid() == 0 if root is None else root
    read = _Reader(environ, flags or {})
    spec_repo = read.optional("TRUEUP_SPEC_REPO", parse_name)
    state_dir = read.optional("TRUEUP_STATE_DIR", parse_path) or read.default_state_dir(as_root)
    webhook_secret = read.secret("WEBHOOK_SECRET")
    settings = Settings(
        spec_repo=spec_repo,
        spec_branch=read.value("TRUEUP_SPEC_BRANCH", parse_name, "main"),
        status_repo=read.optional("TRUEUP_STATUS_REPO", parse_name) or spec_repo,
        state_dir=state_dir,
        allow_local_repos=read.value("TRUEUP_ALLOW_LOCAL_REPOS", parse_flag, False),
        git_ssh_command=read.optional("GIT_SSH_COMMAND", parse_line),
        git_askpass=read.optional("TRUEUP_GIT_ASKPASS", parse_path),
        signing_key_file=read.optional("TRUEUP_SIGNING_KEY_FILE", parse_path),
        master_key=read.secret("TRUEUP_MASTER_KEY"),
        interval=read.value("TRUEUP_INTERVAL", parse_duration, 300.0),
        lease_renew=read.value("TRUEUP_LEASE_RENEW", parse_duration, RENEW),
        http_addr=read.value("TRUEUP_HTTP_ADDR", parse_address, Address("127.0.0.1", 9000)),
        tcp_addr=read.value("SYNC_TCP_ADDR", parse_address, Address(None, 9001)),
        tls_dir=read.value("SYNC_TLS_DIR", parse_path, state_dir / "sync_tls"),
        sync_workers=read.value("SYNC_WORKERS", parse_workers, "auto"),
        build_user=read.optional("TRUEUP_BUILD_USER", parse_name),
        invoke_command=read.optional("TRUEUP_INVOKE_COMMAND", parse_command),
        webhook_secret=webhook_secret,
        deploy_secret=read.secret("DEPLOY_SECRET") or webhook_secret,
        infisical_webhook_secret=read.secret("INFISICAL_WEBHOOK_SECRET"),
        http_hosts=read.value("TRUEUP_HTTP_HOSTS", parse_hosts, frozenset()),
        trusted_proxies=read.value("TRUEUP_TRUSTED_PROXIES", parse_networks, ()),
        metrics_open=read.value("TRUEUP_METRICS_OPEN", parse_flag, False),
        api_tokens_file=read.optional("TRUEUP_API_TOKENS_FILE", parse_path),
        infisical_enabled=read.value("INFISICAL_ENABLED", parse_flag, True),
        infisical_sync_interval=read.optional("INFISICAL_SYNC_INTERVAL_MINUTES", parse_minutes),
        secret_cache_on_disk=read.value("TRUEUP_SECRET_CACHE", parse_on_disk, False),
        secret_cache_key=read.secret("TRUEUP_SECRET_CACHE_KEY"),
        github_api_url=read.optional("GITHUB_API_URL", parse_server),
        source_secrets_repo=read.optional("SOURCE_SECRETS_REPO", parse_name),
        server=read.optional("TRUEUP_SERVER", parse_server),
        token=read.secret("TRUEUP_TOKEN"),
        log_format=read.value("TRUEUP_LOG_FORMAT", parse_log_format, "text"),
        environ=environ,
    )
    if read.problems:
        raise SettingsError("\n".join(read.problems))
    return settings


def process_environ() -> Mapping[str, str]:
    """The variables of this process, as they change: for a library's caller who names no others."""
    return os.environ


def with_secrets_read_again(settings: Settings) -> Settings:
    """With the secrets of webhooks and deploys as their files have them now. Raises SettingsError."""
    webhook = read_secret(settings.environ, "WEBHOOK_SECRET")
    return replace(
        settings,
        webhook_secret=webhook,
        deploy_secret=read_secret(settings.environ, "DEPLOY_SECRET") or webhook,
        infisical_webhook_secret=read_secret(settings.environ, "INFISICAL_WEBHOOK_SECRET"),
    )


def read_secret(environ: Mapping[str, str], name: str) -> Secret | None:
    """A secret from the variable NAME or from the file named by NAME_FILE, without its last newline.

    None: neither is set. Raises SettingsError, which never holds the value.
    """
    value, path = Secret(environ.get(name, "")), environ.get(f"{name}_FILE")
    if value.reveal() and path:
        raise SettingsError(f"{name} and {name}_FILE are both set", hint="leave one out")
    if value.reveal():
        if not is_text(value.reveal()):
            raise SettingsError(f"{name} is not UTF-8 text")
        return value
    if not path:
        return None
    found = _secret_in(Path(path))
    if isinstance(found, str):
        raise SettingsError(f"{name}_FILE: {found}", hint="it should hold the secret and nothing else")
    return found


def _secret_in(path: Path) -> Secret | str:
    """What the file holds, or what is wrong with it; no error leaves a frame that has it in the clear."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET + 1)
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    except UnicodeDecodeError:
        return f"{path} is not UTF-8 text"
    if not text:
        return f"{path} is empty"
    return Secret(text) if len(content) <= MAX_SECRET else f"{path} is larger than {MAX_SECRET} bytes"


def _refuse_reserved(name: str) -> None:
    if name in _RESERVED:
        raise SettingsError(
            f"{name} is the primary's own and is given to nothing that a spec names",
            hint="take it out of the service's `environ`",
        )


class _Reader:
    """Reads one setting at a time and goes on after a bad one, so that all are reported together."""

    def __init__(self, environ: Mapping[str, str], flags: Mapping[str, str | bool | None]) -> None:
        unknown = flags.keys() - FLAGS.keys()
        if unknown:
            raise TypeError(f"no such flags: {sorted(unknown)}")
        self._environ = environ
        self._flags = {FLAGS[flag]: (flag, value) for flag, value in flags.items() if value is not None}
        self.problems: list[str] = []

    def value(self, variable: str, parse: Callable[[str], T], default: T) -> T:
        found = self.optional(variable, parse)
        return default if found is None else found

    def optional(self, variable: str, parse: Callable[[str], T]) -> T | None:
        name, text = variable, self._environ.get(variable)
        if variable in self._flags:
            flag, given = self._flags[variable]
            name, text = f"--{flag.replace('_', '-')}", str(int(given)) if isinstance(given, bool) else given
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            # A URL may have a password before its "@".
            shown = repr(text) if "@" not in text else "the value"
            self.problems.append(f"{name}: {shown} is not accepted; give {error}")
            return None

    def secret(self, variable: str) -> Secret | None:
        try:
            return read_secret(self._environ, variable)
        except SettingsError as error:
            self.problems.append(str(error))
            return None

    def default_state_dir(self, as_root: bool) -> Path:
        if as_root:
            return Path("/var/lib/trueup")
        base = self._environ.get("XDG_STATE_HOME", "")
        if Path(base).is_absolute():
            return Path(base) / "trueup"
        home = self._environ.get("HOME", "")
        if not Path(home).is_absolute():
            self.problems.append("TRUEUP_STATE_DIR: not set, and there is no HOME to put it under; set it")
        return Path(home) / ".local" / "state" / "trueup"
