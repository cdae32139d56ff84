"""Reads an image's header without any QEMU code, so that hostile bytes meet only these lines.

Of the formats only qcow2 is understood; others are recognised by their magic and named. Whatever
has no known magic is raw. Layout: QEMU docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import struct

from attrs import frozen

HEAD = 4096
"""Bytes that are read first; the rest of the first cluster follows only when it is needed."""

_MAGICS = (
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"conectix", "vpc"),
    (b"vhdxfile", "vhdx"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"Bochs Virtual HD Image", "bochs"),
)
_QCOW = b"QFI\xfb"
_VDI_AT, _VDI = 0x40, b"\x7f\x10\xda\xbe"

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_V2_LENGTH, _V3_LENGTH = 72, 104

_DIRTY, _CORRUPT, _DATA_FILE = 1, 2, 4
_KNOWN_FEATURES = 0b11111  # dirty, corrupt, data file, compression type, extended L2

_BACKING_FORMAT, _DATA_FILE_NAME = 0xE2792ACA, 0x44415441

# The limits are QEMU's own (block/qcow2.h, 7.2); what is beyond them it refuses as well.
_MAX_BACKING_NAME = 1023
_MAX_SNAPSHOTS = 65536
_MAX_L1_ENTRIES = (32 << 20) // 8
_MAX_EXTENSIONS = 64


class ImageError(ValueError):
    """The header is damaged, or of a kind that QEMU would not open either."""


@frozen(kw_only=True)
class ImageHeader:
    """What an image's first bytes say. Sizes in bytes; names as they stand in the header.

    `virtual_size` is known for raw and qcow2. `data_file` is empty when the image says that it has
    an external data file but does not name it. `snapshots_at` is where the table of internal
    snapshots begins.
    """

    format: str
    virtual_size: int | None = None
    version: int | None = None
    cluster_size: int | None = None
    backing: bytes | None = None
    backing_format: bytes | None = None
    data_file: bytes | None = None
    encrypted: bool = False
    dirty: bool = False
    corrupt: bool = False
    snapshots: int = 0
    snapshots_at: int = 0


def read_header(fd: int, file_size: int) -> ImageHeader:
    """The header of the open image `fd`, whose file position stays where it is.

    Raises: ImageError when the header is damaged; OSError when the file cannot be read.
    """
    head = os.pread(fd, HEAD, 0)
    try:
        return parse_header(head, file_size)
    except ImageError:
        wanted = min(first_cluster(head), file_size)
        if wanted <= len(head):
            raise
    return parse_header(os.pread(fd, wanted, 0), file_size)


def first_cluster(head: bytes) -> int:
    """How many bytes a qcow2 header that starts with `head` may occupy; 0 for anything else."""
    if not head.startswith(_QCOW) or len(head) < 24:
        return 0
    cluster_bits = int.from_bytes(head[20:24], "big")
    return 1 << cluster_bits if 9 <= cluster_bits <= 21 else 0


def parse_header(data: bytes, file_size: int) -> ImageHeader:
    """What `data`, the beginning of a file of `file_size` bytes, says about the image.

    Raises: ImageError when it is a qcow2 header that is damaged or goes on beyond `data`.
    """
    if data.startswith(_QCOW):
        return _parse_qcow2(data, file_size)
    for magic, name in _MAGICS:
        if data.startswith(magic):
            return ImageHeader(format=name)
    if data[_VDI_AT : _VDI_AT + len(_VDI)] == _VDI:
        return ImageHeader(format="vdi")
    return ImageHeader(format="raw", virtual_size=file_size)


def _parse_qcow2(data: bytes, file_size: int) -> ImageHeader:
    if len(data) < 8:
        raise ImageError("the qcow2 header is cut short")
    version = int.from_bytes(data[4:8], "big")
    if version == 1:
        return ImageHeader(format="qcow", version=1)
    if version not in (2, 3):
        raise ImageError(f"qcow2 version {version} is unknown")
    if len(data) < (_V2_LENGTH if version == 2 else _V3_LENGTH):
        raise ImageError("the qcow2 header is cut short")
    fields = _FIXED.unpack_from(data)
    backing_at, backing_length, cluster_bits, size, crypt, l1_entries = fields[2:8]
    snapshots = fields[11]
    _check_fields(cluster_bits, size, crypt, l1_entries, snapshots)
    features, length = _features(data, version, 1 << cluster_bits)
    backing = _backing_name(data, backing_at, backing_length, length, 1 << cluster_bits)
    end = backing_at or min(1 << cluster_bits, file_size)
    extensions = _extensions(data, length, end)
    data_file = extensions.get(_DATA_FILE_NAME)
    if data_file is None and features & _DATA_FILE:
        data_file = b""
    return ImageHeader(
        format="qcow2",
        virtual_size=size,
        version=version,
        cluster_size=1 << cluster_bits,
        backing=backing,
        backing_format=extensions.get(_BACKING_FORMAT),
        data_file=data_file,
        encrypted=crypt != 0,
        dirty=bool(features & _DIRTY),
        corrupt=bool(features & _CORRUPT),
        snapshots=snapshots,
        snapshots_at=fields[12],
    )


def _check_fields(bits: int, size: int, crypt: int, l1_entries: int, snapshots: int) -> None:
    if not 9 <= bits <= 21:
        raise ImageError(f"cluster size 2^{bits} is out of range")
    if size > 1 << 62:
        raise ImageError(f"the virtual size {size} is out of range")
    if crypt > 2:
        raise ImageError(f"encryption method {crypt} is unknown")
    if l1_entries > _MAX_L1_ENTRIES:
        raise ImageError("the L1 table is larger than any image needs")
    if snapshots > _MAX_SNAPSHOTS:
        raise ImageError(f"{snapshots} internal snapshots are more than QEMU opens")


def _features(data: bytes, version: int, cluster: int) -> tuple[int, int]:
    """The incompatible features and the length of the header."""
    if version == 2:
        return 0, _V2_LENGTH
    features, _compatible, _autoclear, refcount_order, length = _V3.unpack_from(data, _V2_LENGTH)
    if features & ~_KNOWN_FEATURES:
        raise ImageError(f"the image needs features that are unknown ({features:#x})")
    if refcount_order > 6:
        raise ImageError(f"refcounts of 2^{refcount_order} bits are out of range")
    if not _V3_LENGTH <= length <= cluster or length % 8:
        raise ImageError(f"the header length {length} is out of range")
    return features, length


def _backing_name(data: bytes, at: int, length: int, header: int, cluster: int) -> bytes | None:
    if at == 0 or length == 0:
        return None
    if length > _MAX_BACKING_NAME or at < header or at + length > cluster:
        raise ImageError("the name of the backing file lies outside the header")
    if at + length > len(data):
        raise ImageError("the header ends before the name of the backing file")
    return data[at : at + length]


def _extensions(data: bytes, at: int, end: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for _ in range(_MAX_EXTENSIONS):
        if at + _EXTENSION.size > end:
            return found
        if at + _EXTENSION.size > len(data):
            raise ImageError("the header extensions are cut short")
        kind, length = _EXTENSION.unpack_from(data, at)
        at += _EXTENSION.size
        if kind == 0:
            return found
        if length > end - at or at + length > len(data):
            raise ImageError("a header extension lies outside the header")
        found[kind] = data[at : at + length]
        at += (length + 7) & ~7
    raise ImageError("the header has more extensions than any image needs")


def backing_path(image: str, name: bytes) -> str:
    """The absolute path that the backing name `name` in the header of `image` means.

    Raises: ImageError when it means no local file, or is no text.
    """
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise ImageError("the name of its backing file is not UTF-8") from error
    if not text.isprintable():
        raise ImageError("the name of its backing file holds control characters")
    # QEMU's rule (path_has_protocol): a colon before any slash ends the name of a protocol.
    protocol, colon, _rest = text.partition(":")
    if colon and "/" not in protocol:
        if protocol != "file":
            raise ImageError(f"its backing file {text!r} is not a local file")
        text = text.removeprefix("file:")
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(image)), text))
