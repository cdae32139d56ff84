"""Writes qcow2 files without QEMU: empty overlays, and metadata around a stream of memory.

Layout: QEMU docs/interop/qcow2.txt. Clusters of 64 KiB, refcounts of 16 bits, as with qemu-img.
"""

from __future__ import annotations

import os
import struct
import time

from attrs import frozen

from qlaunch.errors import RefusedError
from qlaunch.host.newfile import part_file, publish, remove_stale, write_error

CLUSTER = 1 << 16
STREAM_AT = 1 << 20
"""Where a memory file's stream begins: before it is room for the header."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_MAGIC = b"QFI\xfb"
_BACKING_FORMAT = 0xE2792ACA
_PER_L2 = CLUSTER // 8  # clusters that one L2 table maps: 512 MiB
_PER_BLOCK = CLUSTER // 2  # clusters that one refcount block counts: 2 GiB
_COPIED = 1 << 63
_MAX_BACKING_NAME = 1023
_SNAPSHOT = struct.Struct(">QIHHIIQII")
_SNAPSHOT_EXTRA = struct.Struct(">QQQ")
# The virtual disk of a memory file; its VM state begins where the next L2 table does.
_MEMORY_DISK = 1 << 20


def _clusters(size: int) -> int:
    return -(-size // CLUSTER)


def _refcount_blocks(clusters: int) -> tuple[int, int]:
    """How many refcount blocks, and clusters of their table, a file needs whose other content takes
    `clusters`."""
    blocks, table = 1, 1
    while True:
        total = clusters + blocks + table
        needed = -(-total // _PER_BLOCK), -(-blocks * 8 // CLUSTER)
        if needed == (blocks, table):
            return needed
        blocks, table = max(blocks, needed[0]), max(table, needed[1])


def _l1_entries(size: int) -> int:
    return max(1, -(-size // (_PER_L2 * CLUSTER)))


def empty_size(size: int) -> int:
    """How large the file is that `create_overlay` makes for a disk of `size` bytes."""
    l1 = _clusters(_l1_entries(size) * 8)
    blocks, table = _refcount_blocks(1 + l1)
    return (1 + table + blocks + l1) * CLUSTER


def create_overlay(
    path: str, *, size: int, backing: str | None, backing_format: str | None
) -> None:
    """Make an empty qcow2 file of `size` bytes at the absolute `path`, on `backing` (as its header
    is to say) of the format `backing_format`. It is complete and on the disk when it appears.

    Raises: ConflictError when `path` exists, RefusedError when the name is too long, HostError.
    """
    data = _overlay_bytes(size, backing, backing_format)
    remove_stale(path)
    with part_file(path) as (part, fd):
        try:
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, empty_size(size))
            publish(fd, part, path)
        except OSError as error:
            raise write_error(path, error) from error


def _overlay_bytes(size: int, backing: str | None, backing_format: str | None) -> bytes:
    """The file's content up to where only zeros follow: header, refcount table, refcount blocks."""
    l1 = _clusters(_l1_entries(size) * 8)
    blocks, table = _refcount_blocks(1 + l1)
    table_at = CLUSTER
    blocks_at = table_at + table * CLUSTER
    l1_at = blocks_at + blocks * CLUSTER
    name = os.fsencode(backing) if backing else b""
    if len(name) > _MAX_BACKING_NAME:
        raise RefusedError(f"the path {backing} is too long for a backing file: 1023 bytes")
    extensions = b""
    if backing_format:
        form = backing_format.encode()
        extensions += struct.pack(">II", _BACKING_FORMAT, len(form)) + form.ljust(8, b"\0")
    extensions += struct.pack(">II", 0, 0)
    name_at = _HEADER.size + 8 + len(extensions) if name else 0
    header = _header(
        backing=(name_at, len(name)), size=size, l1=(_l1_entries(size), l1_at),
        refcounts=(table_at, table), snapshots=(0, 0),
    )  # fmt: skip
    data = bytearray(blocks_at + blocks * CLUSTER)
    data[0 : _HEADER.size] = header
    at = _HEADER.size + 8  # the byte for the compression type, padded
    data[at : at + len(extensions)] = extensions
    data[name_at or 0 : (name_at or 0) + len(name)] = name or b""
    struct.pack_into(f">{blocks}Q", data, table_at, *_places(blocks_at, blocks))
    used = 1 + table + blocks + l1
    data[blocks_at : blocks_at + 2 * used] = b"\0\1" * used
    return bytes(data)


def _places(start: int, count: int) -> list[int]:
    return [start + number * CLUSTER for number in range(count)]


def _header(
    *,
    backing: tuple[int, int],
    size: int,
    l1: tuple[int, int],
    refcounts: tuple[int, int],
    snapshots: tuple[int, int],
) -> bytes:
    return _HEADER.pack(
        _MAGIC, 3, *backing, 16, size, 0, *l1, *refcounts, *snapshots, 0, 0, 0, 4, _HEADER.size + 8
    )


# ---- memory -------------------------------------------------------------------------------------


@frozen(kw_only=True)
class WrappedStream:
    """A memory file: its snapshot's tag, and the bytes of the stream that begins at `STREAM_AT`."""

    tag: str
    length: int


def wrap_stream(fd: int, *, tag: str, length: int) -> None:
    """Make a qcow2 file of `fd`, in which a migration stream of `length` bytes begins at
    `STREAM_AT`: with an internal snapshot `tag` whose VM state is that stream.

    The stream is not copied. The header comes last, after all else is on the disk: before that it
    is no qcow2 file.

    Raises: OSError.
    """
    count = _clusters(length)
    tables = -(-count // _PER_L2)
    at = STREAM_AT + count * CLUSTER
    l2_at, l1_at = at, at + tables * CLUSTER
    l1_size = 1 + tables
    active_at = l1_at + _clusters(l1_size * 8) * CLUSTER
    snapshots_at = active_at + _clusters(l1_size * 8) * CLUSTER
    refcounts_at = snapshots_at + CLUSTER
    blocks, table = _refcount_blocks(refcounts_at // CLUSTER)
    blocks_at = refcounts_at + table * CLUSTER
    end = blocks_at + blocks * CLUSTER
    os.ftruncate(fd, end)
    entries = _places(STREAM_AT, count)
    _write(fd, struct.pack(f">{count}Q", *(entry | _COPIED for entry in entries)), l2_at)
    pointers = [0, *(entry | _COPIED for entry in _places(l2_at, tables))]
    _write(fd, struct.pack(f">{l1_size}Q", *pointers), l1_at)
    _write(fd, _snapshot_entry(tag, length, l1_at, l1_size), snapshots_at)
    _write(fd, struct.pack(f">{blocks}Q", *_places(blocks_at, blocks)), refcounts_at)
    skipped = STREAM_AT // CLUSTER - 1  # between the header and the stream nothing is used
    counts = b"\0\1" + b"\0\0" * skipped + b"\0\1" * (end // CLUSTER - 1 - skipped)
    _write(fd, counts, blocks_at)
    os.fsync(fd)
    header = _header(
        backing=(0, 0), size=_MEMORY_DISK, l1=(l1_size, active_at),
        refcounts=(refcounts_at, table), snapshots=(1, snapshots_at),
    )  # fmt: skip
    _write(fd, header.ljust(CLUSTER, b"\0"), 0)
    os.fsync(fd)


def _snapshot_entry(tag: str, length: int, l1_at: int, l1_size: int) -> bytes:
    name, ident = tag.encode(), b"1"
    extra = _SNAPSHOT_EXTRA.pack(length, _MEMORY_DISK, (1 << 64) - 1)  # icount: not recorded
    entry = _SNAPSHOT.pack(
        l1_at, l1_size, len(ident), len(name), int(time.time()), 0, 0,
        min(length, 0xFFFFFFFF), len(extra),
    )  # fmt: skip
    return entry + extra + ident + name


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def read_wrapped(fd: int, what: str) -> WrappedStream:
    """What the memory file `fd` holds; `what` is its name in messages.

    Raises: RefusedError when it is none, or not all of it is there.
    """
    head = os.pread(fd, _HEADER.size, 0)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise RefusedError(
            f"{what} holds no saved memory: it is damaged, or its saving was cut off"
        )
    fields = _HEADER.unpack(head)
    size, snapshots, snapshots_at = fields[5], fields[11], fields[12]
    file_size = os.fstat(fd).st_size
    entry = os.pread(fd, 4096, snapshots_at) if snapshots_at < file_size else b""
    if size != _MEMORY_DISK or snapshots != 1 or len(entry) < _SNAPSHOT.size + _SNAPSHOT_EXTRA.size:
        raise RefusedError(f"{what} holds no memory that qlaunch saved")
    known = _SNAPSHOT.unpack_from(entry)
    ident, name_length, extra = known[2], known[3], known[8]
    length = _SNAPSHOT_EXTRA.unpack_from(entry, _SNAPSHOT.size)[0]
    name_at = _SNAPSHOT.size + extra + ident
    tag = entry[name_at : name_at + name_length].decode(errors="replace")
    if extra != _SNAPSHOT_EXTRA.size or STREAM_AT + length > file_size or not length:
        raise RefusedError(f"{what} is damaged: a part of the memory is missing")
    return WrappedStream(tag=tag, length=length)
