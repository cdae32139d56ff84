"""What may be on the guest's two disks: the model that a dump of theirs is held against.

A block is `(epoch, number)`, lies in slot `number % SLOTS`, and is written to the first disk before
the second. The campaign gives the guest a new epoch after everything that it does, so that a block
of a future that was reverted is known by its epoch.
"""

from __future__ import annotations

from attrs import Factory, define, evolve, field, frozen

SLOTS = 32
DISKS = 2
NEVER = (0, 0)
# A block whose sectors differ.
TORN = 0xFFFFFFFF

Block = tuple[int, int]
Disk = tuple[Block, ...]


@frozen
class Dump:
    """What the guest has read from both disks, and what its memory says that it has written."""

    disks: tuple[Disk, Disk]
    memory: tuple[Disk, Disk]


@define
class Content:
    """What is known of the disks.

    `surely` is what is there at least, block by block; `lost` is what may be found instead after a
    power cut, because nothing was flushed since; `open` are the blocks that may have come after:
    epoch, first number, last number (None: nobody knows yet).
    """

    surely: list[list[Block]] = Factory(lambda: [[NEVER] * SLOTS for _ in range(DISKS)])
    lost: list[list[set[Block]]] = Factory(lambda: [[set() for _ in range(SLOTS)] for _ in "ab"])
    open: list[tuple[int, int, int | None]] = field(factory=list)

    def copy(self) -> Content:
        return evolve(
            self,
            surely=[list(disk) for disk in self.surely],
            lost=[[set(slot) for slot in disk] for disk in self.lost],
            open=list(self.open),
        )

    # ---- what the guest says --------------------------------------------------------------------

    def flushed(self, epoch: int, number: int) -> None:
        """Everything up to `number` is on both disks."""
        if not self.open or self.open[-1][0] != epoch or number < self.open[-1][1]:
            return
        # What a guest that lives says that it has written, before it turned to this epoch, it has.
        last = [(each, first, end) for each, first, end in self.open[:-1] if end is not None]
        for written, first, end in (*last, (epoch, self.open[-1][1], number)):
            for each in range(max(first, end - SLOTS + 1), end + 1):
                for disk in self.surely:
                    disk[each % SLOTS] = (written, each)
        for others in self.lost:
            for slot in others:
                slot.clear()
        self.open = [(epoch, number + 1, None)]

    def closed(self, number: int) -> None:
        """In this epoch the guest has written up to `number` at most."""
        if self.open and self.open[-1][2] is None:
            last, first, _ = self.open[-1]
            self.open[-1] = (last, first, number)

    def reopened(self) -> None:
        """The guest goes on where it was."""
        if self.open:
            epoch, first, _ = self.open[-1]
            self.open[-1] = (epoch, first, None)

    def turned(self, epoch: int, number: int) -> None:
        """The guest has written up to `number` and goes on in another epoch."""
        self.closed(number)
        self.open.append((epoch, number + 1, None))

    def seen(self, dump: Dump, epoch: int, number: int) -> None:
        """The dump holds; the guest has written up to `number`."""
        for disk, others, found in zip(self.surely, self.lost, dump.disks, strict=True):
            for slot in range(SLOTS):
                if found[slot] != disk[slot]:
                    others[slot].add(disk[slot])
                others[slot].update(_within(self.open, slot, below=found[slot]))
                others[slot].discard(found[slot])
                disk[slot] = found[slot]
        self.open = [(epoch, number + 1, None)]

    # ---- what is found --------------------------------------------------------------------------

    def wrong(self, dump: Dump) -> list[str]:
        """What is on the disks and cannot be."""
        found = []
        for disk in range(DISKS):
            for slot in range(SLOTS):
                block = dump.disks[disk][slot]
                if block not in self.allowed(disk, slot, block):
                    known = self.surely[disk][slot]
                    found.append(f"disk {disk} slot {slot}: {block}, but {known} {self.open}")
        return found

    def allowed(self, disk: int, slot: int, block: Block) -> set[Block]:
        allowed = {self.surely[disk][slot], *self.lost[disk][slot]}
        for epoch, first, last in self.open:
            number = block[1]
            if block[0] == epoch and first <= number and (last is None or number <= last):
                if number % SLOTS == slot:
                    allowed.add(block)
        return allowed


def _within(
    segments: list[tuple[int, int, int | None]], slot: int, *, below: Block | None = None
) -> set[Block]:
    """The blocks of `segments` in a slot, as far as their end is known (or before `below`)."""
    found: set[Block] = set()
    for epoch, first, last in segments:
        end = last if last is not None else (below[1] if below and below[0] == epoch else first - 1)
        start = max(first, end - 8 * SLOTS)
        found.update((epoch, each) for each in range(start, end + 1) if each % SLOTS == slot)
    return found


def out_of_order(dump: Dump) -> list[str]:
    """Why the two disks are not of one moment; nothing when they are.

    Each block goes to the first disk and then to the second: at every moment the second is as far
    as the first, or one block behind.
    """
    first, second = dump.disks
    ahead = [slot for slot in range(SLOTS) if first[slot] != second[slot]]
    newest = max(range(SLOTS), key=lambda slot: first[slot][1])
    if ahead in ([], [newest]):
        return []
    return [f"slot {slot}: {first[slot]} beside {second[slot]}" for slot in ahead]


def not_as_in_memory(dump: Dump) -> list[str]:
    """Where the disks are not what the guest has written to them."""
    return [
        f"disk {disk} slot {slot}: {dump.disks[disk][slot]}, written was {written}"
        for disk in range(DISKS)
        for slot, written in enumerate(dump.memory[disk])
        if dump.disks[disk][slot] != written or dump.disks[disk][slot][0] == TORN
    ]
