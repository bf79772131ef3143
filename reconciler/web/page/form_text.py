"""What people write into a form's longer fields, a line for each thing. Pure."""

from collections.abc import Mapping
from typing import Any

from reconciler.web.refusals import RequestRefused


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def labels_of(text: str) -> dict[str, str]:
    """KEY=VALUE, one a line. Raises RequestRefused."""
    found: dict[str, str] = {}
    for line in lines_of(text):
        key, mark, value = line.partition("=")
        if not (key.strip() and mark):
            raise RequestRefused(400, f"labels: {line!r} is not KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def labels_text(labels: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}={value}" for key, value in labels.items())
