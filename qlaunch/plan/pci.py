"""Which device sits at which PCI address: decided once, then kept, so that no guest sees it move.

Explicit addresses come first, then leased ones, then preferred ones, then the first that is free.
On q35 a device that wants hot-plug sits alone behind a root port, on i440fx on the root bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import Factory, define, frozen

from qlaunch.plan.model import Device
from qlaunch.plan.notes import Notes

SPARE_PORTS = 4
_PORT_SLOTS = (2, 3, 4)
_FUNCTIONS = 8


@frozen(kw_only=True)
class Place:
    """An address on a bus; `str()` of it is what leases keep."""

    bus: str
    slot: int
    function: int = 0

    def props(self) -> dict[str, str]:
        # QEMU 7.2: a number here means slot * 8 + function; the string "0x5" means slot 5.
        addr = f"{self.slot:#x}.{self.function:#x}" if self.function else f"{self.slot:#x}"
        return {"bus": self.bus, "addr": addr}

    def __str__(self) -> str:
        return f"{self.bus}/{self.slot:02x}.{self.function}"


@frozen(kw_only=True)
class Request:
    """A device that needs an address. `key` is where the profile could say it, `functions` are
    the functions of the slot that the device takes (its own is the last)."""

    id: str
    key: str
    explicit: str | None = None
    preferred: str | None = None
    express: bool = False
    functions: tuple[int, ...] = (0,)


def parse(text: str) -> tuple[int, int]:
    """Slot and function of an address such as `05.0`, `00:09.7` or `1f`."""
    slot, _, function = text.removeprefix("00:").partition(".")
    return int(slot, 16), int(function or "0", 8)


@define
class Pci:
    """Gives out addresses on one board."""

    q35: bool
    notes: Notes
    leased: Mapping[str, str]
    taken: dict[tuple[int, int], str] = Factory(dict)
    ports: dict[int, str] = Factory(dict)
    places: dict[str, Place] = Factory(dict)

    @property
    def root(self) -> str:
        return "pcie.0" if self.q35 else "pci.0"

    def __attrs_post_init__(self) -> None:
        board = (0, *_PORT_SLOTS, 0x1F) if self.q35 else (0, 1)
        for slot in board:
            self._take(slot, range(_FUNCTIONS), "the board")

    def place(self, requests: Iterable[Request]) -> None:
        """Give every request its address; mistakes go to the notes."""
        wanted = list(requests)
        for attempt in (self._explicit, self._leased, self._preferred, self._free):
            wanted = [request for request in wanted if not attempt(request)]

    def _explicit(self, request: Request) -> bool:
        if request.explicit is None:
            return False
        slot, function = parse(request.explicit)
        functions = request.functions if len(request.functions) > 1 else (function,)
        # The south bridge's own USB function is the one part of the board that may be asked for.
        own = not self.q35 and (slot, functions) == (1, (2,)) and request.id == "usb"
        holder = None if own else self._holder(slot, functions)
        if holder:
            self.notes.error(
                request.key,
                f"PCI address {slot:02x}.{function} is already used by {holder}",
                hint="leave `address` out and qlaunch picks a free one",
            )
        elif len(request.functions) > 1 and function != request.functions[-1]:
            self.notes.error(
                request.key,
                f"this controller is function {request.functions[-1]} of its slot",
                hint=f"write '{slot:02x}.{request.functions[-1]}'",
            )
        return self._settle(request, slot, functions)

    def _leased(self, request: Request) -> bool:
        bus, _, address = self.leased.get(request.id, "").partition("/")
        if not address:
            return False
        if self.q35 and request.express and bus.startswith("rp") and bus[2:].isdigit():
            return self._settle_port(request, int(bus[2:]))
        if bus != self.root:
            return False
        slot, function = parse(address)
        functions = request.functions if len(request.functions) > 1 else (function,)
        return not self._holder(slot, functions) and self._settle(request, slot, functions)

    def _preferred(self, request: Request) -> bool:
        if request.preferred is None:
            return False
        slot, function = parse(request.preferred)
        functions = request.functions if len(request.functions) > 1 else (function,)
        own = not self.q35 and (slot, functions) == (1, (2,))
        if not own and self._holder(slot, functions):
            return False
        return self._settle(request, slot, functions)

    def _free(self, request: Request) -> bool:
        if self.q35 and request.express:
            port = next(n for n in range(len(self.ports) + 1) if n not in self.ports)
            return self._settle_port(request, port)
        # The first slots are for the graphics card by custom, so they are given away last.
        for slot in (*range(3, 32), 2, 1):
            if not any((slot, function) in self.taken for function in range(_FUNCTIONS)):
                return self._settle(request, slot, request.functions)
        self.notes.error(request.key, "all PCI slots are used", hint="take devices away")
        return True

    def _settle(self, request: Request, slot: int, functions: Iterable[int]) -> bool:
        numbers = tuple(functions)
        self._take(slot, numbers, request.id)
        self.places[request.id] = Place(bus=self.root, slot=slot, function=numbers[-1])
        return True

    def _settle_port(self, request: Request, port: int) -> bool:
        if port in self.ports or port >= len(_PORT_SLOTS) * _FUNCTIONS:
            return False
        self.ports[port] = request.id
        self.places[request.id] = Place(bus=f"rp{port}", slot=0)
        return True

    def _take(self, slot: int, functions: Iterable[int], holder: str) -> None:
        for function in functions:
            self.taken.setdefault((slot, function), holder)

    def _holder(self, slot: int, functions: Iterable[int]) -> str | None:
        return next((self.taken[slot, f] for f in functions if (slot, f) in self.taken), None)

    def root_ports(self) -> tuple[Device, ...]:
        """The root ports of q35: those in use and a few for hot-plug. Their number never shrinks
        while leases remember a higher one, so that bus numbers stay."""
        if not self.q35:
            return ()
        remembered = [
            int(place[2:].partition("/")[0])
            for place in self.leased.values()
            if place.startswith("rp") and place[2:].partition("/")[0].isdigit()
        ]
        highest = max([*self.ports, *remembered], default=-1)
        count = min(len(_PORT_SLOTS) * _FUNCTIONS, max(len(self.ports) + SPARE_PORTS, highest + 1))
        return tuple(_root_port(number) for number in range(count))


def _root_port(number: int) -> Device:
    slot, function = _PORT_SLOTS[number // _FUNCTIONS], number % _FUNCTIONS
    place = Place(bus="pcie.0", slot=slot, function=function)
    props: dict[str, object] = {"chassis": number + 1, "port": 0x10 + number, **place.props()}
    if function == 0:
        props["multifunction"] = True
    return Device(id=f"rp{number}", driver="pcie-root-port", props=props)
