"""Sources that can tell that something changed: then memory does not answer, whatever `cache_ttl` says."""

from pathlib import Path

import pyrage
import pytest
import trio.testing

from reconciler.secrets.cache import SecretCache
from reconciler.secrets.credentials import Credentials
from reconciler.secrets.errors import SourceRefused
from reconciler.secrets.freshness import SourceState
from reconciler.secrets.source import SourceContext
from reconciler.secrets.store import SecretStore
from reconciler.spec.model import AgeSettings, EnvCredential, FileCredential, SecretSource
from tests.canaries import canary, may_hold
from tests.reconciler.secrets.repository_files import TestedRepository
from tests.reconciler.secrets.sources import env_file, plain, store_of, write_env_file

KEY = pyrage.x25519.Identity.generate()
FIRST, SECOND = canary("version-first"), canary("version-second")


def states(store: SecretStore) -> set[SourceState]:
    return {each.state for each in store.freshness().values()}


async def test_an_env_file_that_was_edited_serves_at_once(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    path = write_env_file(tmp_path / ".env", f"KEY={FIRST}\n")
    store = store_of(SourceContext.from_environ({}), env_file(path, cache_ttl=3600.0))
    assert plain(await store.values("local", "production")) == {"KEY": FIRST}
    cached = await store.values("local", "production")
    assert [value.is_cached for value in cached.values()] == [True]
    # Replaced as editors do it, and written in place.
    write_env_file(tmp_path / "new", f"KEY={SECOND}\n").rename(may_hold(path))
    fresh = await store.values("local", "production")
    assert plain(fresh) == {"KEY": SECOND}
    assert [value.is_cached for value in fresh.values()] == [False]
    write_env_file(path, f"KEY={FIRST}\nMORE=1\n")
    assert plain(await store.values("local", "production")) == {"KEY": FIRST, "MORE": "1"}


async def test_a_file_that_broke_is_told_at_once_and_one_that_was_mended_serves_at_once(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    path = write_env_file(tmp_path / ".env", "garbled\n")
    store = store_of(SourceContext.from_environ({}), env_file(path))
    with pytest.raises(SourceRefused, match="a name without"):
        await store.values("local", "production")
    # The clock stands still: the waiting time after the failure is not over.
    write_env_file(path, f"KEY={FIRST}\n")
    assert plain(await store.values("local", "production")) == {"KEY": FIRST}
    path.unlink()
    [value] = (await store.values("local", "production")).values()
    assert (value.value.reveal(), value.is_stale) == (FIRST, True)
    assert states(store) == {SourceState.STALE}
    [known] = store.freshness().values()
    assert "there is no such file" in (known.error or "")
    write_env_file(path, f"KEY={SECOND}\n")
    assert plain(await store.values("local", "production")) == {"KEY": SECOND}


async def test_a_commit_serves_in_the_next_pass(tmp_path: Path) -> None:
    def sealed(text: str) -> bytes:
        data: bytes = pyrage.encrypt(text.encode(), [KEY.to_public()])
        return data

    repository = TestedRepository(tmp_path)
    settings = AgeSettings(repository="infra", file="a.age", identity=EnvCredential(name="AGE_KEY"))
    context = SourceContext(Credentials({"AGE_KEY": str(KEY)}), files=repository.files())
    store = store_of(context, SecretSource(name="sealed", kind="age", settings=settings))
    repository.remote.commit({"a.age": sealed(f"KEY={FIRST}\n")})
    assert plain(await store.values("sealed", "production")) == {"KEY": FIRST}
    repository.begin_pass()
    await store.values("sealed", "production")
    assert states(store) == {SourceState.CACHED}
    repository.remote.commit({"a.age": sealed(f"KEY={SECOND}\n")})
    repository.begin_pass()
    assert plain(await store.values("sealed", "production")) == {"KEY": SECOND}
    # Away: nothing says that it changed, so memory serves, and `cache_ttl` decides for how long.
    repository.take_away()
    repository.begin_pass()
    assert plain(await store.values("sealed", "production")) == {"KEY": SECOND}
    assert states(store) == {SourceState.CACHED}


async def test_a_key_that_was_replaced_counts_once_files_are_read_again(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """It is no part of what tells that the source changed, and the clock stands still."""
    sealed, identity = tmp_path / "a.age", may_hold(tmp_path / "identity")
    sealed.write_bytes(pyrage.encrypt(f"KEY={FIRST}\n".encode(), [KEY.to_public()]))
    identity.write_text(str(pyrage.x25519.Identity.generate()))
    settings = AgeSettings(file=str(sealed), identity=FileCredential(path=str(identity)))
    source = SecretSource(name="sealed", kind="age", settings=settings, max_stale=3600.0)
    cache = SecretCache()
    store = SecretStore({"sealed": source}, context=SourceContext.from_environ({}), cache=cache)
    for key in (None, str(KEY)):
        identity.write_text(key or identity.read_text())
        with pytest.raises(SourceRefused):
            await store.values("sealed", "production")
    cache.look_again()
    assert plain(await store.values("sealed", "production")) == {"KEY": FIRST}
    # One that is broken meanwhile takes nothing away.
    identity.write_text("garbled")
    cache.look_again()
    [value] = (await store.values("sealed", "production")).values()
    assert (value.value.reveal(), value.is_stale) == (FIRST, True)
