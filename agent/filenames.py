"""Names of files that are not UTF-8, and what stands for one where text is wanted. Pure.

A name on a disk, or in a tree of git, is bytes. As text it has a lone surrogate for each byte that is no
UTF-8 (`surrogateescape`), and no message, JSON or MessagePack can hold that. Everything else is text as it
is; what becomes of these depends on what for:

- shown to people, in a line: `named`, in quotes, with the bytes escaped as a shell takes them;
- carried as text, and read by people: `escaped`, the same without quotes. Another file may have that name;
- carried as text that must not be taken for a file's name: `escaped_apart`;
- hashed, where two names must differ whatever their bytes: `json_form` and `msgpack_form`.

Nothing here makes a name of these forms again: where that is needed, bytes are kept.
"""


def is_text(name: str) -> bool:
    """Whether a name is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_on_disk(name: str) -> bytes:
    """The bytes of a name."""
    return name.encode("utf-8", "surrogateescape")


def named(path: object, most: int | None = None) -> str:
    """A path in quotes, for people: the bytes of one that is not UTF-8, up to so many, as `$'...'` takes them
    in a shell. What is no text at all is as Python has it."""
    if not isinstance(path, str) or is_text(path):
        return repr(path)
    return repr(as_on_disk(path)[:most]).removeprefix("b")


def escaped(path: str) -> str:
    """A path; of one that is not UTF-8 each byte that is no part of a character as `\\xff`."""
    return as_on_disk(path).decode("utf-8", "backslashreplace")


def escaped_apart(path: str) -> str:
    """As `escaped`, and what is changed by that is marked with a NUL, which no name on a disk has."""
    return path if is_text(path) else "\0" + escaped(path)


def json_form(path: str) -> str | list[int]:
    """What stands for a path in JSON that is hashed: no two have the same."""
    return path if is_text(path) else list(path.encode("utf-8", "surrogatepass"))


def msgpack_form(path: str) -> str | bytes:
    """What stands for a path in MessagePack that is hashed: its bytes, of another type than text."""
    return path if is_text(path) else as_on_disk(path)
