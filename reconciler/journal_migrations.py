"""The versions that a journal's file has had, each as what leads there from the one before."""

from collections.abc import Sequence
from typing import Final

MIGRATIONS: Final[Sequence[str]] = (
    """
    CREATE TABLE passes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        spec_revision TEXT NOT NULL,
        began_at TEXT NOT NULL,
        ended_at TEXT NOT NULL DEFAULT '',
        outcome TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE steps (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pass_id INTEGER NOT NULL,
        run TEXT NOT NULL,
        resource TEXT NOT NULL,
        action TEXT NOT NULL,
        config_hash TEXT NOT NULL,
        reason TEXT NOT NULL,
        revision TEXT NOT NULL,
        inputs TEXT NOT NULL,
        began_at TEXT NOT NULL,
        ended_at TEXT NOT NULL DEFAULT '',
        outcome TEXT NOT NULL DEFAULT '',
        end_reason TEXT NOT NULL DEFAULT '',
        message TEXT NOT NULL DEFAULT '',
        result TEXT NOT NULL DEFAULT '{}',
        published INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX steps_by_resource ON steps (resource, id);
    CREATE INDEX steps_by_pass ON steps (pass_id);
    CREATE INDEX steps_unpublished ON steps (id) WHERE outcome = 'succeeded' AND published = 0;
    CREATE INDEX steps_open ON steps (id) WHERE outcome = '';
    CREATE TABLE tasks (
        id TEXT NOT NULL UNIQUE,
        run TEXT NOT NULL,
        resource TEXT NOT NULL,
        node TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'SUCCESS', 'FAILED', 'RETRYING')),
        created_at TEXT NOT NULL
    );
    CREATE TABLE attempts (
        task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        began_at TEXT NOT NULL,
        ended_at TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL DEFAULT 'RUNNING',
        reason TEXT NOT NULL DEFAULT '',
        message TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (task, number)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE secret_reads (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        who TEXT NOT NULL,
        purpose TEXT NOT NULL,
        source TEXT NOT NULL,
        environment TEXT NOT NULL,
        keys TEXT NOT NULL,
        served TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE deploy_requests (
        id TEXT NOT NULL UNIQUE,
        nonce TEXT NOT NULL,
        digest TEXT NOT NULL,
        environment TEXT NOT NULL,
        unit TEXT NOT NULL,
        tag TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        decision INTEGER NOT NULL,
        said_by TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE UNIQUE INDEX deploy_requests_by_nonce ON deploy_requests (nonce) WHERE nonce != '';
    """,
    """
    ALTER TABLE passes ADD COLUMN trace TEXT NOT NULL DEFAULT '';
    ALTER TABLE passes ADD COLUMN causes TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE steps ADD COLUMN trace TEXT NOT NULL DEFAULT '';
    ALTER TABLE steps ADD COLUMN log TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN trace TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN project TEXT NOT NULL DEFAULT '';
    ALTER TABLE attempts ADD COLUMN log TEXT NOT NULL DEFAULT '';
    ALTER TABLE attempts ADD COLUMN details TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE events ADD COLUMN trace TEXT NOT NULL DEFAULT '';
    UPDATE tasks SET project = substr(resource, 10 + instr(substr(resource, 10), '/'))
        WHERE resource LIKE 'projects/%/%/%/%';
    UPDATE tasks SET project = substr(project, 1, instr(project, '/') - 1) WHERE project != '';
    """,
    """
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        digest TEXT NOT NULL UNIQUE,
        sender TEXT NOT NULL,
        delivery TEXT NOT NULL,
        kind TEXT NOT NULL,
        said TEXT NOT NULL,
        trace TEXT NOT NULL,
        at TEXT NOT NULL,
        acted_at TEXT NOT NULL DEFAULT '',
        repeats INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX deliveries_open ON deliveries (id) WHERE acted_at = '';
    """,
    """
    CREATE TABLE told (
        id INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        known TEXT NOT NULL
    );
    CREATE TABLE notifications (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        channel TEXT NOT NULL,
        severity TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT NOT NULL,
        trace TEXT NOT NULL,
        at TEXT NOT NULL,
        ended_at TEXT NOT NULL DEFAULT '',
        outcome TEXT NOT NULL DEFAULT '',
        problem TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX notifications_waiting ON notifications (channel, id) WHERE outcome = '';
    """,
    """
    ALTER TABLE steps ADD COLUMN known TEXT NOT NULL DEFAULT '';
    """,
)
"""Statement n brings a file of version n to version n + 1. Published ones never change."""
