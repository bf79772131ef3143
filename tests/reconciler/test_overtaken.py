"""A primary comes back to what it had done and not told, and another one has acted in the meantime."""

import shutil
from copy import copy
from dataclasses import replace

import msgspec
import pytest

from reconciler.errors import TrueupError
from reconciler.overtaken import OVERTAKEN, mark_of
from reconciler.status.documents import Recorded, SyncStatus
from tests.canaries import may_hold
from tests.reconciler.test_reconcile import WEB, Installation, installed

__all__ = ["installed"]

SITE = "projects/branch/site/web-1/srv+site"


def beside(first: Installation) -> Installation:
    """Another primary on the same repositories, with the same key."""
    other = copy(first)
    state = first.root / "other"
    state.mkdir(mode=0o700)
    shutil.copy(first.settings.state_dir / "master.key", state / "master.key")
    may_hold(state / "master.key")
    other.settings = replace(first.settings, state_dir=state)
    return other


async def untold(installed: Installation, version: int) -> None:
    """A pass that deploys a version and cannot say so."""
    installed.release(version)
    allow = installed.refuse_pushes()
    with pytest.raises(TrueupError):
        await installed.one_pass()
    allow()


def recorded(installed: Installation) -> bytes:
    return installed.spec.files("refs/heads/trueup/status")["services/staging/web.yaml"]


def events(installed: Installation) -> list[str]:
    with installed.journal() as journal:
        return [event.resource for event in journal.events(kind=OVERTAKEN)]


async def test_what_another_primary_has_recorded_since_counts(installed: Installation) -> None:
    await installed.one_pass()
    await untold(installed, 2)
    other = beside(installed)
    installed.release(3)
    await other.one_pass()
    assert installed.deployed == ["one", "2", "3"]
    there = recorded(installed)
    done = await installed.one_pass()
    assert (done.plan.steps, installed.deployed) == ((), ["one", "2", "3"])
    assert recorded(installed) == there
    assert events(installed) == [WEB]
    # It is told once.
    await installed.one_pass()
    assert events(installed) == [WEB]


async def test_the_same_from_both_is_nothing_to_tell(installed: Installation) -> None:
    await installed.one_pass()
    await untold(installed, 2)
    await beside(installed).one_pass()
    assert installed.deployed == ["one", "2", "2"]
    assert (await installed.one_pass()).plan.steps == ()
    assert events(installed) == []


async def test_a_step_that_was_interrupted_and_that_another_primary_has_done(installed: Installation) -> None:
    await installed.one_pass()
    async with installed.primary() as primary:
        known = mark_of(WEB, await primary.status.read())
    with installed.journal() as journal:
        journal.begin_step(journal.begin_pass("main@sha1:1"), WEB, "deploy", "h", "test", known=known)
    # Nobody was there meanwhile: it is to be done again.
    assert await installed.planned() == [(WEB, "deploy")]
    installed.release(2)
    await beside(installed).one_pass()
    assert await installed.planned() == []
    assert (await installed.one_pass()).plan.steps == ()
    assert installed.deployed == ["one", "2"]
    with installed.journal() as journal:
        assert journal.interrupted() == ()
    assert events(installed) == [WEB]


async def test_what_nobody_else_touched_goes_on_as_after_any_kill(installed: Installation) -> None:
    await installed.one_pass()
    await untold(installed, 2)
    await beside(installed).planned()
    done = await installed.one_pass()
    assert (done.plan.steps, done.status_commit is not None) == ((), True)
    assert (installed.deployed, events(installed)) == (["one", "2"], [])


def test_marks_of_what_is_not_recorded() -> None:
    assert mark_of(WEB, Recorded()) == mark_of("releases/staging/app", Recorded()) != ""
    # That a step is under way is noted, and is no doing of anybody else.
    noted = SyncStatus(id=SITE, node="web-1", target_path="/srv/site")
    assert mark_of(SITE, Recorded().put(noted)) == mark_of(SITE, Recorded())
    attempted = msgspec.structs.replace(noted, last_attempted_revision="main@sha1:1")
    assert mark_of(SITE, Recorded().put(attempted)) != mark_of(SITE, Recorded())
