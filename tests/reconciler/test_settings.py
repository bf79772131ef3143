"""Settings: defaults, flags before variables, secrets from files, and one clear line for each mistake."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SettingsError
from reconciler.secrets.values import Secret
from reconciler.settings import FLAGS, SECRETS, Settings, load_settings
from reconciler.settings_values import Address, parse_address, parse_duration
from tests.canaries import canary, may_hold

HOME = {"HOME": "/home/op"}


def load(environ: dict[str, str] | None = None, **flags: str | bool | None) -> Settings:
    return load_settings(HOME | (environ or {}), flags, root=False)


def problem(environ: dict[str, str], **flags: str | bool | None) -> str:
    with pytest.raises(SettingsError) as raised:
        load(environ, **flags)
    return str(raised.value)


def test_defaults() -> None:
    settings = load()
    assert settings.spec_repo is None
    assert settings.spec_branch == "main"
    assert settings.status_repo is None
    assert settings.state_dir == Path("/home/op/.local/state/trueup")
    assert settings.tls_dir == settings.state_dir / "sync_tls"
    assert settings.interval == 300.0
    assert settings.http_addr == Address("127.0.0.1", 9000)
    assert settings.tcp_addr == Address(None, 9001)
    assert not settings.allow_local_repos
    assert settings.infisical_enabled
    assert settings.infisical_sync_interval is None
    assert not settings.secret_cache_on_disk
    assert settings.secret_cache_key is None
    assert settings.signing_key_file is None
    assert settings.log_format == "text"
    assert settings.master_key is settings.webhook_secret is settings.deploy_secret is settings.token is None


def test_every_variable() -> None:
    settings = load(
        {
            "TRUEUP_SPEC_REPO": "git@github.com:org/spec.git",
            "TRUEUP_SPEC_BRANCH": "live",
            "TRUEUP_STATUS_REPO": "https://example.org/status.git",
            "TRUEUP_STATE_DIR": "/srv/state",
            "TRUEUP_ALLOW_LOCAL_REPOS": "1",
            "TRUEUP_MASTER_KEY": canary("master"),
            "TRUEUP_SIGNING_KEY_FILE": "/srv/signing",
            "TRUEUP_INTERVAL": "90s",
            "TRUEUP_HTTP_ADDR": "[::1]:0",
            "SYNC_TCP_ADDR": "0.0.0.0:9101",
            "SYNC_TLS_DIR": "/srv/tls",
            "TRUEUP_BUILD_USER": "builder",
            "TRUEUP_INVOKE_COMMAND": "uv run 'my invoke'",
            "WEBHOOK_SECRET": canary("webhook"),
            "DEPLOY_SECRET": canary("deploy"),
            "INFISICAL_WEBHOOK_SECRET": canary("infisical-webhook"),
            "TRUEUP_API_TOKENS_FILE": "/srv/tokens",
            "TRUEUP_HTTP_HOSTS": "Trueup.example., 10.0.0.5,[fd00::1]",
            "TRUEUP_TRUSTED_PROXIES": "10.0.0.7, fd00::/64",
            "INFISICAL_ENABLED": "false",
            "INFISICAL_SYNC_INTERVAL_MINUTES": "5",
            "TRUEUP_SECRET_CACHE": "disk",
            "TRUEUP_SECRET_CACHE_KEY": canary("cache-key"),
            "TRUEUP_SERVER": "https://trueup.example/",
            "TRUEUP_TOKEN": canary("token"),
            "TRUEUP_LOG_FORMAT": "json",
        }
    )
    assert settings.require_spec_repo() == "git@github.com:org/spec.git"
    assert settings.spec_branch == "live"
    assert settings.status_repo == "https://example.org/status.git"
    assert settings.state_dir == Path("/srv/state")
    assert settings.signing_key_file == Path("/srv/signing")
    assert settings.allow_local_repos
    assert settings.master_key == Secret(canary("master"))
    assert settings.interval == 90.0
    assert settings.http_addr == Address("::1", 0)
    assert settings.tcp_addr == Address("0.0.0.0", 9101)
    assert settings.tls_dir == Path("/srv/tls")
    assert settings.build_user == "builder"
    assert settings.invoke_command == ("uv", "run", "my invoke")
    assert settings.webhook_secret == Secret(canary("webhook"))
    assert settings.deploy_secret == Secret(canary("deploy"))
    assert settings.infisical_webhook_secret == Secret(canary("infisical-webhook"))
    assert settings.api_tokens_file == Path("/srv/tokens")
    assert settings.http_hosts == {"trueup.example", "10.0.0.5", "fd00::1"}
    assert [str(each) for each in settings.trusted_proxies] == ["10.0.0.7/32", "fd00::/64"]
    assert not settings.infisical_enabled
    assert settings.infisical_sync_interval == 300.0
    assert settings.secret_cache_on_disk
    assert settings.secret_cache_key == Secret(canary("cache-key"))
    assert settings.server == "https://trueup.example"
    assert settings.token == Secret(canary("token"))
    assert settings.log_format == "json"


def test_a_flag_stands_before_its_variable_and_an_empty_variable_is_none() -> None:
    environ = {
        "TRUEUP_SPEC_REPO": "https://example.org/a.git",
        "TRUEUP_SPEC_BRANCH": "",
        "SYNC_TCP_ADDR": ":1",
    }
    settings = load(environ, spec_repo="https://example.org/b.git", tcp_addr=None, allow_local_repos=True)
    assert settings.spec_repo == settings.status_repo == "https://example.org/b.git"
    assert settings.spec_branch == "main"
    assert settings.tcp_addr.port == 1
    assert settings.allow_local_repos


def test_no_secret_is_a_flag() -> None:
    assert not set(FLAGS.values()) & set(SECRETS)
    with pytest.raises(TypeError, match="no such flags"):
        load({}, token="x")


@pytest.mark.parametrize(
    ("environ", "root", "expected"),
    [
        (HOME, True, "/var/lib/trueup"),
        (HOME | {"XDG_STATE_HOME": "/x"}, False, "/x/trueup"),
        (HOME | {"XDG_STATE_HOME": "relative"}, False, "/home/op/.local/state/trueup"),
        ({"TRUEUP_STATE_DIR": "/s"}, False, "/s"),
    ],
)
def test_where_state_is_kept(environ: dict[str, str], root: bool, expected: str) -> None:
    assert load_settings(environ, root=root).state_dir == Path(expected)


def test_no_home_and_no_state_dir() -> None:
    with pytest.raises(SettingsError, match="TRUEUP_STATE_DIR: not set, and there is no HOME"):
        load_settings({}, root=False)


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECRETS)
def test_each_secret_is_read_from_a_file_too(name: str, tmp_path: Path) -> None:
    file = may_hold(tmp_path / "secret")
    file.write_text(canary(name) + "\n")
    settings = load({f"{name}_FILE": str(file)})
    field = name.removeprefix("TRUEUP_").lower()
    assert getattr(settings, field) == Secret(canary(name))


def test_the_deploy_secret_is_the_webhook_secret_unless_set() -> None:
    assert load({"WEBHOOK_SECRET": canary("w")}).deploy_secret == Secret(canary("w"))


def test_no_repr_shows_a_secret() -> None:
    settings = load(
        {name: canary(name) for name in SECRETS}
        | {
            "DB_PASSWORD": canary("other"),
            "TRUEUP_SPEC_REPO": f"https://u:{canary('in-url')}@example.org/x.git",
        }
    )
    assert canary("x")[:12] not in repr(settings)
    assert "spec_branch='main'" in repr(settings)
    with pytest.raises(TypeError):
        pickle.dumps(settings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "WEBHOOK_SECRET_FILE: cannot read {file}: No such file or directory"),
        (b"", "WEBHOOK_SECRET_FILE: {file} is empty"),
        (b"\n", "WEBHOOK_SECRET_FILE: {file} is empty"),
        (b"\xff\xfe", "WEBHOOK_SECRET_FILE: {file} is not UTF-8 text"),
        (b"x" * 70_000, "WEBHOOK_SECRET_FILE: {file} is larger than 65536 bytes"),
    ],
)
def test_a_bad_secret_file(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    assert words.format(file=file) in problem({"WEBHOOK_SECRET_FILE": str(file)})


def test_both_a_value_and_a_file() -> None:
    text = problem({"TRUEUP_TOKEN": canary("both"), "TRUEUP_TOKEN_FILE": "/x"})
    assert text == "TRUEUP_TOKEN and TRUEUP_TOKEN_FILE are both set; leave one out"


def test_variables_that_a_service_may_see() -> None:
    settings = load({"REGION": "eu", "OTHER": "x", "EMPTY": ""})
    assert settings.visible(["REGION", "EMPTY", "NOT_SET"]) == {"REGION": "eu", "EMPTY": ""}


@pytest.mark.parametrize("name", [*SECRETS, "TRUEUP_MASTER_KEY_FILE", "TRUEUP_API_TOKENS_FILE"])
def test_a_spec_cannot_ask_for_the_primary_s_own_secrets(name: str, tmp_path: Path) -> None:
    value = canary("own")
    if name.endswith("_FILE"):
        value = str(may_hold(tmp_path / "own"))
        Path(value).write_text(canary("own"))
    settings = load({name: value, "GH_PAT": "x"})
    assert settings.readable_environ() == HOME | {"GH_PAT": "x"}
    with pytest.raises(SettingsError, match=f"{name} is the primary's own") as raised:
        settings.visible(["GH_PAT", name])
    assert canary("own") not in str(raised.value)


# --- what children get ----------------------------------------------------------------------------


def test_children_get_the_base_and_nothing_else() -> None:
    settings = load(
        {
            "PATH": "/bin",
            "TZ": "UTC",
            "SSL_CERT_FILE": "/ca.pem",
            "HTTPS_PROXY": "http://proxy:3128",
            "http_proxy": f"http://u:{canary('proxy')}@proxy:3128",
            "TRUEUP_SPEC_REPO": "https://example.org/x.git",
            "WEBHOOK_SECRET": canary("w"),
            "AWS_SECRET_ACCESS_KEY": canary("aws"),
            "LD_PRELOAD": "/evil.so",
        }
    )
    assert settings.child_environment() == {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "SSL_CERT_FILE": "/ca.pem",
        "HTTPS_PROXY": "http://proxy:3128",
    }


def test_children_have_a_path_also_where_the_primary_has_none() -> None:
    assert "/usr/bin" in load().child_environment()["PATH"].split(":")


def test_what_docker_is_told() -> None:
    """Where its daemon and its own settings are; an agent for ssh only where ssh is used."""
    given = {"HOME": "/root", "SSH_AUTH_SOCK": "/agent", "DOCKER_API_VERSION": "1.1", "DOCKER_CERT_PATH": ""}
    assert load(given).docker_environment() == {"DOCKER_CONFIG": "/root/.docker"}
    by_ssh = {**given, "DOCKER_HOST": "ssh://docker.example", "DOCKER_CONFIG": "/etc/docker-client"}
    assert load(by_ssh).docker_environment() == {
        "DOCKER_HOST": "ssh://docker.example",
        "DOCKER_CONFIG": "/etc/docker-client",
        "SSH_AUTH_SOCK": "/agent",
    }


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TRUEUP_INTERVAL", "5", "a duration such as 60s"),
        ("TRUEUP_HTTP_HOSTS", "trueup.example:443", "names of hosts with commas between"),
        ("TRUEUP_HTTP_HOSTS", "https://trueup.example", "names of hosts with commas between"),
        ("TRUEUP_HTTP_HOSTS", "a,,b", "names of hosts with commas between"),
        ("TRUEUP_TRUSTED_PROXIES", "10.0.0.0/33", "addresses or networks with commas between"),
        ("TRUEUP_TRUSTED_PROXIES", "proxy", "addresses or networks with commas between"),
        ("TRUEUP_INTERVAL", "0s", "a duration"),
        ("TRUEUP_INTERVAL", "-5m", "a duration"),
        ("TRUEUP_HTTP_ADDR", "localhost", "HOST:PORT"),
        ("TRUEUP_HTTP_ADDR", "1.2.3.4:65536", "HOST:PORT"),
        ("SYNC_TCP_ADDR", "::1:9001", "[IPV6]:PORT"),
        ("TRUEUP_ALLOW_LOCAL_REPOS", "maybe", "1, true, yes, on, or 0"),
        ("INFISICAL_ENABLED", "nein", "1, true, yes, on, or 0"),
        ("INFISICAL_SYNC_INTERVAL_MINUTES", "1.5", "a whole number of minutes"),
        ("TRUEUP_LOG_FORMAT", "xml", "text or json"),
        ("TRUEUP_SERVER", "trueup.example", "a URL such as"),
        ("TRUEUP_SERVER", "https://[", "a URL such as"),
        ("TRUEUP_SPEC_BRANCH", "-x", "one word"),
        ("TRUEUP_INVOKE_COMMAND", "'unclosed", "a command"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_is_accepted(name: str, value: str, words: str) -> None:
    text = problem({name: value})
    assert text.startswith(f"{name}: {value!r} is not accepted; give ")
    assert words in text
    assert "\n" not in text


def test_a_bad_flag_is_named_as_it_was_given() -> None:
    assert problem({}, http_addr="x").startswith("--http-addr: 'x' is not accepted")


def test_a_url_with_a_password_is_not_repeated() -> None:
    text = problem({"TRUEUP_SERVER": f"https://u:{canary('server')}@example.org"})
    assert text.startswith("TRUEUP_SERVER: the value is not accepted")
    assert canary("server") not in text


def test_all_mistakes_are_reported_together() -> None:
    text = problem({"TRUEUP_INTERVAL": "x", "INFISICAL_ENABLED": "x", "WEBHOOK_SECRET_FILE": "/no/such/file"})
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "WEBHOOK_SECRET_FILE",
        "TRUEUP_INTERVAL",
        "INFISICAL_ENABLED",
    ]


def test_no_spec_repository() -> None:
    with pytest.raises(SettingsError, match="set TRUEUP_SPEC_REPO, or give --spec-repo URL"):
        load().require_spec_repo()


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("5m", 300),
        ("24h", 86400),
        ("7d", 604800),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("1h30m", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [":9001", "127.0.0.1:9000", "[::1]:80", "host.example:0"])
def test_an_address_reads_as_it_was_written(text: str) -> None:
    assert str(parse_address(text)) == text


@given(st.text(max_size=30))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (parse_address, parse_duration):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)


def test_a_state_directory_that_cannot_be_entered_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    settings = load_settings({"TRUEUP_STATE_DIR": str(tmp_path)}, {})
    assert not settings.sees_state("secret-cache")
    with pytest.raises(SettingsError, match="cannot look into the state directory"):
        replace(settings, state_dir=tmp_path / "loop").sees_state("secret-cache")
