"""Who may try to log in, and how soon."""

from __future__ import annotations

from qlaunch.machine.doorman import (
    FREE_FAILURES,
    LONGEST_DELAY,
    MEMORY,
    MOST_ADDRESSES,
    MOST_TRYING,
    MOST_WAITING,
    Doorman,
    network,
)
from qlaunch.machine.gateway import client_address, client_key


def fail(doorman: Doorman, address: str, times: int, now: float = 0.0) -> None:
    for number in range(times):
        doorman.tries(address, f"{address}.{number}", now)
        doorman.left(f"{address}.{number}", now)


def test_the_first_mistakes_cost_nothing_and_later_ones_more_and_more() -> None:
    doorman, waits = Doorman(), []
    for number in range(FREE_FAILURES + 8):
        now = 1000.0 * number / 10
        waits.append(doorman.arrive("10.0.0.1", now))
        doorman.waited("10.0.0.1", now)
        doorman.failed("10.0.0.1", now)
    assert waits[: FREE_FAILURES + 1] == [0.0, 0.0, 0.0, 1.0]
    assert waits[FREE_FAILURES:] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_who_comes_many_times_at_once_waits_one_after_the_other() -> None:
    doorman = Doorman()
    fail(doorman, "10.0.0.1", FREE_FAILURES)
    waits = [doorman.arrive("10.0.0.1", 0.0) for _ in range(MOST_WAITING + 1)]
    assert waits == [*(float(number) for number in range(1, MOST_WAITING + 1)), "refused"]
    assert doorman.arrive("10.0.0.2", 0.0) == 0.0


def test_who_is_in_has_nothing_held_against_him() -> None:
    doorman = Doorman()
    fail(doorman, "10.0.0.1", FREE_FAILURES)
    doorman.tries("10.0.0.1", "a", 1.0)
    doorman.logged_in("a", 1.0)
    assert doorman.arrive("10.0.0.1", 1.0) == 0.0
    assert doorman.left("a", 2.0) is None


def test_only_so_many_try_at_once() -> None:
    doorman = Doorman()
    for number in range(MOST_TRYING):
        assert doorman.arrive("10.0.0.1", 0.0) == 0.0
        doorman.tries("10.0.0.1", str(number), 0.0)
    assert doorman.arrive("10.0.0.1", 0.0) == "refused"
    assert doorman.left("0", 0.0) == ("10.0.0.1", 1)
    assert doorman.arrive("10.0.0.1", 0.0) == 0.0


def test_mistakes_are_forgotten_after_a_while() -> None:
    doorman = Doorman()
    fail(doorman, "10.0.0.1", 20)
    assert doorman.arrive("10.0.0.1", MEMORY + 1) == 0.0


def test_the_book_does_not_grow_without_end() -> None:
    doorman = Doorman()
    for number in range(3 * MOST_ADDRESSES):
        doorman.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", float(number))
    assert len(doorman._records) <= MOST_ADDRESSES
    doorman.failed("10.99.0.1", 4000.0)
    assert doorman._records["10.99.0.1"].failures == 1


def test_the_longest_wait_is_bounded() -> None:
    doorman = Doorman()
    fail(doorman, "10.0.0.1", 5000)
    assert doorman.arrive("10.0.0.1", 0.0) == LONGEST_DELAY


def test_an_ipv6_host_is_counted_by_its_network() -> None:
    assert network("2001:db8:1:2::5") == network("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert network("fe80::1%eth0") == "fe80::/64"
    assert network("::ffff:10.0.0.1") == "10.0.0.1"


def test_a_connection_over_tls_has_a_name_that_says_where_it_is_from() -> None:
    for address in ("10.200.100.255", "2001:db8:1111:2222:3333:4444:5555:6666", "::1"):
        name = client_key(address, 65535)
        assert len(name) <= 31
        assert client_address({"family": "unix", "port": name}) == (address, "65535")
    assert client_address({"family": "unix", "port": ""}) == ("", "")
    assert client_address({"family": "ipv4", "host": "1.2.3.4", "port": "5"}) == ("1.2.3.4", "5")
