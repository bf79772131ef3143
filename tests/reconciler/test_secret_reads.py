"""Who got which secret: what is kept, how it is found again, and that there is an end to it."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler import journal_migrations, secret_reads
from reconciler.journal import Journal
from reconciler.secret_reads import CUT, ReadFor, SecretRead, reads_of
from tests.canaries import canary
from tests.reconciler.facts import secret

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WEB = "services/staging/web"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite", now=lambda: MOMENT) as opened:
        yield opened


def read(source: str, *keys: str, who: str = WEB) -> SecretRead:
    return SecretRead(who, "deploy", source, "staging", keys, "env_file")


def test_values_are_told_by_source_and_by_how_they_were_served() -> None:
    value = canary("audited")
    found = reads_of(
        WEB,
        ReadFor.DEPLOY,
        [
            "text of the spec",
            secret("B", value),
            secret("A", value),
            secret("C", value, source="cache", is_cached=True, is_stale=True),
            secret("D", value, origin="vault", source="cache", is_cached=True),
            secret("E", value, is_fallback=True),
        ],
    )
    assert [(each.source, each.served, each.keys) for each in found] == [
        ("local", "env_file", ("A", "B")),
        ("local", "fallback", ("E",)),
        ("local", "stale", ("C",)),
        ("vault", "cache", ("D",)),
    ]
    assert value not in repr(found)


def test_reads_are_found_by_source_and_by_key(journal: Journal) -> None:
    journal.record_secret_reads([read("local", "A", "B"), read("vault", "B"), read("vault", "A%")])
    step = journal.begin_step(journal.begin_pass("r"), WEB, "deploy", "h", "why", reads=[read("other", "Z")])
    assert [record.id for record in journal.steps()] == [step]
    everything = journal.secret_reads.recent()
    assert [each.source for each in everything] == ["other", "vault", "vault", "local"]
    assert {each.at for each in everything} == {"2026-03-01T12:00:00.000+00:00"}
    assert journal.secret_reads.recent("vault") == (read("vault", "A%"), read("vault", "B"))
    assert journal.secret_reads.recent("B") == (read("vault", "B"), read("local", "A", "B"))
    assert journal.secret_reads.recent("b") == ()
    assert journal.secret_reads.recent(limit=1) == (read("other", "Z"),)
    assert journal.secret_reads.names() == {"local", "vault", "other", "A", "B", "A%", "Z"}


def test_old_reads_go(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_reads, "KEEP_READS", 3)
    for number in range(5):
        journal.record_secret_reads([read("local", f"K{number}")])
    assert [each.keys for each in journal.secret_reads.recent()] == [("K4",), ("K3",), ("K2",)]


def test_a_list_without_end_is_cut_and_says_so(journal: Journal) -> None:
    journal.record_secret_reads([read("local", *(f"KEY_{number}" for number in range(20_000)))])
    [kept] = journal.secret_reads.recent()
    assert kept.keys[0] == "KEY_0"
    assert kept.keys[-1] == CUT


def test_a_journal_from_before_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    old = sqlite3.connect(path)
    old.executescript(journal_migrations.MIGRATIONS[0])
    old.execute("INSERT INTO events (at, kind, resource, reason, message) VALUES ('t', 'k', 'r', 'x', 'y')")
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    with Journal(path) as journal:
        journal.record_secret_reads([read("local", "A")])
        assert journal.secret_reads.recent() == (read("local", "A"),)
        assert len(journal.events()) == 1
