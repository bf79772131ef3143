"""The first files of an installation: a spec that is valid, and a key that nothing overwrites."""

from pathlib import Path

import pytest

from reconciler.errors import SettingsError
from reconciler.primary import key_path, load_key
from reconciler.settings import Settings, load_settings
from reconciler.setup import SCHEMA_FILE, describe_key, make_key, write_starter
from reconciler.spec.files import read_spec_files
from reconciler.spec.load import load_or_raise
from tests.canaries import may_hold


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    may_hold(tmp_path / "state" / "master.key")
    return load_settings({"TRUEUP_STATE_DIR": str(tmp_path / "state")})


def test_a_starter_is_valid_and_has_its_schema_and_a_key(settings: Settings, tmp_path: Path) -> None:
    lines = list(write_starter(settings, tmp_path / "spec"))
    assert load_or_raise(read_spec_files(tmp_path / "spec")).version == 1
    assert (tmp_path / "spec" / SCHEMA_FILE).stat().st_size > 1000
    assert key_path(settings).stat().st_mode & 0o777 == 0o600
    assert load_key(settings).to_text() not in "".join(lines)


def test_nothing_is_overwritten(settings: Settings, tmp_path: Path) -> None:
    list(write_starter(settings, tmp_path / "spec"))
    (tmp_path / "spec" / "trueup.yaml").write_text("mine\n")
    key = key_path(settings).read_bytes()
    with pytest.raises(SettingsError, match="exists already"):
        list(write_starter(settings, tmp_path / "spec"))
    with pytest.raises(SettingsError, match="will not be overwritten"):
        list(make_key(settings))
    assert (tmp_path / "spec" / "trueup.yaml").read_text() == "mine\n"
    assert key_path(settings).read_bytes() == key


def test_the_key_is_shown_only_on_request(settings: Settings) -> None:
    list(make_key(settings))
    key = load_key(settings)
    shown = "\n".join(describe_key(settings, reveal=False))
    assert key.key_id in shown
    assert key.tls_fingerprint in shown
    assert key.to_text() not in shown
    assert list(describe_key(settings, reveal=True)) == [key.to_text()]


def test_a_key_of_the_settings_makes_no_file(settings: Settings, tmp_path: Path) -> None:
    list(make_key(settings))
    given = load_settings(
        {
            "TRUEUP_STATE_DIR": str(tmp_path / "other"),
            "TRUEUP_MASTER_KEY": load_key(settings).to_text(),
        }
    )
    list(write_starter(given, tmp_path / "spec"))
    assert not key_path(given).exists()
    with pytest.raises(SettingsError, match="TRUEUP_MASTER_KEY is set"):
        list(make_key(given))
