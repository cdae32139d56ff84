"""Being told that this computer has slept."""

from __future__ import annotations

import os

import pytest

from qlaunch.host import sleeps


async def test_a_sleep_is_told_with_its_length_and_only_once() -> None:
    told: list[float] = []
    watch = sleeps.SleepWatch(told.append)
    try:
        watch.look()
        assert told == []
        watch.slept -= 100  # as if the computer had slept since
        watch.look()
        watch.look()
        assert told == [pytest.approx(100, abs=1)]
    finally:
        watch.close()


async def test_a_watch_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    sleeps.SleepWatch(lambda seconds: None).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_this_computer_has_not_slept_less_than_nothing() -> None:
    assert sleeps.slept() > -sleeps.LEAST_SLEEP
