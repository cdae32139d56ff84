"""Disks and cards that QEMU may have and the saved plan has not: noted before QEMU is told.

`<state>/machines/NAME/plugs.json` is there while a disk is plugged in, cleared away or moved, and
counts only for the QEMU process that it names: a supervisor that comes later brings both together.
`cards.json` is the same for network cards, also for one that is changed, `gadgets.json` for other
USB devices.
"""

from __future__ import annotations

import os

from attrs import frozen

from qlaunch import records
from qlaunch.machine.machine import Machine
from qlaunch.plan.gadgets import Gadget
from qlaunch.plan.model import Device, Disk, Nic
from qlaunch.store import files, paths

_VERSION = 1
_NAME = "plugs.json"
_CARDS = "cards.json"
_GADGETS = "gadgets.json"


@frozen(kw_only=True)
class Plug:
    """A disk, and on USB the adapter in which it sits."""

    disk: Disk
    adapter: Device | None = None


@frozen(kw_only=True)
class Move:
    """A disk that is copied from its image `old` to `new`, which was made for that. `resume` says
    that the guest was stopped for it and is to go on."""

    disk: str
    old: str
    new: str
    resume: bool = False


@frozen(kw_only=True)
class _Notes:
    version: int = _VERSION
    process: str = ""
    plugs: tuple[Plug, ...] = ()
    move: Move | None = None


@frozen(kw_only=True)
class _Cards:
    version: int = _VERSION
    process: str = ""
    cards: tuple[Nic, ...] = ()
    change: tuple[Nic, ...] = ()


@frozen(kw_only=True)
class _Gadgets:
    version: int = _VERSION
    process: str = ""
    gadgets: tuple[Gadget, ...] = ()


def _path(machine: Machine, name: str = _NAME) -> str:
    return os.path.join(paths.machine_state(machine.name), name)


def _process(machine: Machine) -> str:
    return repr(records.to_plain(machine.process.id))


def load(machine: Machine) -> tuple[Plug, ...]:
    """The disks that are noted for this QEMU. Raises: HostError."""
    notes = _load(machine)
    return notes.plugs if notes is not None else ()


def load_move(machine: Machine) -> Move | None:
    """The move that is noted for this QEMU. Raises: HostError."""
    notes = _load(machine)
    return notes.move if notes is not None else None


def left_move(name: str) -> Move | None:
    """The move that was noted last, of whatever QEMU: one that has ended since can have left an
    image. Raises: HostError."""
    path = os.path.join(paths.machine_state(name), _NAME)
    found = files.load_record(_Notes, path, _VERSION)
    return found.move if found is not None else None


def _load(machine: Machine) -> _Notes | None:
    found = files.load_record(_Notes, _path(machine), _VERSION)
    return found if found is not None and found.process == _process(machine) else None


def save(machine: Machine, plugs: tuple[Plug, ...], move: Move | None = None) -> None:
    """Note this and nothing else. Raises: HostError."""
    if plugs or move is not None:
        # After a power cut there is no such QEMU any more.
        notes = _Notes(process=_process(machine), plugs=plugs, move=move)
        files.write_json(_path(machine), records.to_plain(notes), lasting=False)
    else:
        files.remove(_path(machine), lasting=False)


def load_cards(machine: Machine) -> tuple[Nic, ...]:
    """The network cards that are noted for this QEMU. Raises: HostError."""
    notes = _load_cards(machine)
    return notes.cards if notes is not None else ()


def load_change(machine: Machine) -> tuple[Nic, ...]:
    """The change of a card that is noted for this QEMU: before, after. Raises: HostError."""
    notes = _load_cards(machine)
    return notes.change if notes is not None else ()


def _load_cards(machine: Machine) -> _Cards | None:
    found = files.load_record(_Cards, _path(machine, _CARDS), _VERSION)
    return found if found is not None and found.process == _process(machine) else None


def save_cards(machine: Machine, cards: tuple[Nic, ...], change: tuple[Nic, ...] = ()) -> None:
    """Note these and no others. Raises: HostError."""
    path = _path(machine, _CARDS)
    if cards or change:
        notes = _Cards(process=_process(machine), cards=cards, change=change)
        files.write_json(path, records.to_plain(notes), lasting=False)
    else:
        files.remove(path, lasting=False)


def load_gadgets(machine: Machine) -> tuple[Gadget, ...]:
    """The USB devices that are noted for this QEMU. Raises: HostError."""
    found = files.load_record(_Gadgets, _path(machine, _GADGETS), _VERSION)
    return found.gadgets if found is not None and found.process == _process(machine) else ()


def save_gadgets(machine: Machine, gadgets: tuple[Gadget, ...]) -> None:
    """Note these and no others. Raises: HostError."""
    path = _path(machine, _GADGETS)
    if gadgets:
        notes = _Gadgets(process=_process(machine), gadgets=gadgets)
        files.write_json(path, records.to_plain(notes), lasting=False)
    else:
        files.remove(path, lasting=False)
