"""How messages leave the journal: tried again in their own time, given up at last, by who leads alone."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from reconciler.journal import Journal
from reconciler.kept_notifications import KEEP, MAX_AGE, MAX_WAITING, KeptNotification, Told
from reconciler.notifications.news import Alarm, Known
from reconciler.notifications.notifier import FIRST, Notifier
from reconciler.notifications.sending import DEADLINE, NotSent, one_at_a_time, send
from reconciler.notifications.wording import Draft
from reconciler.primary import Primary, open_primary
from reconciler.reconcile import reconcile
from reconciler.secrets.values import Secret
from reconciler.spec.model import EnvCredential
from tests.canaries import canary
from tests.delivering import Place
from tests.gitrepo import GitRepo
from tests.notified import Receiver

# Of one of apprise's plug-ins, on Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

CHANNEL = EnvCredential(name="OPS_URL")
SPEC = "version: 1\nnotifications: [{url: {env: OPS_URL}}]\n"


def draft(title: str) -> Draft:
    return Draft(CHANNEL, "failure", title, f"the body of {title}")


def tell(journal: Journal, *titles: str) -> None:
    journal.notifications.tell(Told(1, Known()), [draft(title) for title in titles])


@asynccontextmanager
async def informed(root: Path, receiver: Receiver) -> AsyncIterator[Primary]:
    """A primary that has made a pass, and so knows the channel of its spec."""
    place = Place.make(root, SPEC, OPS_URL=receiver.address(canary("ops-path")), TRUEUP_LEASE_RENEW="10m")
    async with open_primary(place.settings) as primary:
        await reconcile(primary, patience=0)
        yield primary


async def test_a_failed_one_is_tried_again_later_each_time(tmp_path: Path, mock_clock: MockClock) -> None:
    waits = trio.Event()

    def draw() -> float:
        nonlocal waits
        waits.set()
        return 1.0

    with Receiver(status=500) as receiver:
        async with informed(tmp_path, receiver) as primary, trio.open_nursery() as nursery:
            tell(primary.journal, "first", "second")
            nursery.start_soon(Notifier(primary, draw=draw).run)
            for attempt, pause in enumerate((FIRST, 2 * FIRST, 4 * FIRST), 1):
                await trio.to_thread.run_sync(receiver.wait_seen, attempt)
                await waits.wait()
                waits = trio.Event()
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(pause - 0.1)
                await trio.testing.wait_all_tasks_blocked()
                assert [post.title for post in receiver.seen] == ["first"] * attempt
                if attempt == 3:
                    receiver.status = 200
                mock_clock.jump(0.2)
            taken = await trio.to_thread.run_sync(receiver.wait_taken, 2)
            assert [post.title for post in taken] == ["first", "second"]
            assert len({post.key for post in receiver.seen}) == 2
            # What comes while nothing waits is sent at once.
            tell(primary.journal, "third")
            primary.notices.tell()
            await trio.to_thread.run_sync(receiver.wait_taken, 3)
            nursery.cancel_scope.cancel()


async def test_what_could_not_be_sent_for_a_day_is_given_up(tmp_path: Path) -> None:
    with Receiver() as receiver:
        async with informed(tmp_path, receiver) as primary:
            before = datetime.now(UTC) - MAX_AGE - timedelta(minutes=1)
            with Journal(primary.settings.state_dir / "journal.sqlite", now=lambda: before) as then:
                tell(then, "yesterday's")
            tell(primary.journal, "today's")
            await Notifier(primary).drain()
            assert [post.title for post in receiver.seen] == ["today's"]
            [event] = primary.journal.events(kind="notification_given_up")
            told = "yesterday's: it could not be sent for a day"
            assert (event.resource, event.message) == ("notifications/0", told)
            today, yesterday = primary.journal.notifications.newest()
            assert (today.outcome, yesterday.outcome) == ("sent", "given_up")
            assert primary.journal.notifications.waiting() == ()


async def test_the_oldest_are_given_up_where_too_many_wait(tmp_path: Path) -> None:
    titles = [f"number {n}" for n in range(MAX_WAITING + 3)]
    with Receiver(status=500) as receiver:
        async with informed(tmp_path, receiver) as primary:
            tell(primary.journal, *titles)
            await Notifier(primary).drain()
            assert [post.title for post in receiver.seen] == ["number 3"]
            assert len(primary.journal.events(kind="notification_given_up")) == 3
            waiting = primary.journal.notifications.waiting()
            assert [message.title for message in waiting] == titles[3:]


async def test_a_channel_that_left_the_spec_gets_nothing(tmp_path: Path) -> None:
    with Receiver() as receiver:
        async with informed(tmp_path, receiver) as primary:
            tell(primary.journal, "too late")
            GitRepo(tmp_path / "org" / "spec.git").commit({"trueup.yaml": "version: 1\n"})
            await reconcile(primary, patience=0)
            await Notifier(primary).drain()
            assert receiver.seen == []
            [event] = primary.journal.events(kind="notification_given_up")
            assert event.message == "too late: the spec names that channel no more"


async def test_who_does_not_lead_sends_nothing(tmp_path: Path) -> None:
    with Receiver() as receiver:
        async with informed(tmp_path, receiver) as primary:
            settings, spec = primary.settings, primary.spec
            tell(primary.journal, "waits")
        async with open_primary(settings, standing=True) as standby:
            standby.spec = spec
            await Notifier(standby).drain()
            assert receiver.seen == []
            [message] = standby.journal.notifications.waiting()
            assert message.title == "waits"


async def test_a_service_that_never_answers_is_not_waited_for(mock_clock: MockClock) -> None:
    message = KeptNotification(1, "a" * 12, "", "failure", "title", "body", "", "")
    with Receiver() as receiver, receiver.not_answering():
        async with trio.open_nursery() as nursery:

            async def time_passes() -> None:
                await trio.to_thread.run_sync(receiver.wait_seen, 1)
                mock_clock.jump(DEADLINE)

            nursery.start_soon(time_passes)
            with pytest.raises(NotSent, match="no answer within 30 seconds"):
                await send(Secret(receiver.address()), message, one_at_a_time())


@pytest.mark.parametrize("address", ["", "json://", "nothing://{}@host", "slack://{}", "{}"])
async def test_a_wrong_address_is_not_told(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    secret = canary("wrong-address")
    message = KeptNotification(1, "a" * 12, "", "failure", "title", "body", "", "")
    with pytest.raises(NotSent) as raised:
        await send(Secret(address.format(secret)), message, one_at_a_time())
    assert "apprise" in str(raised.value)
    assert secret not in str(raised.value) and secret not in "".join(capfd.readouterr())


async def test_an_address_of_several_services_is_refused() -> None:
    message = KeptNotification(1, "a" * 12, "", "failure", "title", "body", "", "")
    with Receiver() as one, Receiver(status=500) as other:
        with pytest.raises(NotSent, match="make a channel for each"):
            await send(Secret(f"{one.address()}, {other.address()}"), message, one_at_a_time())
        assert one.seen == other.seen == []


async def test_what_a_service_answers_brings_no_part_of_the_address_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = canary("address-path")
    message = KeptNotification(1, "a" * 12, "", "failure", "title", "body", "", "")
    caplog.set_level(logging.DEBUG)
    with Receiver(garbled=True) as receiver:
        await send(Secret(receiver.address(secret)), message, one_at_a_time())
        assert secret in receiver.taken[0].path
    assert secret not in caplog.text


async def test_services_that_never_answer_hold_up_no_other(tmp_path: Path) -> None:
    names = [f"HUNG_{number}" for number in range(5)]
    channels = ", ".join(f"{{url: {{env: {name}}}}}" for name in (*names, "OPS_URL"))
    with Receiver() as hung, Receiver() as receiver, hung.not_answering():
        addresses = {name: hung.address() for name in names}
        place = Place.make(
            tmp_path,
            f"version: 1\nnotifications: [{channels}]\n",
            OPS_URL=receiver.address(),
            TRUEUP_LEASE_RENEW="10m",
            **addresses,
        )
        async with open_primary(place.settings) as primary:
            await reconcile(primary, patience=0)
            drafts = [Draft(EnvCredential(name=name), "failure", "hung", "body") for name in names]
            primary.journal.notifications.tell(Told(1, Known()), drafts)
            assert primary.journal.notifications.count_waiting() == len(names)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Notifier(primary).run)
                await trio.to_thread.run_sync(hung.wait_seen, len(names))
                tell(primary.journal, "told")
                primary.notices.tell()
                await trio.to_thread.run_sync(receiver.wait_taken, 1)
                nursery.cancel_scope.cancel()


def test_what_was_told_and_what_is_to_be_sent_are_one_write(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    known = Known(alarms={"nodes/a": Alarm("failed", "degraded")}, awaiting={"environments/p app": "v1"})
    with Journal(path) as journal:
        assert journal.notifications.told() is None
        tell(journal, "earlier")
        with pytest.raises(AttributeError):
            journal.notifications.tell(Told(2, known), [draft("one"), None])  # type: ignore[list-item]
        assert journal.notifications.told() == Told(1, Known())
        journal.notifications.tell(Told(2, known), [draft("one")])
    with Journal(path) as journal:
        assert journal.notifications.told() == Told(2, known)
        assert [message.title for message in journal.notifications.waiting()] == ["earlier", "one"]


def test_the_journal_forgets_old_ones_but_those_that_wait(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    long_ago = datetime.now(UTC) - timedelta(days=200)
    with Journal(path, now=lambda: long_ago) as journal:
        tell(journal, "sent", "waits")
        journal.notifications.end(journal.notifications.waiting()[0], "sent")
    with Journal(path) as journal:
        journal.end_pass(journal.begin_pass("main@sha1:1"), "succeeded")
        assert [message.title for message in journal.notifications.newest()] == ["waits"]
        tell(journal, *map(str, range(KEEP)))
        for message in journal.notifications.waiting():
            if message.title != "waits":
                journal.notifications.end(message, "sent")
        tell(journal, "last")
        titles = [message.title for message in journal.notifications.newest(2 * KEEP)]
        assert (len(titles), titles[0], titles[-1], "0" in titles) == (KEEP + 1, "last", "waits", False)
