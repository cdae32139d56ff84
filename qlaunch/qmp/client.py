"""qemu.qmp's client with its edges filed off. What others use is `qlaunch.qmp.session`."""

from __future__ import annotations

import logging
import socket
from asyncio import sleep
from collections.abc import Callable, Mapping

from qemu.qmp import Message, QMPClient, Runstate, protocol, qmp_client
from qemu.qmp.error import ProtocolError
from qemu.qmp.util import flush

from qlaunch.qmp.sockets import writable

# Bytes of one line; a schema has 207 KB, a long `human-monitor-command` a few more.
LONGEST_LINE = 10 << 20
# Messages read before other tasks have a turn: a stream with full buffers never yields by itself.
_TURN = 50

# All that the library logs as an error or a warning reaches the caller as an error of ours, and at
# DEBUG it would write passwords into the log.
_SILENT = logging.getLogger("qlaunch.qmp.library")
_SILENT.setLevel(logging.CRITICAL + 1)
_SILENT.propagate = False
# Nor does anybody read the tracebacks that it puts into words each time a connection ends: 1 ms,
# and the sources of asyncio in memory for ever.
for _module in (protocol, qmp_client):
    vars(_module)["pretty_traceback"] = str


class Client(QMPClient):
    """Hands each event to `on_event` as it is read and keeps none; calls `on_end` once when the
    connection that stood ends, for whatever reason: `fault` then says why, if that is known.
    """

    def __init__(
        self, on_event: Callable[[Mapping[str, object]], None], on_end: Callable[[], None]
    ) -> None:
        super().__init__(readbuflen=LONGEST_LINE)
        self.logger = _SILENT
        self.fault = ""
        self._on_event = on_event
        self._on_end = on_end
        self._read = 0

    async def send_fd(self, side: socket.socket, fd: int) -> None:
        """Send `fd` through `side`, a duplicate of the connection's socket, between two commands.

        Raises: OSError.
        """
        if self._writer is None:
            raise ConnectionResetError
        while True:
            # With a command half sent, our byte would land within its text.
            await flush(self._writer)
            try:
                socket.send_fds(side, [b" "], [fd])
            except BlockingIOError:
                await writable(side)
            else:
                return

    # ---- what the library calls -----------------------------------------------------------------

    async def _do_recv(self) -> Message:
        self._read += 1
        if self._read % _TURN == 0:
            await sleep(0)
        try:
            return Message(await self._readline())
        except EOFError:
            self.fault = "QEMU closed the connection"
            raise
        except OSError as error:
            self.fault = f"the connection broke: {error.strerror or error}"
            raise
        except (ProtocolError, ValueError, RecursionError) as error:
            # The library's own errors carry the whole line, up to 10 MB, into every log message.
            self.fault = f"what QEMU sent is not QMP ({type(error).__name__})"
            raise ProtocolError(self.fault) from None

    async def _recv(self) -> Message:
        # Also while the library waits for the greeting or for the reply to qmp_capabilities: QEMU
        # 7.2 may send an event before either to a client that reconnects.
        while "event" in (message := await super()._recv()):
            self._on_event(message)
        return message

    async def _on_message(self, msg: Message) -> None:
        if isinstance(msg.get("id"), dict | list):
            self.fault = "QEMU answered a command that nobody gave"
            raise ProtocolError(self.fault)
        if "error" in msg and "id" not in msg:
            self.fault = "QEMU did not understand what it was told"
        await super()._on_message(msg)

    def _cb_inbound(self, msg: Message) -> Message:
        return msg  # the library writes each message as indented text, for a log nobody reads

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _set_state(self, state: Runstate) -> None:
        stood = self.runstate is Runstate.RUNNING
        super()._set_state(state)
        if stood and state is Runstate.DISCONNECTING:
            self._on_end()
