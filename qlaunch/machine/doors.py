"""This computer's ports that the supervisor leads into guests: on loopback, and of rootless
networks, which are not this computer's.

A door only costs a descriptor while nobody comes. Who comes is connected by the network service,
which is where the guest is (`dial`), and his bytes are carried both ways.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable

from attrs import Factory, define

from qlaunch.aio import Spawner
from qlaunch.errors import QlaunchError
from qlaunch.host.sockets import bind_tcp
from qlaunch.machine import pump
from qlaunch.plan.forwards import Forward

# How long nobody is let in when there is no descriptor left for him.
REST = 1.0
# Connections that one machine's doors carry at once; others wait.
MOST = 512
Dial = Callable[[str, int], Awaitable[socket.socket]]


@define(eq=False)
class Doors:
    """The doors of one machine. `dial(nic, port)` connects to a guest's port."""

    say: Callable[[str], None]
    group: Spawner
    dial: Dial
    _doors: dict[Forward, tuple[str, socket.socket]] = Factory(dict)
    _busy: int = 0

    def change(self, nic: str, wanted: Iterable[Forward]) -> None:
        """Have these doors, and no others, for the card `nic`. All or none are opened.

        Raises: ConflictError naming who has the port, HostError.
        """
        wanted = set(wanted)
        mine = {each for each, (owner, _) in self._doors.items() if owner == nic}
        opened: dict[Forward, socket.socket] = {}
        try:
            for each in sorted(wanted - mine):
                opened[each] = bind_tcp(each.address, each.port)
        except BaseException:
            for listener in opened.values():
                listener.close()
            raise
        for each in mine - wanted:
            self._shut(each)
        for each, listener in opened.items():
            self._doors[each] = (nic, listener)
            self._listen(each, listener)

    def close(self) -> None:
        """Shut all of them; who is inside stays."""
        for each in list(self._doors):
            self._shut(each)

    def _shut(self, each: Forward) -> None:
        _, listener = self._doors.pop(each)
        asyncio.get_running_loop().remove_reader(listener.fileno())
        listener.close()

    def _listen(self, each: Forward, listener: socket.socket) -> None:
        if self._doors.get(each, ("", None))[1] is listener:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._knock, each, listener)

    def _knock(self, each: Forward, listener: socket.socket) -> None:
        try:
            if self._busy >= MOST:
                raise OSError(0, f"there are {MOST} already")  # as the kernel's own
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Who waits in the queue keeps the listener readable: without a rest we would spin.
            self.say(f"forward {each}: a connection has to wait: {error.strerror}")
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener.fileno())
            loop.call_later(REST, self._listen, each, listener)
            return
        self._busy += 1
        client.setblocking(False)  # noqa: FBT003  # its name for it
        self.group.create_task(self._lead(each, client))

    async def _lead(self, each: Forward, client: socket.socket) -> None:
        left = [0, 0]

        def over() -> None:
            left.pop()
            if not left:
                self._busy -= 1

        try:
            guest = await self.dial(self._doors[each][0], each.to_port)
        except (QlaunchError, KeyError) as error:
            client.close()
            self._busy -= 1
            if isinstance(error, QlaunchError):
                self.say(f"forward {each}: {error.message}")
            return
        except BaseException:
            client.close()
            raise
        await pump.join(client, guest, over)
