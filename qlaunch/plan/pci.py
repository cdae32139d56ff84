"""Which device sits at which PCI address: decided once, then kept, so that no guest sees it move.

Explicit addresses come first, then leased ones, then preferred ones, then the first that is free;
what is leased to a device that is gone for now is given away last. On q35 a device that wants
hot-plug sits alone behind a root port, on i440fx on the root bus.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from attrs import Factory, define, evolve, frozen

from qlaunch.plan.model import Device
from qlaunch.plan.notes import Notes
from qlaunch.profile.fields import PCI_ADDRESS

SPARE_PORTS = 4
_PORT_SLOTS = (2, 3, 4)
_FUNCTIONS = 8
MAX_PORTS = len(_PORT_SLOTS) * _FUNCTIONS


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

    def at(self, function: int) -> tuple[int, ...]:
        """The functions it takes when its address says `function`."""
        return self.functions if len(self.functions) > 1 else (function,)


def parse(text: str) -> tuple[int, int] | None:
    """Slot and function of an address such as `05.0`, `00:09.7` or `1f`; None if it is none on
    the root bus."""
    if not re.fullmatch(PCI_ADDRESS["pattern"], text):
        return None
    bus, _, rest = text.rpartition(":")
    slot, _, function = rest.partition(".")
    return None if int(bus or "0", 16) else (int(slot, 16), int(function or "0", 8))


def parse_port(text: str) -> int | None:
    """The root port of an address such as `01:00.0`, the first; None if it is none behind one."""
    bus, _, rest = text.rpartition(":")
    if not re.fullmatch(PCI_ADDRESS["pattern"], text) or rest.rstrip(".0"):
        return None
    number = int(bus or "0", 16) - 1
    return number if 0 <= number < MAX_PORTS else None


@define
class Pci:
    """Gives out addresses on one board."""

    q35: bool
    notes: Notes
    leased: Mapping[str, str]
    taken: dict[tuple[int, int], str] = Factory(dict)
    ports: dict[int, str] = Factory(dict)
    places: dict[str, Place] = Factory(dict)
    # What `machine.pci` says: ID=ADDRESS.
    said: tuple[str, ...] = ()
    _kept: frozenset[str] = frozenset()

    @property
    def root(self) -> str:
        return "pcie.0" if self.q35 else "pci.0"

    def __attrs_post_init__(self) -> None:
        board = (0, *_PORT_SLOTS, 0x1F) if self.q35 else (0, 1)
        for slot in board:
            self._take(slot, range(_FUNCTIONS), "the board")

    def place(self, requests: Iterable[Request]) -> None:
        """Give every request its address; mistakes go to the notes. To be called once, with all."""
        wanted = self._named(requests)
        keys = {request.id: request.key for request in wanted}
        self._kept = frozenset(place for name, place in self.leased.items() if name not in keys)
        for attempt in (self._explicit, self._leased, self._preferred, self._free):
            wanted = [request for request in wanted if not attempt(request)]
        for ident, place in self.places.items():
            if place.bus == self.root and place.function and (place.slot, 0) not in self.taken:
                self.notes.error(
                    keys[ident],
                    f"the guest finds nothing at {place.slot:02x}.{place.function}"
                    f" as long as no device is at {place.slot:02x}.0",
                    hint=f"write '{place.slot:02x}.0'",
                )

    def _named(self, requests: Iterable[Request]) -> list[Request]:
        """The requests, those that `machine.pci` names with its address."""
        said = dict(word.split("=", 1) for word in self.said)
        wanted = [
            evolve(request, explicit=said.pop(request.id), key="machine.pci")
            if request.id in said and request.explicit is None
            else request
            for request in requests
        ]
        known = sorted(r.id for r in wanted if r.explicit is None or r.key == "machine.pci")
        for ident in said:
            close = difflib.get_close_matches(ident, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            message = f"{ident!r} is no device without an address of its own"
            self.notes.error("machine.pci", message, hint=hint)
        return wanted

    def props(self, ident: str) -> dict[str, object]:
        """The properties that put the device called `ident` at its address; none without one."""
        place = self.places.get(ident)
        if place is None:
            return {}
        found: dict[str, object] = dict(place.props())
        if place.bus == self.root and place.function == 0 and self._shares_slot(place.slot):
            found["multifunction"] = True
        return found

    def _shares_slot(self, slot: int) -> bool:
        return any((slot, function) in self.taken for function in range(1, _FUNCTIONS))

    def _explicit(self, request: Request) -> bool:
        if request.explicit is None:
            return False
        port = parse_port(request.explicit) if self.q35 else None
        if port is not None and len(request.functions) == 1:
            return self._explicit_port(request, port)
        address = parse(request.explicit)
        if address is None:
            self.notes.error(
                request.key,
                f"'{request.explicit}' is not {PCI_ADDRESS['pattern_words']}",
                hint="leave it out and qlaunch picks a free one",
            )
            return False
        slot, function = address
        functions = request.at(function)
        holder = self._holder(request, slot, functions)
        if holder:
            self.notes.error(
                request.key,
                f"PCI address {slot:02x}.{function} is already used by {holder}",
                hint="leave it out and qlaunch picks a free one",
            )
        elif len(functions) > 1 and function != functions[-1]:
            self.notes.error(
                request.key,
                f"this controller is function {functions[-1]} of its slot",
                hint=f"write '{slot:02x}.{functions[-1]}'",
            )
        return self._settle(request, slot, functions)

    def _explicit_port(self, request: Request, port: int) -> bool:
        if self._settle_port(request, port):
            return True
        self.notes.error(
            request.key,
            f"the root port of {request.explicit} is already used by {self.ports[port]}",
            hint="leave it out and qlaunch picks a free one",
        )
        return False

    def _leased(self, request: Request) -> bool:
        bus, _, text = self.leased.get(request.id, "").partition("/")
        if self.q35 and request.express and bus.startswith("rp"):
            return self._settle_port(request, _port_number(bus))
        address = parse(text)
        if bus != self.root or address is None:
            return False
        slot, function = address
        is_alone = (slot, 0) not in self.taken and f"{bus}/{slot:02x}.0" not in self._leased_spots
        if function and len(request.functions) == 1 and is_alone:
            function = 0  # it was one of several there, such as EHCI, and is another device now
        functions = request.at(function)
        if self._holder(request, slot, functions):
            return False
        return self._settle(request, slot, functions)

    @property
    def _leased_spots(self) -> frozenset[str]:
        return frozenset(self.leased.values())

    def _preferred(self, request: Request) -> bool:
        address = parse(request.preferred) if request.preferred else None
        if address is None or self._is_kept(address[0]):
            return False
        functions = request.at(address[1])
        if self._holder(request, address[0], functions):
            return False
        return self._settle(request, address[0], functions)

    def _free(self, request: Request) -> bool:
        if self.q35 and request.express:
            return self._free_port(request)
        # The first slots are for the graphics card by custom, so they are given away last.
        used = {slot for slot, _function in self.taken}
        free = [slot for slot in (*range(3, 32), 2, 1) if slot not in used]
        slots = [slot for slot in free if not self._is_kept(slot)] or free
        if slots:
            return self._settle(request, slots[0], request.functions)
        self.notes.error(request.key, "all PCI slots are used", hint="take devices away")
        return True

    def _free_port(self, request: Request) -> bool:
        free = [number for number in range(MAX_PORTS) if number not in self.ports]
        ports = [number for number in free if f"rp{number}/00.0" not in self._kept] or free
        if ports:
            return self._settle_port(request, ports[0])
        self.notes.error(
            request.key, f"all {MAX_PORTS} root ports are used", hint="take devices away"
        )
        return True

    def _settle(self, request: Request, slot: int, functions: Iterable[int]) -> bool:
        numbers = tuple(functions)
        self._take(slot, numbers, request.id)
        self.places[request.id] = Place(bus=self.root, slot=slot, function=numbers[-1])
        return True

    def _settle_port(self, request: Request, port: int) -> bool:
        if port in self.ports or not 0 <= port < MAX_PORTS:
            return False
        self.ports[port] = request.id
        self.places[request.id] = Place(bus=f"rp{port}", slot=0)
        return True

    def _take(self, slot: int, functions: Iterable[int], holder: str) -> None:
        for function in functions:
            self.taken.setdefault((slot, function), holder)

    def _holder(self, request: Request, slot: int, functions: tuple[int, ...]) -> str | None:
        # The south bridge's own USB function is the one part of the board that may be asked for.
        if not self.q35 and (slot, functions) == (1, (2,)) and request.id == "usb":
            return None
        return next((self.taken[slot, f] for f in functions if (slot, f) in self.taken), None)

    def _is_kept(self, slot: int) -> bool:
        return any(place.startswith(f"{self.root}/{slot:02x}.") for place in self._kept)

    def root_ports(self) -> tuple[Device, ...]:
        """The root ports of q35: those in use and a few for hot-plug. Their number never shrinks
        while leases remember a higher one, so that bus numbers stay."""
        if not self.q35:
            return ()
        remembered = [_port_number(place.partition("/")[0]) for place in self.leased.values()]
        highest = max([*self.ports, *remembered], default=-1)
        count = min(MAX_PORTS, max(len(self.ports) + SPARE_PORTS, highest + 1))
        return tuple(_root_port(number) for number in range(count))


def _port_number(bus: str) -> int:
    """The number of the root port `rp7`; -1 for another bus, or a port that there cannot be."""
    found = re.fullmatch(r"rp([0-9]{1,2})", bus)
    return int(found[1]) if found and int(found[1]) < MAX_PORTS else -1


def _root_port(number: int) -> Device:
    slot, function = _PORT_SLOTS[number // _FUNCTIONS], number % _FUNCTIONS
    place = Place(bus="pcie.0", slot=slot, function=function)
    props: dict[str, object] = {"chassis": number + 1, "port": 0x10 + number, **place.props()}
    if function == 0:
        props["multifunction"] = True
    return Device(id=f"rp{number}", driver="pcie-root-port", props=props)
