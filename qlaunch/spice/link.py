"""Opening a SPICE channel: what both sides can, and the ticket."""

from __future__ import annotations

import hashlib
import os
import socket
import struct

from qlaunch.errors import SessionLostError

MAGIC = b"REDQ"
MAIN_CHANNEL = 1
# Common capabilities: choose how to log in, by a ticket; messages with a short header.
_AUTH_SELECTION, _AUTH_SPICE, MINI_HEADER = 0, 1, 3
_CAPABILITIES = 1 << _AUTH_SELECTION | 1 << _AUTH_SPICE | 1 << MINI_HEADER
_HEADER = struct.Struct("<4sIII")
_KEY_SIZE = 162
LONGEST_REPLY = 4096


def open_main(path: str, timeout: float) -> socket.socket:
    """A connection to the main channel of the SPICE server behind the unix socket at `path`, where
    no password is asked for. Whoever looks at the screen is thrown out: there is one client.

    Raises: SessionLostError.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
        _link(connection)
    except (OSError, EOFError, struct.error) as error:
        connection.close()
        raise SessionLostError(f"SPICE does not answer at {path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _link(connection: socket.socket) -> None:
    wish = struct.pack("<IBBIII", 0, MAIN_CHANNEL, 0, 1, 0, 18)
    wish += struct.pack("<I", _CAPABILITIES)
    connection.sendall(_HEADER.pack(MAGIC, 2, 2, len(wish)) + wish)
    magic, _major, _minor, size = _HEADER.unpack(read(connection, _HEADER.size))
    if magic != MAGIC or not 4 + _KEY_SIZE <= size <= LONGEST_REPLY:
        raise SessionLostError("what answers does not speak SPICE")
    reply = read(connection, size)
    if problem := int.from_bytes(reply[:4], "little"):
        raise SessionLostError(f"SPICE refused the connection (error {problem})")
    ticket = encrypt(b"\0", reply[4 : 4 + _KEY_SIZE])
    connection.sendall(struct.pack("<I", _AUTH_SPICE) + ticket)
    if problem := int.from_bytes(read(connection, 4), "little"):
        raise SessionLostError(f"SPICE refused the login (error {problem})")


def read(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises: EOFError, OSError."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("it hung up")
        data += part
    return data


def encrypt(text: bytes, key: bytes) -> bytes:
    """`text` for the holder of the RSA key (DER), with OAEP and SHA-1 as SPICE has it.

    Here no secret is sent: the server wants this field also where it asks for no password. So this
    needs no OpenSSL.
    """
    modulus, exponent = _numbers(key)
    size = (modulus.bit_length() + 7) // 8
    digest = hashlib.sha1(b"", usedforsecurity=False).digest()
    padding = bytes(size - len(text) - 2 * len(digest) - 2)
    block = digest + padding + b"\1" + text
    seed = os.urandom(len(digest))
    masked = _xor(block, _mask(seed, len(block)))
    head = b"\0" + _xor(seed, _mask(masked, len(seed)))
    number = pow(int.from_bytes(head + masked, "big"), exponent, modulus)
    return number.to_bytes(size, "big")


def _numbers(key: bytes) -> tuple[int, int]:
    """Modulus and exponent: SEQUENCE { SEQUENCE {...}, BIT STRING { SEQUENCE { n, e } } }."""
    outer = _content(key)[0]
    bits = _content(_content(outer)[1])[0]
    pair = _content(bits[1:])[0]
    modulus, rest = _content(pair)
    return int.from_bytes(modulus, "big"), int.from_bytes(_content(rest)[0], "big")


def _content(data: bytes) -> tuple[bytes, bytes]:
    """The content of the first DER element, and what follows it. Raises: EOFError."""
    if len(data) < 2:
        raise EOFError("the key is cut off")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    return data[start : start + size], data[start + size :]


def _mask(seed: bytes, size: int) -> bytes:
    made = b"".join(
        hashlib.sha1(seed + number.to_bytes(4, "big"), usedforsecurity=False).digest()
        for number in range(-(-size // 20))
    )
    return made[:size]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
