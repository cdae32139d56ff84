"""Huge pages that were split come back; what was none stays none."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from qlaunch.host import hugepages
from tests import prerequisites

HUGE = 2 << 20
# Maps four huge pages, uses three of them, then splits one by another protection of one small page.
PEER = """
import ctypes, mmap, sys
area = mmap.mmap(-1, 10 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_HUGEPAGE)
libc = ctypes.CDLL(None, use_errno=True)
first = (ctypes.addressof(ctypes.c_char.from_buffer(area)) + (2 << 20) - 1) >> 21 << 21
for number in range(3):
    ctypes.memset(first + (number << 21), 7 + number, 4096)
print(first, flush=True)
for line in sys.stdin:
    for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
        libc.mprotect(ctypes.c_void_p(first + (1 << 21) + 4096), 4096, protection)
    print(ctypes.string_at(first + (1 << 21), 1), flush=True)
"""

Peer = tuple[int, int, Callable[[], str]]


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A process: its pid, the address of its first huge page, and what splits the second."""
    with subprocess.Popen(
        [sys.executable, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        first = int(stdout.readline())

        def split() -> str:
            stdin.write("\n")
            stdin.flush()
            return stdout.readline().strip()

        yield process.pid, first, split
        stdin.close()
        assert process.wait(10) == 0


def pages(pid: int, first: int) -> set[int]:
    """Which of the four pages from `first` on are huge."""
    return {
        (at - first) // HUGE
        for start, end in hugepages.find(pid)
        for at in range(start, end, HUGE)
        if first <= at < first + 4 * HUGE
    }


def needs_huge_pages(peer: Peer) -> None:
    pid, first, _ = peer
    prerequisites.require(
        "hugepages",
        pages(pid, first) == {0, 1, 2} and os.geteuid() == 0,
        "Linux 6.7 with transparent huge pages, as root",
    )


def test_a_split_page_is_huge_again_and_an_unused_one_stays_unused(peer: Peer) -> None:
    needs_huge_pages(peer)
    pid, first, split = peer
    before = hugepages.find(pid)
    assert split() == str(bytes([8]))
    assert pages(pid, first) == {0, 2}
    assert hugepages.give_back(pid, before) >= 3 * HUGE
    assert pages(pid, first) == {0, 1, 2}
    assert split() == str(bytes([8]))


def test_a_process_that_is_gone_or_somebody_elses_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait(10)
    assert hugepages.find(process.pid) == ()
    assert hugepages.give_back(process.pid, ((0, HUGE),)) == 0


def test_nothing_is_done_where_nothing_was_huge() -> None:
    area = mmap.mmap(-1, 3 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert hugepages.give_back(os.getpid(), ()) == 0
    assert not any(low <= address < high for low, high in hugepages.find(os.getpid()))
