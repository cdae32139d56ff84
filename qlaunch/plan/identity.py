"""What a machine is given once and keeps: its UUID, and the leases that a start leaves behind."""

from __future__ import annotations

from attrs import evolve

from qlaunch.plan.boot import once_said_now
from qlaunch.plan.draft import Draft, stable_bytes
from qlaunch.plan.model import Leases, Plan


def uuid(draft: Draft) -> str:
    """The machine's UUID: as said, as leased, or made from who and where the machine is."""
    if draft.profile.uuid:
        return draft.profile.uuid.lower()
    if draft.leases.uuid:
        return draft.leases.uuid
    raw = bytearray(
        stable_bytes("uuid", draft.facts.host.machine_id, str(draft.facts.host.uid), draft.name)[
            :16
        ]
    )
    # RFC 9562, version 8: sixteen bytes of our own making.
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def leases(draft: Draft, asked: str, plan: Plan) -> Leases:
    """What this start gives the machine for good. Devices that are gone for now keep their
    address: who comes back finds it, unless it had to be given away."""
    before, once = draft.leases, draft.profile.boot.once
    now = {
        **{ident: str(place) for ident, place in draft.pci.places.items()},
        **draft.seats.leases(),
    }
    used = {_spot(place) for place in now.values()}
    kept = {ident: place for ident, place in before.places.items() if _spot(place) not in used}
    return evolve(
        before,
        machine_asked=asked,
        machine_type=plan.board.machine,
        uuid=plan.uuid,
        macs={**before.macs, **{nic.id: nic.mac for nic in plan.nics}},
        places={**kept, **now},
        buses={**before.buses, **{disk.id: disk.bus for disk in plan.disks}},
        once_done=before.once_done if before.once_done == once or once_said_now(draft) else None,
    )


def _spot(place: str) -> str:
    """The position or, for a PCI address, the slot: two absent devices never share one."""
    bus, _, number = place.partition("/")
    return f"{bus}/{number.partition('.')[0]}"
