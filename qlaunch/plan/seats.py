"""Who sits where on the buses that are no PCI: IDE, SATA, SCSI, USB and virtio-serial ports.

As with PCI, explicit positions come first, then leased ones, then preferred ones, then free ones;
what is leased to a device that is gone for now is given away last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import Factory, define, frozen

from qlaunch.plan.notes import Notes

_CHANNELS = 31
_LUNS = 64  # of a SCSI target; nobody is given one without asking
SEATS = {
    "ide": range(4),
    "sata": range(6),
    "scsi": range(256),
    "vser": range(1, _CHANNELS),  # QEMU keeps port 0 for consoles of old guests
}
_WHAT = {"usb": "USB port", "vser": "port"}
_FULL = {
    "ide": ("IDE takes at most 4 drives", "put some of them on another bus"),
    "sata": ("SATA takes at most 6 drives", "put some of them on another bus"),
    "scsi": ("SCSI takes at most 256 drives", "put some of them on another bus"),
    "vser": (f"a machine has at most {_CHANNELS - 1} channels", "take some of them away"),
}


@frozen(kw_only=True)
class Seat:
    """A device that needs a position. `key` is its table in the profile, `said` the key where
    `explicit` was written."""

    id: str
    bus: str
    key: str
    said: str
    explicit: str | None = None
    preferred: int | None = None


@define(kw_only=True)
class Seats:
    """Gives out positions; `usb_ports` is how many ports the USB controller has."""

    notes: Notes
    leased: Mapping[str, str]
    usb_ports: int = 0
    taken: dict[tuple[str, int], str] = Factory(dict)
    given: dict[str, tuple[str, int]] = Factory(dict)
    _kept: frozenset[str] = frozenset()

    def place(self, seats: Iterable[Seat]) -> None:
        """Give every seat its number; mistakes go to the notes. To be called once, with all."""
        wanted = list(seats)
        present = {seat.id for seat in wanted}
        self._kept = frozenset(text for name, text in self.leased.items() if name not in present)
        steps: tuple[Callable[[Seat], int | None], ...] = (
            self._explicit, self._lease, self._preferred, self._free,
        )  # fmt: skip
        for step in steps:
            waiting = []
            for seat in wanted:
                number = step(seat)
                if number is None:
                    waiting.append(seat)
                else:
                    self._settle(seat, number)
            wanted = waiting
        for seat in wanted:
            self._no_seat(seat)

    def number(self, ident: str) -> int | None:
        """The number that the device called `ident` got; None where none was left."""
        return self.given[ident][1] if ident in self.given else None

    def leases(self) -> dict[str, str]:
        """What leases keep: `BUS/NUMBER` of every device."""
        return {ident: f"{bus}/{number}" for ident, (bus, number) in self.given.items()}

    def _range(self, bus: str) -> range:
        return range(1, self.usb_ports + 1) if bus == "usb" else SEATS[bus]

    def _settle(self, seat: Seat, number: int) -> None:
        holder = self.taken.setdefault((seat.bus, number), seat.id)
        if holder != seat.id:
            what = _WHAT.get(seat.bus, f"{seat.bus.upper()} position")
            self.notes.error(
                seat.said,
                f"{what} {seat.explicit} is already used by {holder.removesuffix('-dev')}",
                hint="leave it out and qlaunch picks a free one",
            )
        self.given[seat.id] = (seat.bus, number)

    def _explicit(self, seat: Seat) -> int | None:
        if seat.explicit is None or not self._range(seat.bus):
            return None
        number = parse_seat(seat.bus, seat.explicit)
        if number in self._range(seat.bus) or (seat.bus == "scsi" and 0 <= number < _LUNS * 256):
            return number
        last = self._range(seat.bus)[-1]
        ends = "0.0 to 1.1 (channel.unit)" if seat.bus == "ide" else f"0 to {last}"
        if seat.bus == "usb":
            message, hint = "is no port of this USB controller", f"ports go from 1 to {last}"
        else:
            message, hint = f"is no position on {seat.bus.upper()}", f"positions go from {ends}"
        self.notes.error(seat.said, f"'{seat.explicit}' {message}", hint=hint)
        return None

    def _lease(self, seat: Seat) -> int | None:
        bus, _, number = self.leased.get(seat.id, "").partition("/")
        if bus != seat.bus or not _is_number(number):
            return None
        return int(number) if self._is_free(bus, int(number)) else None

    def _preferred(self, seat: Seat) -> int | None:
        number = seat.preferred
        if number is None or not self._is_free(seat.bus, number):
            return None
        return None if f"{seat.bus}/{number}" in self._kept else number

    def _free(self, seat: Seat) -> int | None:
        free = [number for number in self._range(seat.bus) if self._is_free(seat.bus, number)]
        fresh = [number for number in free if f"{seat.bus}/{number}" not in self._kept]
        return next(iter([*fresh, *free]), None)

    def _is_free(self, bus: str, number: int) -> bool:
        return number in self._range(bus) and (bus, number) not in self.taken

    def _no_seat(self, seat: Seat) -> None:
        if seat.bus != "usb":
            message, hint = _FULL[seat.bus]
        elif self.usb_ports:
            message = f"the USB controller has only {self.usb_ports} ports"
            hint = 'use usb.controller = "xhci", or take devices away'
        else:
            message, hint = "there is no USB controller", "leave usb.controller out, or set it"
        self.notes.error(seat.key, message, hint=hint)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6


def parse_seat(bus: str, text: str) -> int:
    """The number that `text` means on `bus`, `CHANNEL.UNIT` on IDE, `TARGET.LUN` (256 targets come
    first) on SCSI; -1 where it means none."""
    words = text.split(".")
    if not all(_is_number(word) for word in words):
        return -1
    if bus == "scsi":
        target, lun = int(words[0]), int(words[1]) if len(words) == 2 else 0
        return target + 256 * lun if target < 256 and len(words) < 3 else -1
    if bus != "ide":
        return int(text) if len(words) == 1 else -1
    if len(words) != 2 or words[1] not in ("0", "1"):
        return -1
    return int(words[0]) * 2 + int(words[1])
