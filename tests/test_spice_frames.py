"""Where SPICE's messages end, and the ticket of a small client."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaunch.spice.frames import Frames
from qlaunch.spice.link import encrypt

# AUTH_SELECTION, AUTH_SPICE, MINI_HEADER (spice-protocol: protocol.h)
MINI, FULL = 0b1011, 0b0011


def hello(capabilities: int) -> bytes:
    wish = struct.pack("<IBBIIII", 0, 1, 0, 1, 0, 18, capabilities)
    return struct.pack("<4sIII", b"REDQ", 2, 2, len(wish)) + wish


def reply(capabilities: int) -> bytes:
    body = struct.pack("<I162sIIII", 0, bytes(162), 1, 0, 178, capabilities)
    return struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body


def message(size: int, *, mini: bool) -> bytes:
    head = struct.pack("<HI", 7, size) if mini else struct.pack("<QHII", 1, 7, size, 0)
    return head + b"x" * size


@given(
    sizes=st.lists(st.integers(0, 300), max_size=8),
    cuts=st.lists(st.integers(1, 90), min_size=1),
    client=st.sampled_from([MINI, FULL]),
    server=st.sampled_from([MINI, FULL]),
)
def test_no_piece_goes_on_after_the_end_of_a_message(
    sizes: list[int], cuts: list[int], client: int, server: int
) -> None:
    frames = Frames()
    for byte in hello(client) + bytes(132):
        frames.hear_client(bytes([byte]))
    mini = client == server == MINI
    parts = [reply(server), bytes(4), *(message(size, mini=mini) for size in sizes)]
    stream, pieces, at = b"".join(parts), [], 0
    while at < len(stream):
        step = cuts[at % len(cuts)]
        pieces += frames.cut(stream[at : at + step])
        at += step
    assert b"".join(pieces) == stream
    ends, total = {0}, 0
    for part in parts:
        total += len(part)
        ends.add(total)
    at = 0
    for piece in pieces:
        assert not any(at < end < at + len(piece) for end in ends)
        at += len(piece)


def test_what_is_no_spice_goes_through_as_it_is() -> None:
    frames = Frames()
    assert b"".join(frames.cut(b"RFB 003.008\n" * 20)) == b"RFB 003.008\n" * 20
    assert frames.cut(b"more") == [b"more"]


def test_a_ticket_can_be_read_by_the_holder_of_the_key() -> None:
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    key = rsa.generate_private_key(65537, 1024)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    sha1 = hashes.SHA1()
    oaep = padding.OAEP(mgf=padding.MGF1(algorithm=sha1), algorithm=sha1, label=None)
    assert key.decrypt(encrypt(b"geheim\0", public), oaep) == b"geheim\0"
