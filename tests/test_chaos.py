"""The campaign finds what it is for, and a short one of it in every run of the tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.chaos.content import NEVER, SLOTS, TORN, Block, Content, Dump, not_as_in_memory
from tests.chaos.content import out_of_order as order_of
from tests.chaos.victims import all_steps
from tests.rig import TOP


def disks(*last: int, epoch: int = 1) -> Dump:
    """What is on the disks after so many blocks on each."""
    both = []
    for number in last:
        blocks: list[Block] = [NEVER] * SLOTS
        for each in range(max(1, number - SLOTS + 1), number + 1):
            blocks[each % SLOTS] = (epoch, each)
        both.append(tuple(blocks))
    return Dump((both[0], both[1]), (both[0], both[1]))


def begun() -> Content:
    content = Content()
    content.turned(1, 0)
    return content


def test_what_was_flushed_must_be_there_and_what_came_later_may() -> None:
    content = begun()
    content.flushed(1, 16)
    for last in (16, 17, 30, 500):
        assert content.wrong(disks(last, last)) == []
    assert len(content.wrong(disks(15, 16))) == 1
    assert len(content.wrong(disks(8, 8))) == 16


def test_a_block_of_another_epoch_is_from_a_future_that_was_reverted() -> None:
    content = begun()
    content.flushed(1, 16)
    content.turned(2, 20)
    assert content.wrong(disks(20, 20)) == []
    assert content.wrong(disks(21, 20)) != []
    assert content.wrong(disks(24, 24, epoch=3)) != []


def test_after_a_power_cut_what_was_seen_and_not_flushed_may_be_gone() -> None:
    content = begun()
    content.flushed(1, 8)
    content.seen(disks(12, 12), 1, 12)
    assert content.wrong(disks(8, 8)) == []
    assert content.wrong(disks(10, 9)) == []
    content.flushed(1, 16)
    assert content.wrong(disks(12, 12)) != []


def test_what_was_written_in_two_epochs_is_known_after_many_flushes() -> None:
    content = begun()
    content.flushed(1, 8)
    content.turned(2, 12)
    content.flushed(2, 16)
    content.flushed(2, 24)
    found = disks(24, 24)
    newer = tuple((2, n) if n > 12 else (e, n) for e, n in found.disks[0])
    assert content.wrong(Dump((newer, newer), (newer, newer))) == []
    older = tuple((e, n) if n != 10 else NEVER for e, n in newer)
    assert len(content.wrong(Dump((older, newer), (newer, newer)))) == 1


def test_the_second_disk_is_never_ahead_of_the_first() -> None:
    assert order_of(disks(40, 40)) == []
    assert order_of(disks(40, 39)) == []
    assert order_of(disks(39, 40)) != []
    assert order_of(disks(40, 38)) != []


def test_a_torn_block_and_one_that_was_not_written_are_found() -> None:
    good = disks(9, 9)
    assert not_as_in_memory(good) == []
    assert len(not_as_in_memory(Dump(disks(8, 9).disks, good.memory))) == 1
    torn = ((TORN, 1), *good.disks[0][1:])
    both = (torn, good.disks[1])
    assert len(not_as_in_memory(Dump(both, both))) == 1


def test_every_named_step_is_known_to_the_campaign() -> None:
    steps = all_steps()
    assert {"pivot: complete", "revert: switched", "create: transaction", "save: saved"} <= {*steps}
    assert len(steps) > 40


def campaign(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words], cwd=TOP, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.parametrize("word", ["rounds=x", "rounds", "only=nothing", "rouns=1", "victims=cat"])
def test_a_wrong_word_is_told(word: str) -> None:
    done = campaign(word)
    assert done.returncode == 1
    assert word.partition("=")[0] in done.stdout


@pytest.mark.qemu
@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("history", [0, 1, 2])
def test_a_short_campaign(history: int) -> None:
    if history == 2 and os.getuid():
        pytest.skip("only root can mount a file system whose power fails")
    done = campaign("seed=1", f"history={history}", "rounds=2")
    assert done.returncode == 0, done.stdout


@pytest.mark.qemu
@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("order, caught", [("naive", True), ("right", False)])
def test_a_pivot_in_the_wrong_order_is_caught(order: str, caught: bool) -> None:
    """Power lost between QEMU's switch to the lower image and the note of it: stale, but sound."""
    done = campaign(
        "seed=1", "history=0", "rounds=1", "only=merge", "victims=both", "step=pivot:_complete",
        f"order={order}",
    )  # fmt: skip
    assert (done.returncode == 1) == caught, done.stdout
    if caught:
        assert "disk 0 slot" in done.stdout
        assert 'again: make chaos ARGS="seed=1 history=0 rounds=1' in done.stdout
