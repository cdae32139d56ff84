"""Everything that is opened for QEMU before it starts, and closed here once it has it.

A copy that we kept would hold QEMU's image locks after its death, so none is kept.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from attrs import Factory, define

from qlaunch.argv import Handles
from qlaunch.argv.cables import Cable
from qlaunch.host.sockets import bind_unix
from qlaunch.machine.live import mark, open_file
from qlaunch.plan.model import Layer, Plan


@define(kw_only=True)
class Opened:
    """Descriptors for one QEMU. `handles` names them on its command line."""

    stack: ExitStack = Factory(ExitStack)
    images: dict[str, int] = Factory(dict)
    sets: dict[int, tuple[int, ...]] = Factory(dict)
    marks: dict[int, str] = Factory(dict)
    sockets: dict[str, int] = Factory(dict)
    cables: dict[str, Cable] = Factory(dict)

    @property
    def handles(self) -> Handles:
        return Handles(
            images=self.images,
            sets=self.sets,
            marks=self.marks,
            sockets=self.sockets,
            cables=self.cables,
        )

    @property
    def descriptors(self) -> tuple[int, ...]:
        cables = (fd for each in self.cables.values() for fd in (*each.fds, *each.vhost_fds))
        images = (fd for fds in self.sets.values() for fd in fds)
        return (*images, *self.sockets.values(), *map(int, cables))

    def open_layer(self, layer: Layer) -> None:
        """Open an image into a descriptor set of its own.

        What is written gets a reading one as well: QEMU reopens a disk for reading when a snapshot
        of it is taken, and finds only what is in the set.
        """
        number = len(self.sets)
        modes = [os.O_RDONLY] if layer.file_read_only else [os.O_RDWR, os.O_RDONLY]
        descriptors = [self._open(layer.path, mode) for mode in modes]
        self.images[layer.file_node] = number
        self.sets[number] = tuple(descriptors)
        self.marks[number] = mark(layer.path)

    def _open(self, path: str, mode: int) -> int:
        handle = open_file(path, mode)
        self.stack.callback(os.close, handle)
        return handle

    def bind(self, ident: str, path: str) -> None:
        """Listen at `path` for the chardev `ident`."""
        listener = bind_unix(path)
        self.stack.callback(listener.close)
        self.sockets[ident] = listener.fileno()

    def pair(self, ident: str) -> socket.socket:
        """A connected pair for the chardev `ident`; returned is the other program's end."""
        ours, theirs = socket.socketpair()
        self.stack.callback(ours.close)
        self.stack.callback(theirs.close)
        self.sockets[ident] = ours.fileno()
        return theirs

    def close(self) -> None:
        """Close our copies."""
        self.stack.close()


def open_all(plan: Plan, opened: Opened) -> None:
    """Open every image of `plan` and listen on every socket.

    Raises: HostError, ConflictError when a socket is taken.
    """
    for layer in plan.layers():
        opened.open_layer(layer)
    for chardev in plan.sockets():
        opened.bind(chardev.id, chardev.path)
