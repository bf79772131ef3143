"""A push of one ref by compare-and-swap, and what git says of it: done, lost to another writer, or refused.

Pure.

Format: `git help push`, OUTPUT. A line reads `<flag> TAB <from>:<to> TAB <summary> (<reason>)`.
"""

import re

from reconciler.errors import GitRefused, GitUnavailable
from reconciler.git.failures import failure, remote_words
from reconciler.git.process import GitResult
from reconciler.git.urls import shown

# The reason itself tells of a race: the lease did not hold, or the server compared and found another value.
_LOST = re.compile(
    r"stale info|fetch first|non-fast-forward|already exists|needs force|incorrect old value|cannot lock ref"
    r"|failed to lock|is at [0-9a-f]{40} but expected|Unable to create '[^']*\.lock'|unable to lock"
)
# A branch `a` and a branch `a/b` cannot both be; waiting does not help.
_IN_THE_WAY = re.compile(r"'(refs/[^']+)' exists; cannot create|directory file conflict")


def push_arguments(url: str, ref: str, oid: str, *, expected: str | None) -> list[str]:
    """`git push` of an object to `ref`, if that still is at `expected` (None: if there is no such ref)."""
    return [
        "push",
        "--porcelain",
        "--progress",
        "--no-verify",
        "--no-signed",
        "--no-follow-tags",
        f"--force-with-lease={ref}:{expected or ''}",
        "--",
        url,
        f"{oid}:{ref}",
    ]


def pushed(result: GitResult, url: str, ref: str) -> bool:
    """True when `ref` has the wanted value now, False when another writer was first.

    Raises GitRefused with the server's words for a hook or a protected branch, GitUnavailable when the
    server could not be asked or broke off.
    """
    status = _status_line(result.stdout.decode("utf-8", "replace"), ref)
    if status is None:
        raise failure(result.code, result.stderr, url)
    flag, summary = status
    if flag != "!":
        return True
    said = f"{summary}\n{result.stderr}"
    if in_the_way := _IN_THE_WAY.search(said):
        raise GitRefused(
            f"{shown(url)}: {shown(ref)} cannot be made beside {shown(in_the_way[1] or 'another ref')}",
            hint="rename that branch",
        )
    if _LOST.search(summary) or ("failed to update ref" in summary and _LOST.search(result.stderr)):
        return False
    if "remote failure" in summary or "failed to update ref" in summary:
        raise GitUnavailable(
            f"{shown(url)}: the server could not write {shown(ref)}: {remote_words(result.stderr)}"
        )
    reason = re.sub(r"^\[[^\]]*\] ", "", summary).strip("()")
    raise GitRefused(
        f"{shown(url)}: the server refused the push to {shown(ref)}: {reason}: {remote_words(result.stderr)}",
        hint="allow trueup to write this ref, or give it another one",
    )


def _status_line(stdout: str, ref: str) -> tuple[str, str] | None:
    for line in stdout.split("\n"):
        parts = line.split("\t", 2)
        if len(parts) == 3 and parts[1].endswith(f":{ref}"):
            return parts[0], parts[2]
    return None
