"""Logs of the agent: one line for each event, on standard error, as text or JSON."""

import datetime
import json
import logging
import sys
from typing import Literal, TextIO


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
    return fields if isinstance(fields, dict) else {}
