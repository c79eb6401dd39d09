"""Guessing passwords becomes slow, and nobody is locked out by somebody else."""

from __future__ import annotations

import pytest

from annotation_queue.errors import TooManyLogins
from annotation_queue.people.attempts import FREE, FREE_OF_ADDRESS, FREE_OF_NAME, KEPT_S, LONGEST_S, Attempts


@pytest.fixture
def attempts(clock):
    return Attempts(clock)


def wait_s(attempts, name="vera", address="10.0.0.1"):
    """Seconds that the queue makes this attempt wait; 0: it is admitted, and counts as a failure."""
    try:
        attempts.begin(name, address)
    except TooManyLogins as error:
        return error.wait_s
    return 0


def fail(attempts, times, name="vera", address="10.0.0.1"):
    assert [wait_s(attempts, name, address) for _ in range(times)] == [0] * times


def test_the_wait_doubles_up_to_a_minute_and_never_becomes_a_lock(attempts, clock):
    fail(attempts, FREE)
    waits = []
    for _ in range(10):
        waits.append(wait_s(attempts))
        assert wait_s(attempts) == waits[-1], "an attempt that came too early does not count"
        clock.advance(waits[-1])
        fail(attempts, 1)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert LONGEST_S == 60


def test_a_success_forgets_the_failures_of_its_pair_only(attempts, clock):
    fail(attempts, FREE)
    fail(attempts, FREE, name="victor")
    clock.advance(1)
    attempts.begin("vera", "10.0.0.1")()
    fail(attempts, FREE)
    assert wait_s(attempts, name="victor") == 0
    assert wait_s(attempts, name="victor") == 2


def test_successes_of_an_office_never_make_it_wait(attempts):
    for i in range(3 * FREE_OF_ADDRESS):
        attempts.begin(f"name-{i}", "10.0.0.1")()
        attempts.begin("vera", f"10.0.1.{i}")()
    assert wait_s(attempts) == 0


def test_the_owner_of_a_name_gets_in_while_the_whole_internet_guesses(attempts, clock):
    for i in range(FREE_OF_NAME + 20):
        fail(attempts, 1, address=f"10.{i}.0.1")
    assert wait_s(attempts, address="10.0.0.1") == 60, "who failed before waits"
    clock.advance(10)
    fail(attempts, 5, address="10.200.0.1", name="victor")
    attempts.begin("vera", "10.200.0.1")()


def test_an_address_that_guesses_many_names_waits_with_all_of_them(attempts, clock):
    for i in range(FREE_OF_ADDRESS):
        fail(attempts, 1, name=f"name-{i}")
    assert wait_s(attempts, name="new") == 1
    assert wait_s(attempts, name="new", address="10.0.0.2") == 0
    clock.advance(1)
    assert wait_s(attempts, name="new") == 0
    assert wait_s(attempts, name="newer") == 2


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "", True),
    ],
)
def test_addresses_of_one_subscriber_count_together(attempts, one, other, together):
    fail(attempts, FREE, address=one)
    assert (wait_s(attempts, address=other) > 0) is together


def test_failures_are_forgotten_after_an_hour(attempts, clock):
    fail(attempts, FREE)
    clock.advance(KEPT_S)
    fail(attempts, FREE)
