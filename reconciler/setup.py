"""`trueup init`, `key` and `validate`: what comes before the first pass."""

from collections.abc import Iterator
from pathlib import Path

from reconciler.errors import SettingsError, SpecInvalid
from reconciler.keys import MasterKey, write_key_file
from reconciler.primary import key_path, load_key, open_repositories
from reconciler.settings import Settings
from reconciler.spec.load import SPEC_FILE
from reconciler.spec.model import Spec
from reconciler.spec_source import load_at
from schema import read_schema

SCHEMA_FILE = "schema/spec.v1.schema.json"


def write_starter(settings: Settings, directory: Path) -> Iterator[str]:
    """Write a starter spec with its schema, and make the master key if there is none; yields what was done.

    Raises SettingsError if the directory has a spec already.
    """
    from reconciler.spec.starter import starter_spec

    spec = directory / SPEC_FILE
    schema = directory / SCHEMA_FILE
    try:
        schema.parent.mkdir(parents=True, exist_ok=True)
        with spec.open("x") as file:
            file.write(starter_spec())
        schema.write_bytes(read_schema("spec.v1.schema.json"))
    except FileExistsError:
        raise SettingsError(
            f"{spec} exists already", hint="edit it, and check it with `trueup validate`"
        ) from None
    except OSError as error:
        raise SettingsError(f"{spec} cannot be written: {error.strerror}") from None
    yield f"wrote {spec}: the spec, with a comment on each part"
    yield f"wrote {schema}: for your editor"
    if settings.master_key is None and not key_path(settings).exists():
        yield from make_key(settings)
    yield "next: edit the spec, `trueup validate`, commit and push it, then `trueup plan`"


def make_key(settings: Settings) -> Iterator[str]:
    """Make the master key in the state directory. Raises SettingsError if there is one."""
    if settings.master_key is not None:
        raise SettingsError(
            "TRUEUP_MASTER_KEY is set", hint="unset it to make a new key in the state directory"
        )
    path = key_path(settings)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{path.parent} cannot be made: {error.strerror}") from None
    key = MasterKey.generate()
    write_key_file(path, key)
    yield f"made the master key {key.key_id} in {path}"
    yield "back it up (`trueup key show --reveal`): with it and the status branch, a new machine carries on"


def describe_key(settings: Settings, *, reveal: bool) -> Iterator[str]:
    key = load_key(settings)
    if reveal:
        yield key.to_text()
        return
    where = "TRUEUP_MASTER_KEY" if settings.master_key is not None else key_path(settings)
    yield f"key id       {key.key_id}"
    yield f"kept in      {where}"
    yield f"agents pin   {key.tls_fingerprint}"
    yield f"status key   {key.signing_public_text}"
    yield f"             {key.signing_fingerprint} (`Trueup-Key:` of status commits)"


async def validate_pushed(settings: Settings) -> Spec:
    """The spec that is pushed, wholly valid; raises `SpecInvalid` with every problem otherwise."""
    repositories, url = open_repositories(settings), settings.require_spec_repo()
    await repositories.refresh(url)
    loaded = await load_at(
        repositories.mirror(url),
        await repositories.mirror(url).commit_of(f"refs/heads/{settings.spec_branch}"),
    )
    if loaded.spec is None or loaded.problems:
        raise SpecInvalid(list(loaded.problems))
    return loaded.spec
