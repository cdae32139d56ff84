"""A Linux guest that writes to two disks without a pause while snapshots come and go.

It writes the numbers 1, 2, 3, ... round about on both disks, each to the disk before the next, and
keeps in memory how far it is. Whenever it is asked, each disk must hold exactly the last numbers
that its memory knows of: none is missing, and none is from a future that was reverted.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT * 2)]

SEED = 20261124
OPERATIONS = 50
DISKS = """\
[[disk]]
id = "one"
bus = "virtio"
size = "16MiB"

[[disk]]
id = "two"
bus = "scsi"
size = "16MiB"
"""
BLOCKS = 16
# Numbers are blocks of 512 bytes that end in a newline, so a disk reads as lines.
WRITE = f"""\
i=$(cat /run/known)
while [ ! -e /run/halt ]; do
    i=$((i + 1))
    printf '%511d\\n' $i >/run/block
    for disk in vda sda; do
        dd if=/run/block of=/dev/$disk bs=512 seek=$((i % {BLOCKS})) conv=notrunc,fsync 2>/dev/null
    done
    echo $i >/run/known
done
touch /run/idle
"""
CHECK = f"""\
touch /run/halt
until [ -e /run/idle ]; do :; done
rm /run/halt /run/idle
echo 3 >/proc/sys/vm/drop_caches
known=$(cat /run/known)
for disk in vda sda; do
    dd if=/dev/$disk bs=512 count={BLOCKS} 2>/dev/null | tr -d '\\0' | awk -v known=$known '
        {{ have[$1 % {BLOCKS}] = $1 }}
        END {{ for (n = known; n > 0 && n > known - {BLOCKS}; n--)
            if (have[n % {BLOCKS}] != n) print "'$disk'", n, "is", have[n % {BLOCKS}] }}'
done
echo known $known
sh /run/write >/dev/null 2>&1 &
"""


class Writer:
    """The guest, and what each of its snapshots must be like."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.known: dict[str, int] = {}
        self.kinds: dict[str, str] = {}
        self.made = 0

    def begin(self, known: int = 0) -> None:
        """After a boot: memory is empty, disks are not."""
        for name, text in (("write", WRITE), ("check", CHECK)):
            lines = "\\n".join(text.replace("\\", "\\\\").splitlines())
            quoted = lines.replace("'", "'\\''")
            self.guest.run(f"printf '%b\\n' '{quoted}' >/run/{name}")
        self.guest.run(f"echo {known} >/run/known; rm -f /run/halt /run/idle")
        self.guest.run("sh /run/write >/dev/null 2>&1 &")

    def check(self) -> int:
        """Memory and disks agree; the last number that the guest has written."""
        lines = self.guest.run("sh /run/check", LIMIT).splitlines()
        assert len(lines) == 1, lines
        return int(lines[0].removeprefix("known "))

    def verb(self, *words: str) -> dict[str, Any]:
        done = self.guest.home.qlaunch(*words, "--json", limit=LIMIT)
        assert done.status == 0, done.err + done.out
        answer: dict[str, Any] = json.loads(done.out)
        return answer

    # ---- operations -----------------------------------------------------------------------------

    def create(self, chance: random.Random) -> None:
        before = self.check()
        self.made += 1
        name = f"n{self.made}"
        kind = chance.choice(["memory", "memory", "memory", "internal"])
        words = ["--internal"] if kind == "internal" else []
        self.verb("snapshot", "create", "guest", name, *words)
        self.known[name], self.kinds[name] = before, kind

    def revert(self, chance: random.Random) -> None:
        name = chance.choice(sorted(self.known))
        before = self.check()
        branch = self.verb("revert", "guest", name)["branch"]
        if branch is not None:
            self.kinds[branch["label"]] = "branch"
        now = self.check()
        assert now >= self.known[name]
        assert now < max(before, self.known[name]) + 10_000

    def revert_discarding(self, chance: random.Random) -> None:
        name = chance.choice(sorted(self.known))
        self.verb("revert", "guest", name, "--discard")

    def delete(self, chance: random.Random) -> None:
        name = chance.choice(sorted(self.kinds))
        words = ["--children"] if chance.random() < 0.2 else []
        gone = self.verb("snapshot", "delete", "guest", name, *words)["deleted"]
        for each in gone:
            self.known.pop(each["label"], None)
            self.kinds.pop(each["label"], None)

    def prune(self, chance: random.Random) -> None:
        keep = str(chance.randint(2, 6))
        for each in self.verb("snapshot", "prune", "guest", "--keep", keep)["deleted"]:
            self.known.pop(each["label"], None)
            self.kinds.pop(each["label"], None)


def test_memory_and_disks_agree_after_each_of_fifty_operations(
    guest_home: Home, guest_initrd: Path
) -> None:
    chance = random.Random(SEED)
    with Guest(guest_home, guest_initrd, DISKS) as guest:
        guest.boot()
        writer = Writer(guest)
        writer.begin()
        done: list[str] = []
        for _ in range(OPERATIONS):
            choices = [writer.create, writer.create]
            if writer.known:
                choices += [writer.revert, writer.revert, writer.revert_discarding, writer.delete]
            if len(writer.kinds) > 8:
                choices = [writer.prune]
            operation = chance.choice(choices)
            done.append(operation.__name__)
            operation(chance)
            try:
                writer.check()
            except AssertionError as error:
                raise AssertionError(f"seed {SEED}, after {done}: {error}") from error
        assert writer.check() > BLOCKS
        # And it would be seen.
        guest.run("touch /run/halt; until [ -e /run/idle ]; do :; done")
        guest.run("dd if=/dev/zero of=/dev/sda bs=512 count=1 seek=3 conv=notrunc,fsync")
        with pytest.raises(AssertionError, match="sda"):
            writer.check()
        guest.hang_up()
        guest.qlaunch("kill")
        assert writer.verb("disk", "check", "guest")["good"]


def test_disks_alone_hold_all_that_was_written_out(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, DISKS, words="agent=1") as guest:
        guest.boot()
        writer = Writer(guest)
        writer.begin()
        guest.run("until pidof qemu-ga; do :; done")
        writer.verb("snapshot", "create", "guest", "--disks-only")
        before = writer.check()
        writer.verb("snapshot", "create", "guest", "--disks-only", "--quiesce")
        writer.check()
        writer.verb("revert", "guest", "snap2")
        guest.ready()
        for disk in ("vda", "sda"):
            told = guest.run(f"dd if=/dev/{disk} bs=512 count={BLOCKS} 2>/dev/null | sort -n")
            numbers = [int(line) for line in told.replace("\0", "").split()]
            assert max(numbers) >= before
            # At most the one that was under way is not on both.
            assert set(range(max(numbers) - BLOCKS + 2, max(numbers))) <= set(numbers)


def test_the_clock_of_a_guest_that_was_reverted_is_set(
    guest_home: Home, guest_initrd: Path
) -> None:
    with Guest(guest_home, guest_initrd, DISKS, words="agent=1") as guest:
        guest.boot()
        guest.run("until pidof qemu-ga; do :; done")
        guest.run("date -s '2020-02-02 02:02:02'")
        guest_home.qlaunch("snapshot", "create", "guest", "old")
        assert guest.run("date +%Y") == "2020"
        assert guest_home.qlaunch("revert", "guest", "old").status == 0
        guest.await_log("the guest's clock is set")
        now = guest_home.qlaunch("status", "guest", "--json").json
        assert now["state"] == "running"
        assert guest.run("date +%Y") != "2020"
