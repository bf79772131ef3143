"""Makes annotated tags: objects in a mirror that no ref names yet, signed with an ssh key where one is given.

`Mirror.push("refs/tags/<name>", <the object's id>, expected=None)` then creates the tag at the remote, or
finds that somebody else took the name. The signature is the one that `git tag -s` makes with
`gpg.format=ssh`; an agent (SSH_AUTH_SOCK) is asked where the file holds a public key.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from reconciler.child import Ended, Killed, NotStarted, run_child
from reconciler.errors import GitRefused, SettingsError
from reconciler.git.failures import GitFailed, timed_out, words_of
from reconciler.git.mirror import Mirror, split_person
from reconciler.git.objects import TAGS
from reconciler.git.process import inherited_environment
from reconciler.git.urls import DECEIVING, check_ref, shown

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a tag's message."""

_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ARMOR: Final = re.compile(r"^-----BEGIN ", re.MULTILINE)
_SIGNATURE: Final = b"-----BEGIN SSH SIGNATURE-----\n"
_MAX_SIGNATURE: Final = 64 * 1024


async def make_tag(
    mirror: Mirror,
    name: str,
    commit: str,
    message: str,
    *,
    tagger: str,
    now: datetime,
    trailers: Mapping[str, str] = {},
    signing_key: Path | None = None,
) -> str:
    """The id of a new tag object `name` on `commit`, which has to be in the mirror. No ref is touched.

    `trailers` become the last paragraph of the message. `tagger` reads `Name <email>`. Equal arguments give
    the same object while nothing is signed. Raises UnknownRevision, GitRefused for a name or message that
    no tag can have, SettingsError for a signing key that cannot be used.
    """
    check_ref(f"{TAGS}{name}")
    person, email = split_person(tagger)
    await mirror.commit_object(commit)
    head = (
        f"object {commit}\ntype commit\ntag {name}\ntagger {person} <{email}> {int(now.timestamp())} +0000\n"
    )
    content = f"{head}\n{whole_message(message, trailers)}".encode("utf-8", "replace")
    if len(content) > MAX_MESSAGE or b"\0" in content:
        raise GitRefused(
            f"{shown(mirror.url)}: the message of the tag {shown(name)!r} cannot be stored",
            hint=f"it is text of at most {MAX_MESSAGE} bytes",
        )
    if signing_key is not None:
        content += await sign(content, signing_key, deadline=mirror.options.deadline)
    async with mirror.exclusive() as lock:
        output = await mirror.write(["mktag"], lock, stdin=content)
    return output.decode().strip()


def whole_message(message: str, trailers: Mapping[str, str]) -> str:
    """A tag's message with these trailers as its last paragraph, each on one line. Pure."""
    for key in trailers:
        if _KEY.fullmatch(key) is None:
            raise GitRefused(f"{shown(key)!r} is no name of a trailer", hint="use letters, digits and -")
    lines = [f"{key}: {' '.join(DECEIVING.sub(' ', value).split())}" for key, value in trailers.items()]
    paragraphs = [message.strip() or "Release", "\n".join(lines)]
    # A line that starts like a signature would be taken for one by everybody who reads the tag.
    return _ARMOR.sub(" -----BEGIN ", "\n\n".join(filter(None, paragraphs))) + "\n"


async def sign(content: bytes, key: Path, *, deadline: float) -> bytes:
    """The armored ssh signature of a git object. Raises SettingsError where the key cannot be used."""
    outcome = await run_child(
        ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(key)],
        cwd=Path("/"),
        env=inherited_environment(),
        deadline=deadline,
        max_output=_MAX_SIGNATURE,
        stdin=content,
    )
    match outcome:
        case Ended(code=0, stdout=stdout) if stdout.startswith(_SIGNATURE):
            return stdout
        case Ended(stderr=stderr):
            raise SettingsError(
                f"TRUEUP_SIGNING_KEY_FILE: ssh-keygen cannot sign with {key}: {words_of(stderr)}",
                hint="name an ssh private key without a passphrase that is readable by trueup alone, "
                "or the public key of one that an ssh agent holds",
            )
        case NotStarted():
            raise GitFailed("ssh-keygen could not be started", hint="install openssh-client")
        case Killed():
            raise timed_out("ssh-keygen", deadline)
