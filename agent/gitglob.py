"""One line of a .gitignore as a regular expression that matches exactly what git matches by it. Pure.

Git matches bytes, so expression and path stand for bytes here: each character is one (Latin-1). A path of
a directory ends in `/`. An expression takes time linear in the path's length for each run of `*`: once the
first place for the piece after a wildcard is found, no other is ever tried, because none can be better.

What git does beyond its documentation, and this too:
- a `**` right behind the literal beginning of a pattern with a `/` in it may stand for several
  directories, though it is not between two `/`: `a**/b` matches `a/x/b`;
- `***` is `**`, a bracket never matches `/`, and a class such as `[:alpha:]` knows ASCII only;
- a pattern that ends in the middle of a bracket, or names no class there is, matches nothing.
"""

import re
from dataclasses import dataclass

from agent.filenames import as_on_disk

_SPECIAL = frozenset("*?[\\")
_SLASH = ord("/")
_ANY = "[^/]"
_NOTHING = "(?!)"

_CLASSES: dict[str, frozenset[int]] = {
    "alnum": frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
    "alpha": frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "blank": frozenset(b" \t"),
    "cntrl": frozenset({*range(32), 127}),
    "digit": frozenset(b"0123456789"),
    "graph": frozenset(range(33, 127)),
    "lower": frozenset(b"abcdefghijklmnopqrstuvwxyz"),
    "print": frozenset(range(32, 127)),
    "punct": frozenset(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    "space": frozenset(b" \t\n\r"),
    "upper": frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "xdigit": frozenset(b"0123456789abcdefABCDEF"),
}


@dataclass(frozen=True, slots=True)
class GitGlob:
    """`regex` matches a whole path as `as_bytes` gives it; `negated`: what it matches is taken back."""

    regex: str
    negated: bool


class BadGlob(ValueError):
    """A line that can never match: it ends in a backslash that escapes nothing."""


def as_bytes(path: str) -> str:
    """A path with one character for each byte that it has on disk."""
    return path if path.isascii() else as_on_disk(path).decode("latin-1")


def is_negated(line: str) -> bool:
    return line.startswith("!")


def translate(line: str, *, whole: bool) -> GitGlob | None:
    """The expression for a line; None for a comment or an empty one. Raises BadGlob.

    With `whole`, what ends in `/**` matches the directory before it as well, and not only what is in there.
    """
    text = as_bytes(_trimmed(line.removesuffix("\r")))
    if not text or text.startswith("#"):
        return None
    negated = is_negated(text)
    pattern = text.removeprefix("!")
    directory = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    if "/" in pattern:
        regex = _path_regex(pattern, whole=whole)
    else:
        regex = "(?:.*/)?" + _names(_tokens(pattern, stars=False))
    return GitGlob(rf"\A(?s:{regex}{'/' if directory else '/?'})\Z", negated)


def _trimmed(line: str) -> str:
    """Without spaces at the end, unless the first of them is escaped."""
    last: int | None = None
    at = 0
    while at < len(line):
        if line[at] == " ":
            last = at if last is None else last
        else:
            last = None
            at += line[at] == "\\"
            if at >= len(line):
                raise BadGlob(f"{line!r} ends in a backslash")
        at += 1
    return line if last is None else line[:last]


# --- from a pattern to pieces ---------------------------------------------------------------------

_NAME_PART = "*"
_FOLDERS = "**/"
"""Any number of directories, none as well."""
_SOME = "**\\/"
"""At least one directory, or the rest of one's name."""
_REST = "**"


def _tokens(pattern: str, *, stars: bool) -> list[str]:
    """Wildcards as above, `/`, and expressions for single characters. `stars`: `**` is more than `*`."""
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "*":
            after = at
            while after < len(pattern) and pattern[after] == "*":
                after += 1
            rest = pattern[after:]
            bounded = stars and after - at > 1 and (at == 0 or pattern[at - 1] == "/")
            at = after
            if bounded and not rest:
                tokens.append(_REST)
            elif bounded and rest.startswith("/"):
                tokens.append(_FOLDERS)
                at += 1
            elif bounded and rest.startswith("\\/"):
                tokens.append(_SOME)
                at += 2
            else:
                tokens.append(_NAME_PART)
        elif character == "[":
            regex, at = _bracket(pattern, at)
            tokens.append(regex)
        elif character == "?":
            tokens.append(_ANY)
            at += 1
        else:
            if character == "\\":
                at += 1
                if at == len(pattern):
                    raise BadGlob(f"{pattern!r} ends in a backslash")
            tokens.append(re.escape(pattern[at]) if pattern[at] != "/" else "/")
            at += 1
    return tokens


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """The expression for the bracket that begins at `at`, and where the pattern goes on."""
    end = len(pattern)
    at += 1
    negated = at < end and pattern[at] in "!^"
    at += negated
    members: set[int] = set()
    previous = ""
    first = True
    while first or (at < end and pattern[at] != "]"):
        first = False
        if at >= end:
            return _NOTHING, end
        character = pattern[at]
        if character == "\\":
            at += 1
            if at >= end:
                return _NOTHING, end
            previous = pattern[at]
            members.add(ord(previous))
        elif character == "-" and previous and at + 1 < end and pattern[at + 1] != "]":
            at += 1
            if pattern[at] == "\\":
                at += 1
                if at >= end:
                    return _NOTHING, end
            members.update(range(ord(previous), ord(pattern[at]) + 1))
            previous = ""
        elif character == "[" and pattern.startswith("[:", at):
            close = pattern.find("]", at + 2)
            if close < 0:
                return _NOTHING, end
            if close == at + 2 or pattern[close - 1] != ":":
                members.add(ord("["))
                previous = "["
            else:
                named = _CLASSES.get(pattern[at + 2 : close - 1])
                if named is None:
                    return _NOTHING, end
                members |= named
                previous = ""
                at = close
        else:
            members.add(ord(character))
            previous = character
        at += 1
    if at >= end:
        return _NOTHING, end
    taken = (set(range(1, 256)) - members if negated else members) - {_SLASH}
    if not taken:
        return _NOTHING, at + 1
    return "[" + "".join(f"\\x{value:02x}" for value in sorted(taken)) + "]", at + 1


# --- from pieces to an expression -----------------------------------------------------------------


def _path_regex(pattern: str, *, whole: bool) -> str:
    """The expression for a pattern that is matched against the whole path."""
    pattern = pattern.removeprefix("/")
    literal = next((at for at, character in enumerate(pattern) if character in _SPECIAL), len(pattern))
    tokens = _tokens(pattern[literal:], stars=True)
    rest = ""
    if tokens and tokens[-1] == _REST:
        del tokens[-1]
        rest = ".*" if whole or not (tokens or pattern[:literal].endswith("/")) else ".+"
    first, *others = _cut(tokens)
    behind = pattern[:literal] or "/"
    regex = [re.escape(pattern[:literal]), _names(first, behind=behind)]
    for number, (before, *piece) in enumerate(others, start=1):
        lead = "(?:|.*?/)" if before == _FOLDERS else ".*?/"
        matching = lead + _names(piece, behind="/" if first else behind)
        first = [before]
        regex.append(matching if number == len(others) else f"(?>{matching})")
    return "".join(regex) + rest


def _cut(tokens: list[str]) -> list[list[str]]:
    """What stands before the first wildcard for directories, then each with what stands behind it."""
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if token in (_FOLDERS, _SOME):
            pieces.append([])
        pieces[-1].append(token)
    return pieces


def _names(tokens: list[str], *, behind: str = "/") -> str:
    """The expression for names and `/`; `behind` is what stands before them in the pattern, if not a `/`."""
    regex: list[str] = []
    name: list[str] = []
    for each in tokens:
        if each == "/":
            regex += [_name(name, beginning=behind.endswith("/")), "/"]
            name, behind = [], "/"
        else:
            name.append(each)
    regex.append(_name(name, beginning=behind.endswith("/")))
    return "".join(regex)


def _name(tokens: list[str], *, beginning: bool) -> str:
    """One name, or the end of one; each `*` but its last takes no more than it must."""
    if beginning and tokens and all(token == _NAME_PART for token in tokens):
        return f"{_ANY}+"  # no name is empty, though there is nothing behind the `/` of a directory
    pieces: list[list[str]] = [[]]
    for each in tokens:
        if each == _NAME_PART:
            pieces.append([])
        else:
            pieces[-1].append(each)
    head, *others = ("".join(piece) for piece in pieces)
    regex = [head]
    for number, piece in enumerate(others, start=1):
        matching = f"{_ANY}*?{piece}"
        regex.append(matching if number == len(others) else f"(?>{matching})")
    return "".join(regex)
