"""A task that prints its secrets in every way it can, and a primary that crashes: no value comes out."""

import sqlite3
from pathlib import Path

import pytest

from tests.bad_world import API, DATABASE, Case, make_case
from tests.canaries import MARKER, canary, may_hold, redact, search_text, search_tree

PASSWORD = canary("printed") + "/pä$w\"o'rd+&\\x ~end"
LINES = (f"{canary('line-1')}it's", f"  {canary('line-2')}\t$x", canary("line-3"))
KEY = "\n".join(("-----BEGIN KEY-----", *LINES, "-----END KEY-----", ""))
PIECES = ("pä$", "w\"o'", "rd+&", "~end", "it's", "BEGIN KEY", "END KEY")
"""Parts of the values beside their markers, as they are."""

TASKS = r"""
import base64, json, os, re, subprocess, sys, textwrap, urllib.parse
from invoke import task

def show(value):
    raw = value.encode()
    def say(label, text):
        print(f"{label}: {text}", flush=True)
    say("plain", value)
    say("repr", repr(value))
    say("json", json.dumps({"v": value}))
    say("json without escapes", json.dumps({"v": value}, ensure_ascii=False))
    for lead in ("", "u", "us", "user:"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            say("base64", encode(lead.encode() + raw + b"@host").decode())
    for width in (64, 76):
        print("\n".join(textwrap.wrap(base64.b64encode(raw).decode(), width)), flush=True)
    say("url", f"https://u:{urllib.parse.quote(value, safe='')}@h/?p={urllib.parse.quote_plus(value)}")
    say("url in lower case", re.sub("%..", lambda escape: escape[0].lower(), urllib.parse.quote(value)))
    say("hex", raw.hex())
    say("HEX", raw.hex().upper())
    for line in value.splitlines():
        say("line", line)
    for character in value:  # one write for each
        os.write(1, character.encode())
    os.write(1, b"\n")
    half = len(raw) // 2
    os.write(2, raw[:half])
    os.write(2, raw[half:] + b"\n")

@task
def deploy(c):
    for name in ("DB_PASSWORD", "DB_KEY"):
        show(os.environ[name])
    common = 'set -x; : "$DB_PASSWORD" "$DB_KEY"; export -p'
    subprocess.run(["sh", "-c", common])
    quoted = '{ set +x; } 2>/dev/null; printf "%q " "$DB_PASSWORD" "$DB_KEY"; echo "${DB_KEY@Q}"'
    subprocess.run(["bash", "-c", f"{common}; {quoted}"])
    c.run('echo "$DB_PASSWORD $DB_KEY"', pty=True)
    if os.environ["TRUEUP_SERVICE"] == "database":
        sys.exit(f"failed with {os.environ['DB_PASSWORD']} {os.environ['DB_KEY']}")
"""


def fill(case: Case) -> None:
    may_hold(case.env_file).write_text(
        "".join(f"{name}={quoted(value)}\n" for name, value in (("DB_PASSWORD", PASSWORD), ("DB_KEY", KEY)))
    )
    case.world.app.commit({"tasks.py": TASKS})
    case.world.app.tag("v1.0.1")
    uses = "secrets: [{source: local, keys: [DB_PASSWORD, DB_KEY]}]"
    good = case.good.replace("secrets: [{source: local, keys: [DB_PASSWORD]}]", uses)
    case.commit(good.replace('paths: ["api/**"]', f'paths: ["api/**"]\n    {uses}'))


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def assert_silent(text: str, place: str) -> None:
    assert search_text(text, place) == [], redact(text)
    # A cut marker too: the output may have been split anywhere.
    assert MARKER[: len(MARKER) // 2] not in text, redact(text)
    assert [piece for piece in PIECES if piece in text] == [], redact(text)


@pytest.mark.parametrize("options", [(), ("-vv",), ("--log-format", "json")], ids=str)
async def test_nothing_of_a_value_comes_out(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with make_case(tmp_path) as case:
        fill(case)
        ran = await case.world.trueup("reconcile", "-o", "json", *options, expect=4)
        outcomes = ran.document["outcomes"]
        assert (outcomes[API]["state"], outcomes[DATABASE]["state"]) == ("succeeded", "failed")
        assert "failed with ***" in outcomes[DATABASE]["message"]
        assert ran.stderr.count("***") > 50
        assert_silent(ran.stdout, "standard output")
        assert_silent(ran.stderr, "standard error")
        for path, content in case.world.status().items():
            assert_silent(content.decode(), path)
        assert search_tree(case.world.state, allowed=[case.world.state / "master.key"]) == []
        journal = case.world.state / "journal.sqlite"
        connection = sqlite3.connect(journal)
        dump = "\n".join(connection.iterdump())
        connection.close()
        assert "plain: ***" in dump
        assert_silent(dump, "the journal")


CRASH = """\
import sys, threading
from reconciler import gather
from reconciler.cli import main

class Dropped:
    def __init__(self, value):
        self.value = value

    def __del__(self):
        raise LookupError(f"dropped {self.value}")

    def __repr__(self):
        return self.value

def in_thread(value):
    raise KeyError(f"in a thread {value}")

def fail(secrets, store):
    [values] = secrets.values()
    value = values["DB_PASSWORD"].value.reveal()
    Dropped(value)
    thread = threading.Thread(target=in_thread, args=(value,))
    thread.start()
    thread.join()
    raise RuntimeError(f"the password is {value}") from ValueError(value)

gather._degraded = fail
main()
"""


@pytest.mark.parametrize("options", [("-vv",), ()], ids=str)
async def test_a_crash_is_printed_with_its_values_masked(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with make_case(tmp_path) as case:
        case.commit(case.good)
        ran = await case.world.run(["-c", CRASH, "reconcile", *options])
        assert ran.exit_code == 1
        assert_silent(ran.stdout + ran.stderr, "what the process printed")
        assert "LookupError: dropped ***" in ran.stderr
        assert "Exception ignored in: function" in ran.stderr
        assert "KeyError: 'in a thread ***'" in ran.stderr
        if options:
            assert "RuntimeError: the password is ***" in ran.stderr
            assert "\nValueError: ***" in ran.stderr
            assert "Traceback (most recent call last)" in ran.stderr
        else:
            assert "error: internal error: RuntimeError at <string>" in ran.stderr
            assert "the password is" not in ran.stderr
