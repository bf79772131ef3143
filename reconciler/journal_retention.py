"""What the journal forgets, by number and by age, so that its file stays as large as it is."""

import sqlite3
from datetime import datetime, timedelta
from typing import Final

from reconciler.journal_records import as_text

KEEP_PASSES: Final = 500
KEEP_STEPS: Final = 50_000
KEEP_TASKS: Final = 5_000
KEEP_EVENTS: Final = 10_000
KEEP_LOGS: Final = 2_000
"""Excerpts of what was printed, of steps and of attempts each; those of older ones are emptied."""

KEEP_FOR: Final = timedelta(days=180)
"""Nothing is older; who got which secret is kept for `KEEP_READS_FOR`."""
KEEP_READS_FOR: Final = timedelta(days=400)


def forget_old(cursor: sqlite3.Cursor, now: datetime) -> None:
    """Inside a transaction of the journal. Tables that count for themselves lose here what is too old."""
    oldest = as_text(now - KEEP_FOR)
    cursor.execute(
        "DELETE FROM passes WHERE id <= (SELECT max(id) FROM passes) - ? OR began_at < ?",
        (KEEP_PASSES, oldest),
    )
    # The last step of each resource stays: it may be unpublished or interrupted, however old.
    cursor.execute(
        "DELETE FROM steps WHERE (pass_id < (SELECT min(id) FROM passes)"
        " OR id <= (SELECT max(id) FROM steps) - ?)"
        " AND id NOT IN (SELECT max(id) FROM steps GROUP BY resource)",
        (KEEP_STEPS,),
    )
    cursor.execute(
        "DELETE FROM tasks WHERE (rowid <= (SELECT max(rowid) FROM tasks) - ? OR created_at < ?)"
        " AND state NOT IN ('PENDING', 'RUNNING', 'RETRYING')",
        (KEEP_TASKS, oldest),
    )
    cursor.execute(
        "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ? OR at < ?", (KEEP_EVENTS, oldest)
    )
    cursor.execute("DELETE FROM secret_reads WHERE at < ?", (as_text(now - KEEP_READS_FOR),))
    cursor.execute("DELETE FROM deploy_requests WHERE at < ?", (oldest,))
    cursor.execute("DELETE FROM deliveries WHERE at < ? AND acted_at != ''", (oldest,))
    cursor.execute("DELETE FROM notifications WHERE at < ? AND outcome != ''", (oldest,))
    cursor.execute(
        "UPDATE steps SET log = '' WHERE log != '' AND id <="
        " (SELECT id FROM steps WHERE log != '' ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (KEEP_LOGS,),
    )
    cursor.execute(
        "UPDATE attempts SET log = '' WHERE log != '' AND ended_at <="
        " (SELECT ended_at FROM attempts WHERE log != '' ORDER BY ended_at DESC LIMIT 1 OFFSET ?)",
        (KEEP_LOGS,),
    )
