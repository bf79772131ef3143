"""Texts of a spec that stand for numbers: durations, rates, shares, file modes."""

import re

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|KiB|MiB|GiB|kB|MB|GB)(?:/s)?")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_duration(text: str) -> float:
    """Seconds in `60s`, `5m`, `1h30m`, `250ms`. Raises ValueError for anything else."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("a duration is a number and a unit, such as 60s, 5m, 24h or 0s")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def parse_size(text: str) -> float:
    """Bytes in `128KiB`, or bytes a second in `50MiB/s`. Raises ValueError for anything else."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError("a size is a number and a unit, such as 128KiB, 4MiB or 50MiB/s")
    return float(match[1]) * _BYTES[match[2]]


def parse_percentage(text: str) -> float:
    """0.5 for `50%`. Raises ValueError unless it lies between `0%` and `100%`."""
    share = float(text.removesuffix("%")) / 100 if text.endswith("%") else -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError("a share is written 0% to 100%")
    return share


def parse_mode(text: str) -> int:
    """0o600 for `0600`. Raises ValueError for anything but a 0 and three octal digits."""
    if not re.fullmatch(r"0[0-7]{3}", text):
        raise ValueError('a mode is a 0 and three octal digits in quotes, such as "0600"')
    return int(text, 8)
