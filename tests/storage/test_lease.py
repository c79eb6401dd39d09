"""Leases in a store: one holder at a time, also when holders are killed or paused."""

from __future__ import annotations

import threading

import pytest

from storage import lease
from storage.lease import InUse, Lease, LockLost, leased


class Clock:
    """Time for `storage.lease`. A process that waits lets it pass, and then the others do something."""

    def __init__(self) -> None:
        self.now = 0.0
        self.meanwhile = [lambda: None]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile[0]()


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(lease, "time", made)
    return made


def take(blobs) -> Lease:
    """A lease whose holder does not renew it: it was killed, or is paused."""
    return Lease(blobs, "publish", lease._take(blobs, "publish", True))


def keys(blobs) -> list[str]:
    return list(blobs.keys("leases/"))


def test_a_lease_excludes_others_until_it_is_released(blobs, clock):
    with leased(blobs, "publish") as first:
        with pytest.raises(InUse, match="leases/publish/000000000001"), leased(blobs, "publish", wait=False):
            pass
        with leased(blobs, "deciding", wait=False) as other:
            other.check()
        first.check()
    with leased(blobs, "publish", wait=False) as second:
        assert second.token == 2
    assert clock.now == 0, "nobody waited"
    assert keys(blobs) == ["leases/deciding/000000000001", "leases/publish/000000000002"], "no token is left behind"


def test_a_waiting_process_gets_the_lease_when_it_is_released(blobs, clock):
    first = take(blobs)
    clock.meanwhile[0] = first.release
    with leased(blobs, "publish") as second:
        assert (second.token, clock.now) == (2, lease.POLL_S)


def test_the_lease_of_a_killed_process_is_free_after_its_time_and_not_before(blobs, clock):
    take(blobs)
    with leased(blobs, "publish"):
        assert clock.now == lease.TTL_S


def test_a_lease_that_is_renewed_is_kept_for_any_time(blobs, clock):
    first, ends = take(blobs), 10 * lease.TTL_S

    def meanwhile():
        first.release() if clock.now >= ends else first.renew()

    clock.meanwhile[0] = meanwhile
    with leased(blobs, "publish"):
        assert clock.now == ends


def test_a_holder_renews_its_lease_while_it_works(disk, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.0)
    with leased(disk, "publish") as held:
        while b'"renewed": 3' not in disk.read("leases/publish/000000000001"):
            held.check()


def test_a_renewal_that_is_on_its_way_does_not_undo_the_release(disk, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.0)
    real, begun, released = lease._write, threading.Event(), threading.Event()

    def write(blobs, name, token, state):
        if "renewed" in state:
            begun.set()
            released.wait(0.3)  # the release would come first, if it did not wait for this
        real(blobs, name, token, state)
        if "released" in state:
            released.set()

    monkeypatch.setattr(lease, "_write", write)
    with leased(disk, "publish"):
        assert begun.wait(60)
    with leased(disk, "publish", wait=False) as second:
        assert second.token == 2


def test_a_paused_holder_that_wakes_learns_that_its_lease_is_lost_and_disturbs_nobody(blobs, clock, caplog):
    paused = take(blobs)
    with leased(blobs, "publish") as second:
        for act in (paused.check, paused.renew):
            with pytest.raises(LockLost, match="token 2, not 1"):
                act()
        paused.release()
        assert "is not released" in caplog.text
        paused.keep()
        second.check()
        with pytest.raises(InUse), leased(blobs, "publish", wait=False):
            pass
    with leased(blobs, "publish"), pytest.raises(LockLost, match="token 3, not 1"):
        paused.check()


def test_a_process_that_is_paused_before_it_takes_a_lease_does_not_get_an_old_token(disk, clock, monkeypatch):
    create, tried, other = type(disk).create, list[bool](), list[Lease]()

    def overtaken(blobs, key, data):
        """Before this process makes its token, others have the lease twice, and remove the token that it makes."""
        if not tried:
            tried.append(True)
            take(blobs).release()
            other.append(take(blobs))
        return create(blobs, key, data)

    monkeypatch.setattr(type(disk), "create", overtaken)
    with pytest.raises(InUse), leased(disk, "publish", wait=False):
        pass
    other[0].check()
    assert keys(disk) == ["leases/publish/000000000002"]
