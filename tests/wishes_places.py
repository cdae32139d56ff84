"""Wishes about places that a plan cannot fulfil: see tests/wishes.py."""

from __future__ import annotations

from tests.wishes import Wish

_Q35 = '[machine]\ntype = "q35"\n'

PLACES = {
    "machine.pci names what is not there": Wish(text='[machine]\npci = ["baloon0=06.0"]\n'),
    "machine.pci names a card that has an address": Wish(
        text='[machine]\npci = ["net0-dev=05.0"]\n[[nic]]\nid = "net0"\naddress = "04.0"\n'
    ),
    "a root port is asked for twice": Wish(
        text=f'{_Q35}[[nic]]\nid = "a"\naddress = "01:00.0"\n'
        '[[nic]]\nid = "b"\naddress = "01:00.0"\n'
    ),
    "there is no such root port": Wish(text=f'{_Q35}[[nic]]\nid = "a"\naddress = "1a:00.0"\n'),
    "pc has no root ports": Wish(text='[[nic]]\nid = "a"\naddress = "01:00.0"\n'),
    "a SCSI unit that is asked for twice": Wish(
        text='[[cdrom]]\nid = "a"\nbus = "scsi"\naddress = "2.1"\n'
        '[[cdrom]]\nid = "b"\nbus = "scsi"\naddress = "2.1"\n'
    ),
    "a SCSI unit that there is not": Wish(
        text='[[cdrom]]\nid = "a"\nbus = "scsi"\naddress = "2.64"\n'
    ),
    "a port of channels that is asked for twice": Wish(
        text='[[channel]]\nid = "a"\nname = "a"\nport = 3\n'
        '[[channel]]\nid = "b"\nname = "b"\nport = 3\n'
    ),
}
