"""The token for GitHub: the one that the spec names, else that of one of the usual variables."""

from typing import Final

from reconciler.github.errors import NoToken
from reconciler.secrets.credentials import VariableNotSet
from reconciler.secrets.store import SecretStore
from reconciler.secrets.values import Secret
from reconciler.spec.model import Credential, EnvCredential

TOKENS: Final = ("GH_PAT", "GITHUB_TOKEN")
"""Variables, or files that NAME_FILE names, that hold the token where none is named."""


async def read_token(
    store: SecretStore, credential: Credential | None, *, place: object, key: str, environment: str = ""
) -> Secret:
    """The token for a place at GitHub; `key` is where the spec would name another, for the message.

    Raises NoToken, and SettingsError for a credential that cannot be read.
    """
    if credential is not None:
        return await store.credential(credential, environment)
    for name in TOKENS:
        try:
            return await store.credential(EnvCredential(name=name))
        except VariableNotSet:
            continue
    raise NoToken(
        f"No auth token ({' or '.join(TOKENS)}) available for {place}",
        hint=f"set one, or name another under {key}",
    )
