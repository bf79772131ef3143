"""Logs of the agent: one line for each event, on standard error, as text or JSON."""

import datetime
import json
import logging
import re
import sys
from contextvars import ContextVar
from typing import Literal, TextIO

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The id under which the primary's log has what is done here; of the task that is under way."""

_TRACE = re.compile(r"[0-9a-f]{32}")


def bind_trace(trace: str) -> None:
    """Let every line of this task of trio have it; what is no trace id is left out."""
    TRACE.set(trace if _TRACE.fullmatch(trace) else "")


def setup_logs(log_format: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send the logs of this process to `stream` (standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logger = logging.getLogger("trueup")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Text(logging.Formatter):
    """`2026-01-01T12:00:00Z INFO connected primary=primary.example:9001`"""

    def format(self, record: logging.LogRecord) -> str:
        line = [_time(record), record.levelname, visible(record.getMessage())]
        line += [f"{key}={_quoted(str(value))}" for key, value in _fields(record).items()]
        text = " ".join(line)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _time(record), "level": record.levelname, "event": record.getMessage()}
        entry |= {key: str(value) for key, value in _fields(record).items()}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def visible(text: str) -> str:
    """Text from elsewhere, fit for a terminal: whatever is not printable is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(text: str) -> str:
    plain = visible(text)
    if plain and " " not in plain and '"' not in plain and "=" not in plain:
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: object = getattr(record, "fields", None)
    found = dict(fields) if isinstance(fields, dict) else {}
    return found | {"trace": trace} if (trace := TRACE.get()) else found
