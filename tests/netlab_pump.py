"""A guest's card and its cable: frames from a TAP's descriptor to a TAP of ours, and back.

Runs in the guest's namespace: `netlab_pump.py FD MAC MTU`. Both ends have the same header for
offloads, so the frames need no look. The card goes with this process.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, SIOCSIFHWADDR, SIOCSIFFLAGS, SIOCSIFMTU = 0x400454CA, 0x8924, 0x8914, 0x8922
TUNSETOFFLOAD, ALL_OFFLOADS = 0x400454D0, 0x0F
TAP, NO_PI, VNET_HDR, ETHER = 0x2, 0x1000, 0x4000, 1
UP = 0x1 | 0x2 | 0x40 | 0x1000  # and broadcast, running, multicast


def card(mac: str, mtu: int) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"eth0", TAP | NO_PI | VNET_HDR))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        octets = bytes.fromhex(mac.replace(":", ""))
        fcntl.ioctl(control, SIOCSIFHWADDR, struct.pack("16sH6s", b"eth0", ETHER, octets))
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si", b"eth0", mtu))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH", b"eth0", UP))
    return fd


def main() -> None:
    cable = int(sys.argv[1])
    guest = card(sys.argv[2], int(sys.argv[3]))
    for fd in (cable, guest):
        os.set_blocking(fd, False)
        fcntl.ioctl(fd, TUNSETOFFLOAD, ALL_OFFLOADS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for fd in select.select([cable, guest], [], [])[0]:
            try:
                frame = os.read(fd, 70000)
                os.write(guest if fd == cable else cable, frame)
            except OSError:  # full, or down: lost, as on every cable
                continue


if __name__ == "__main__":
    main()
