"""Internal snapshots of qcow2 images, read without QEMU: their names, and the memory in them.

Layout: QEMU docs/interop/qcow2.txt. Reading is sound while QEMU has the image open, too: what a
snapshot consists of is not written to again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from attrs import frozen

from qlaunch.host.qcow2 import ImageError, ImageHeader, read_header

_ENTRY = struct.Struct(">QIHHIIQII")
_WIDE_STATE, _DISK_SIZE = struct.Struct(">Q"), struct.Struct(">Q")
_EXTENDED_L2 = 1 << 4
_FEATURES_AT = 72
# QEMU's own limits (block/qcow2.h, 7.2).
_MOST_TABLE = 16 << 20
_MOST_EXTRA = 1024
_MOST_L1 = (32 << 20) // 8
_COMPRESSED, _ZERO = 1 << 62, 1
_OFFSET = 0x00FFFFFFFFFFFE00


@frozen(kw_only=True)
class InternalSnapshot:
    """A snapshot inside an image. `created` is in seconds since the epoch, `vm_state` is how many
    bytes of memory and devices it has (0: none), `disk_size` how large the disk was."""

    id: str
    name: str
    created: float
    vm_state: int
    disk_size: int
    l1_at: int
    l1_entries: int


def list_internal(path: str) -> tuple[InternalSnapshot, ...]:
    """The internal snapshots of the image at `path`, oldest first; none of anything but qcow2.

    Raises: ImageError when the table is damaged, OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_internal(fd)
    finally:
        os.close(fd)


def read_internal(fd: int) -> tuple[InternalSnapshot, ...]:
    """As `list_internal`, of the open image `fd`."""
    size = os.fstat(fd).st_size
    header = read_header(fd, size)
    if header.format != "qcow2" or not header.snapshots:
        return ()
    data = os.pread(fd, min(_MOST_TABLE, max(0, size - header.snapshots_at)), header.snapshots_at)
    found, at = [], 0
    for _ in range(header.snapshots):
        snapshot, at = _entry(data, at, header)
        found.append(snapshot)
    return tuple(found)


def _entry(data: bytes, at: int, header: ImageHeader) -> tuple[InternalSnapshot, int]:
    if at + _ENTRY.size > len(data):
        raise ImageError("the table of internal snapshots is cut short")
    l1_at, l1, ident, name, sec, nsec, _clock, state, extra = _ENTRY.unpack_from(data, at)
    at += _ENTRY.size
    end = at + extra + ident + name
    if extra > _MOST_EXTRA or l1 > _MOST_L1 or end > len(data):
        raise ImageError("the table of internal snapshots is damaged")
    disk_size = header.virtual_size or 0
    if extra >= 8:
        state = _WIDE_STATE.unpack_from(data, at)[0]
    if extra >= 16:
        disk_size = _DISK_SIZE.unpack_from(data, at + 8)[0]
    words = data[at + extra : end]
    snapshot = InternalSnapshot(
        id=words[:ident].decode(errors="replace"),
        name=words[ident:].decode(errors="replace"),
        created=sec + nsec / 1e9,
        vm_state=state,
        disk_size=disk_size,
        l1_at=l1_at,
        l1_entries=l1,
    )
    return snapshot, end + (-end % 8)


def copy_vm_state(
    fd: int,
    snapshot: InternalSnapshot,
    target: int,
    at: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Copy the memory of an internal snapshot of the open image `fd` into `target`, from `at` on.

    It lies behind the end of the disk, at the next address that begins an L2 table.

    Raises: ImageError when the image is damaged, OSError.
    """
    size = os.fstat(fd).st_size
    cluster = read_header(fd, size).cluster_size or 0
    wide = _EXTENDED_L2 & int.from_bytes(os.pread(fd, 8, _FEATURES_AT), "big")
    step = 16 if wide and int.from_bytes(os.pread(fd, 4, 4), "big") >= 3 else 8
    per_table = cluster // step
    first = -(-snapshot.disk_size // (cluster * per_table))
    done = 0
    for index in range(first, snapshot.l1_entries):
        if done >= snapshot.vm_state:
            break
        table = _table(fd, snapshot.l1_at + 8 * index, cluster)
        for entry in range(0, cluster, step):
            length = min(cluster, snapshot.vm_state - done)
            if length <= 0:
                break
            where = int.from_bytes(table[entry : entry + 8], "big")
            _copy_cluster(fd, where, length, target, at + done)
            done += length
        progress(done, snapshot.vm_state)
    if done < snapshot.vm_state:
        raise ImageError("a part of the memory in it is missing")


def _table(fd: int, at: int, cluster: int) -> bytes:
    """The L2 table to which the L1 entry at `at` points."""
    offset = int.from_bytes(os.pread(fd, 8, at), "big") & _OFFSET
    if not offset:
        return bytes(cluster)
    table = os.pread(fd, cluster, offset)
    if len(table) < cluster:
        raise ImageError("a table of it lies beyond the end of the file")
    return table


def _copy_cluster(fd: int, entry: int, length: int, target: int, at: int) -> None:
    if entry & _COMPRESSED:
        raise ImageError("its memory is compressed, which QEMU never does")
    offset = entry & _OFFSET
    if entry & _ZERO or not offset:
        return  # the target is a hole there
    data = os.pread(fd, length, offset)
    if len(data) < length:
        raise ImageError("a part of the memory lies beyond the end of the file")
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, at)
        view, at = view[written:], at + written
