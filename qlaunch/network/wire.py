"""What goes over the socket of the network service: JSON objects, one a packet, and descriptors.

A packet that would be too large travels as a memory file: its descriptor is the first of the
packet's and the object is `{"in_memory": LENGTH}`.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from qlaunch.errors import QlaunchError, SessionLostError

VERSION = 1
MAX_PACKET = 65536
MAX_MEMORY = 16 << 20
MAX_FDS = 64
KIND = socket.SOCK_SEQPACKET

Message = dict[str, Any]


class WireError(QlaunchError):
    """The other end does not speak this language."""

    kind = "protocol"


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send `message` and copies of `fds` over the connected `sock`.

    Raises: SessionLostError, BlockingIOError when the other end does not read.
    """
    data = json.dumps(message).encode()
    if len(data) <= MAX_PACKET:
        _send(sock, data, fds)
        return
    memory = os.memfd_create("qlaunch-message", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
        _send(sock, json.dumps({"in_memory": len(data)}).encode(), (memory, *fds))
    finally:
        os.close(memory)


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionError) as error:
        raise SessionLostError("the network service has gone away") from error


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors, which are the caller's to close.

    Raises: SessionLostError at the end of the connection, WireError for what is no message (its
    descriptors are closed), BlockingIOError when there is none yet.
    """
    room = socket.CMSG_SPACE(4 * MAX_FDS)
    try:
        data, control, flags, _ = sock.recvmsg(MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError as error:
        raise SessionLostError("the network service has gone away") from error
    fds = _descriptors(control)
    try:
        if not data and not fds:
            raise SessionLostError("the network service has closed the connection")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise WireError("a message is too large")
        message = _object(data)
        if "in_memory" in message:
            message = _in_memory(message, fds)
        return message, fds
    except BaseException:
        close_all(fds)
        raise


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _in_memory(message: Message, fds: list[int]) -> Message:
    length = message["in_memory"]
    if not fds or type(length) is not int or not 0 < length <= MAX_MEMORY:
        raise WireError("a message is too large")
    memory = fds.pop(0)
    try:
        return _object(os.pread(memory, length, 0))
    except OSError as error:
        raise WireError("a message cannot be read") from error
    finally:
        os.close(memory)


def _object(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("a message is not JSON") from None
    if not isinstance(message, dict):
        raise WireError("a message is not a JSON object")
    return message
