"""Wishes about USB devices that a plan cannot fulfil, or has doubts about."""

from __future__ import annotations

from attrs import evolve

from qlaunch.facts import UsbDevice
from tests.wishes import Wish, new_disk

STICK = UsbDevice(
    port="1-2.3", vendor=0x0951, product=0x1666, name="Kingston DataTraveler 3.0",
    kinds=(8,), node="/dev/bus/usb/001/004", usable=True,
)  # fmt: skip
WANTED = '[[hostdev]]\nid = "stick"\ndevice = "0951:1666"\n'

USB = {
    "a device that is not plugged in": Wish(text=WANTED),
    "a port where nothing is plugged in": Wish(text=WANTED.replace("0951:1666", "1-4")),
    "a device that may not be used": Wish(text=WANTED, usb=(evolve(STICK, usable=False),)),
    "two of the same kind": Wish(
        text=WANTED, usb=(STICK, evolve(STICK, port="1-4", node="/dev/bus/usb/001/005"))
    ),
    "one device twice": Wish(
        text=WANTED + WANTED.replace('"stick"', '"again"').replace("0951", "0951"), usb=(STICK,)
    ),
    "a device and no controller": Wish(text=f'[usb]\ncontroller = "none"\n{WANTED}', usb=(STICK,)),
    "a device with a name of ours": Wish(text=WANTED.replace('"stick"', '"redir0"'), usb=(STICK,)),
    "a stick that is none": new_disk('bus = "virtio"\nremovable = true'),
}
