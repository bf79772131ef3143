"""What an agent gives up of its rights: looked at in /proc, in processes of their own, as it lasts."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.errors import SettingsError
from agent.privileges import KEPT, become

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

SHOW = "import subprocess; print(open('/proc/self/status').read());"
CHILD = "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout)"


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fields(text: str, name: str) -> list[str]:
    return [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{name}:")]


def test_neither_the_agent_nor_a_command_gains_rights() -> None:
    shown = python(f"from agent.privileges import give_up; give_up(); {SHOW} {CHILD}")
    assert fields(shown, "NoNewPrivs") == ["1", "1"]


@needs_root
def test_what_file_work_takes_is_kept_and_nothing_else() -> None:
    mask = f"{sum(1 << number for number in KEPT.values()):016x}"
    shown = python(f"from agent.privileges import give_up; give_up(); {SHOW} {CHILD}")
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert fields(shown, name) == [mask, mask]
    assert {*fields(shown, "CapInh"), *fields(shown, "CapAmb")} == {"0" * 16}


@needs_root
def test_what_is_kept_is_enough_for_files(tmp_path: Path) -> None:
    """Others' directories are written, files are given away, and a directory's setgid bit stays."""
    others = tmp_path / "others"
    others.mkdir(mode=0o700)
    os.chown(others, 12345, 23456)
    others.chmod(0o2770)
    code = (
        "import os, sys; from agent.privileges import give_up; give_up(); os.chdir(sys.argv[1]);"
        "open('new', 'w').write('x'); os.chown('new', 1, 1); os.chmod('new', 0o640); os.utime('new', (1, 1));"
        "os.chmod('.', 0o2750)"
    )
    python(code, str(others))
    found = (others / "new").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_mtime) == (1, 1, 0o640, 1)
    assert others.stat().st_mode & 0o7777 == 0o2750


@needs_root
def test_becoming_a_user_hands_over_what_root_made_and_nothing_else(tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody")
    state = tmp_path / "state"
    (state / "tls").mkdir(parents=True)
    (state / "tls/agent.key").write_text("key\n")
    (state / "others").write_text("x\n")
    os.chown(state / "others", 1, 1)
    precious = tmp_path / "precious"
    precious.write_text("root's\n")
    (state / "link").symlink_to(precious)
    (state / "hard").hardlink_to(precious)
    code = (
        "import os, sys; from pathlib import Path; from agent.privileges import become;"
        "become('nobody', [Path(sys.argv[1]), Path('/nowhere')]);"
        "print(open('/proc/self/status').read()); print(os.getgroups())"
    )
    shown = python(code, str(state))
    assert fields(shown, "Uid") == ["\t".join([str(user.pw_uid)] * 4)]
    assert fields(shown, "CapEff") == fields(shown, "CapPrm") == ["0" * 16]
    assert "[0" not in shown.splitlines()[-1]
    for path in (state, state / "tls", state / "tls/agent.key"):
        assert path.stat().st_uid == user.pw_uid, path
    assert (state / "others").stat().st_uid == 1
    assert precious.stat().st_uid == 0


@needs_root
def test_a_user_who_cannot_read_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("x\n")
    (tmp_path / "private").chmod(0o600)
    code = (
        "import sys; from pathlib import Path; from agent.privileges import become\n"
        "from agent.errors import SettingsError\n"
        "try: become('nobody', [], needed=[Path(sys.argv[1])])\n"
        "except SettingsError as error: print(error)"
    )
    said = python(code, str(tmp_path / "private"))
    assert said.startswith(f"user: nobody cannot read {tmp_path}/private")


def test_a_user_that_there_is_not() -> None:
    with pytest.raises(SettingsError, match="there is no user 'nobody-at-all'"):
        become("nobody-at-all", [])


def test_who_one_is_already_one_may_stay() -> None:
    become(pwd.getpwuid(os.geteuid()).pw_name, [])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('user = "a b"', ":3: user: 'a b' is not the name of a user"),
        ('drop_privileges = "yes"', ":3: drop_privileges: is neither true nor false"),
        ('metrics_file = "/var/lib/x"', ":3: metrics_file: does not end in .prom"),
        ('metrics_file = "x.prom"', ":3: metrics_file: 'x.prom' is not an absolute path"),
    ],
    ids=["user", "drop", "suffix", "relative"],
)
def test_settings_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'node = "web-1"\nprimaries = ["h:1"]\n{line}\n')
    assert main(["run", "--config", str(config)]) == 1
    assert says in capsys.readouterr().err
