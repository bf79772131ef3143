"""What holders and those who wait conclude from a lease: when it is taken, when it stops being good."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import KeyMismatch, LeaseUnreadable
from reconciler.keys import MasterKey
from reconciler.lease import (
    BEATS,
    GAP,
    Lease,
    Take,
    Tenure,
    Timing,
    Wait,
    Watch,
    judge,
    released,
    renewed,
    watched,
)
from reconciler.lease_record import MAX_SIZE, parse, render

KEY = MasterKey(bytes(range(32)))
OTHER_KEY = MasterKey(bytes(range(1, 33)))
TIMING = Timing()
THEIRS = Lease(holder="theirs", host="a.example.org", epoch=7, beat=3)
OURS = Lease(holder="ours", host="b.example.org", epoch=7, beat=3)


def verdict(lease: Lease | None, watch: Watch, now: float, timing: Timing = TIMING) -> Take | Wait:
    return judge(lease, watch, now, me="ours", host="b.example.org", timing=timing, first_epoch=1000)


def test_the_times_leave_room_for_steps_to_end_and_for_takeover_within_a_minute() -> None:
    assert (TIMING.renew, TIMING.sure, TIMING.stop, TIMING.expiry) == (15, 30, 35, 45)
    # Commands get SIGKILL 5 seconds after SIGTERM: what was told to stop has ended when another may begin.
    assert TIMING.expiry - TIMING.stop >= 10
    # The holder dies right after a renewal. One who waits sees that after a look and an answer of git; then
    # waits, looks again and takes it. Git may take three seconds for each of the three.
    answer = 3.0
    assert TIMING.look + answer + TIMING.expiry + answer + answer <= 60
    # Of the attempts to renew that fail, there is time for several before the holder stops.
    assert TIMING.stop - TIMING.renew >= 2 * (TIMING.deadline + TIMING.retry)
    # A round of beats takes so long that nobody who looks often enough to count takes one for another.
    assert BEATS > GAP + 1


@pytest.mark.parametrize("lease", [None, released(THEIRS), OURS, released(OURS)])
def test_what_nobody_else_holds_is_taken_at_once(lease: Lease | None) -> None:
    taken = verdict(lease, Watch("a", 10, 10), 10)
    assert isinstance(taken, Take)
    assert (taken.lease.holder, taken.lease.released) == ("ours", False)
    # The epoch grows exactly where another primary had been there.
    wanted = 1000 if lease is None else 7 if lease.holder == "ours" else 8
    assert taken.lease.epoch == wanted
    assert taken.lease != lease


def test_a_holder_is_left_alone_until_it_was_silent_for_long_enough() -> None:
    watch = watched(Watch(), "a", 100, THEIRS)
    assert verdict(THEIRS, watch, 100) == Wait(45)
    watch = watched(watch, "a", 144, THEIRS)
    assert verdict(THEIRS, watch, 144) == Wait(1)
    assert isinstance(verdict(THEIRS, watch, 145), Take)
    # It moved: everything begins anew.
    assert verdict(THEIRS, watched(watch, "b", 145, THEIRS), 145) == Wait(45)


def test_who_did_not_look_for_long_counts_anew() -> None:
    watch = watched(Watch(), "a", 0, THEIRS)
    asleep = watched(watch, "a", 16 * 15, THEIRS)
    assert verdict(THEIRS, asleep, 16 * 15) == Wait(45)


def test_those_who_wait_are_as_patient_as_the_holder_needs() -> None:
    slow = Lease(holder="theirs", host="a", epoch=1, renew=60)
    watch = watched(Watch(), "a", 0, slow)
    assert verdict(slow, watch, 0) == Wait(180)
    assert verdict(THEIRS, watched(Watch(), "a", 0, THEIRS), 0, Timing(60)) == Wait(180)


def test_a_renewal_whose_answer_was_lost_is_still_ours() -> None:
    tenure = Tenure(OURS, "a", 0)
    assert tenure.is_ours(renewed(OURS))
    for other in (None, THEIRS, released(OURS), Lease(holder="ours", host="b", epoch=8)):
        assert not tenure.is_ours(other)
    assert tenure.is_sure(29.9, TIMING)
    assert not tenure.is_sure(30, TIMING)


def test_renewals_differ_and_come_round() -> None:
    seen, lease = [], OURS
    for _ in range(2 * BEATS):
        lease = renewed(lease)
        seen.append(render(lease, KEY))
    assert len(set(seen)) == BEATS
    assert all(one != other for one, other in pairwise(seen))


@given(
    st.builds(
        Lease,
        holder=st.text(max_size=32),
        host=st.text(max_size=64),
        epoch=st.integers(0, 2**53),
        beat=st.integers(0, BEATS),
        renew=st.floats(0.001, 1e6, allow_nan=False),
        released=st.booleans(),
    )
)
def test_a_lease_is_read_as_it_was_written(lease: Lease) -> None:
    content = render(lease, KEY)
    assert len(content) <= MAX_SIZE
    assert parse(content, KEY) == lease


def test_a_lease_of_another_key_is_refused_with_what_to_do() -> None:
    with pytest.raises(KeyMismatch, match=r"refs/trueup/lease was signed with another master key") as refused:
        parse(render(OURS, OTHER_KEY), KEY)
    assert "git push <repository> :refs/trueup/lease" in str(refused.value)


def test_a_lease_that_was_touched_is_refused() -> None:
    content = render(OURS, KEY)
    with pytest.raises(KeyMismatch, match="does not fit"):
        parse(content.replace(b'"epoch":7', b'"epoch":9'), KEY)
    with pytest.raises(KeyMismatch, match="not signed"):
        parse(b"tree 0\n\nsome commit\n", KEY)
    with pytest.raises(KeyMismatch, match="not signed"):
        parse(b"", KEY)


def test_a_lease_of_a_later_version_is_not_none() -> None:
    later = Lease(version=2, holder="theirs", host="a", epoch=1)
    with pytest.raises(LeaseUnreadable, match="version 2"):
        parse(render(later, KEY), KEY)


def test_patience_ends() -> None:
    assert TIMING.expiry < TIMING.patience == 60
