"""Checks the signatures of tags and commits with git, gpg and ssh-keygen, against a given set of signers.

Nothing of the account takes part: gpg has a home of its own for each check, which holds the allowed keys and
nothing else, and starts no agent; ssh-keygen gets the allowed lines. What was found is remembered by object
and signers, for an hour, as keys expire; not what could not be read.
"""

import signal
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Final

import trio

from reconciler.child import Ended, NotStarted, run_child
from reconciler.errors import LookFailed
from reconciler.git.failures import timed_out, words_of
from reconciler.git.mirror import Mirror
from reconciler.git.objects import TAGS, parse_batch
from reconciler.git.process import git_result, inherited_environment
from reconciler.git.signers import MAX_SIGNERS, UNREADABLE, SignatureInvalid, Signers, why_invalid
from reconciler.git.urls import shown

KEPT: Final = 4096
MAX_AGE: Final = 3600.0
"""Seconds that a result is believed."""

_GPG_DEADLINE: Final = 60.0
_MAX_TAG: Final = 1024 * 1024
_GPG_CONF: Final = """\
no-autostart
disable-dirmngr
no-auto-key-retrieve
no-auto-key-locate
trust-model always
no-default-keyring
keyring {keyring}
"""

_Key = tuple[str, str, str, str]


class Signatures:
    """Checks, and remembers what it found."""

    def __init__(self) -> None:
        self._found: OrderedDict[_Key, tuple[float, str | None]] = OrderedDict()

    async def check_tag(
        self, mirror: Mirror, name: str, commit: str, signers: Signers, *, oid: str | None = None
    ) -> None:
        """Raise SignatureInvalid unless the tag is an annotated one of this name, on this commit, and signed
        by one of the signers. `oid`: its object, where no ref names it yet.
        """
        if oid is None:
            oid = (await mirror.refs()).all.get(f"{TAGS}{name}", "")
        where = f"{shown(mirror.url)}: the tag {shown(name)}"
        raw = await _tag_object(mirror, oid)
        if raw is None:
            raise SignatureInvalid(
                f"{where} is not accepted: it is not signed", hint="sign the next one with `git tag -s`"
            )
        if (fault := _other_tag(raw, name, commit)) is not None:
            raise SignatureInvalid(f"{where} is not accepted: {fault}")
        await self._check(mirror, "verify-tag", oid, where, signers)

    async def check_commit(self, mirror: Mirror, commit: str, signers: Signers) -> None:
        """Raise SignatureInvalid unless the commit is signed by one of the signers."""
        await mirror.commit_object(commit)
        where = f"{shown(mirror.url)}: the commit {commit}"
        await self._check(mirror, "verify-commit", commit, where, signers)

    async def _check(self, mirror: Mirror, verb: str, oid: str, where: str, signers: Signers) -> None:
        key = (verb, oid, signers.path, signers.digest)
        at, fault = self._found.pop(key, (-MAX_AGE, None))
        if trio.current_time() - at >= MAX_AGE:
            at, fault = trio.current_time(), await verify(mirror, verb, oid, signers)
        if fault != UNREADABLE:  # or ssh-keygen was ended by somebody, which looks the same
            self._found[key] = at, fault
        while len(self._found) > KEPT:
            self._found.popitem(last=False)
        if fault is not None:
            raise SignatureInvalid(f"{where} is not accepted: {fault}")


async def _tag_object(mirror: Mirror, oid: str) -> bytes | None:
    """The bytes of a tag object; None for another object: a lightweight tag's commit."""

    async def look() -> bytes | None:
        output = await mirror.look(["cat-file", "--batch"], stdin=f"{oid}\n".encode(), max_output=_MAX_TAG)
        kind, content = parse_batch(output).get(oid, ("missing", b""))
        return content if kind == "tag" else None

    return await mirror.mended(look)


async def verify(mirror: Mirror, verb: str, oid: str, signers: Signers) -> str | None:
    """What is wrong with an object's signature; None: one of the signers made it.

    Raises SignatureInvalid where the signers' PGP keys cannot be read, LookFailed and GitUnavailable where
    nothing could be found out.
    """
    with tempfile.TemporaryDirectory(prefix="trueup-signers-") as name:
        home, allowed, keyring = Path(name) / "gnupg", Path(name) / "allowed_signers", Path(name) / "keys.gpg"
        home.mkdir(mode=0o700)
        (home / "gpg.conf").write_text(_GPG_CONF.format(keyring=keyring))
        allowed.write_text(signers.ssh)
        keys = [await _gpg(home, signers, "--dearmor", stdin=key.encode()) for key in signers.pgp]
        keyring.write_bytes(b"".join(keys))
        if keys:
            listed = await _gpg(home, signers, "--with-colons", "--list-keys")
            if listed.count(b"\npub:") + listed.startswith(b"pub:") < len(keys):
                raise _no_keys(signers, "some are of no kind that gpg knows")
        settings = {
            "gpg.program": "gpg",
            "gpg.openpgp.program": "gpg",
            "gpg.x509.program": "false",
            "gpg.ssh.program": "ssh-keygen",
            "gpg.ssh.allowedSignersFile": str(allowed),
            "gpg.ssh.revocationFile": "",
            "gpg.minTrustLevel": "fully",
        }
        config = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        result = await git_result(
            [*config, verb, "--raw", oid],
            git_dir=mirror.path,
            deadline=mirror.options.deadline,
            env={"GNUPGHOME": str(home)},
            where=mirror.url,
        )
    if result.code == 0:
        return None
    if result.code == -signal.SIGPIPE:
        # git dies where ssh-keygen ends before it has read the content: it saw at once that it cannot read
        # the signature. A content that fits into the pipe may get there before that, or not.
        return UNREADABLE
    if "cannot run" in result.stderr or result.code < 0:
        raise LookFailed(
            f"{shown(mirror.url)}: no signature can be checked: {words_of(result.stderr)}",
            hint="install openssh-client and gnupg",
        )
    return why_invalid(result.stderr, signers.path)


async def _gpg(home: Path, signers: Signers, *args: str, stdin: bytes = b"") -> bytes:
    outcome = await run_child(
        ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-tty", *args],
        cwd=home,
        env=inherited_environment(),
        deadline=_GPG_DEADLINE,
        max_output=4 * MAX_SIGNERS,
        stdin=stdin,
    )
    match outcome:
        case Ended(code=0, stdout=stdout):
            return stdout
        case Ended(stderr=stderr):
            raise _no_keys(signers, words_of(stderr))
        case NotStarted():
            raise LookFailed("no PGP signature can be checked: there is no gpg", hint="install gnupg")
        case _:
            raise timed_out("gpg", _GPG_DEADLINE)


def _no_keys(signers: Signers, why: str) -> SignatureInvalid:
    return SignatureInvalid(
        f"the PGP keys in the file of allowed signers {signers.path} cannot be read: {why}",
        hint="write each with `gpg --armor --export`",
    )


def _other_tag(raw: bytes, name: str, commit: str) -> str | None:
    """Whether what was signed is another tag, which somebody gave this name. Pure."""
    wanted = [b"object " + commit.encode(), b"type commit", b"tag " + name.encode("utf-8", "surrogateescape")]
    if raw.split(b"\n\n", 1)[0].split(b"\n")[:3] == wanted:
        return None
    return "its object is that of another tag, or of another commit, put under this name"
