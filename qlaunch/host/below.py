"""Which files an image stands on, by its header alone: asked of every image that is around before
one is removed. Whatever is no image, or cannot be read, stands on nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping

from qlaunch.host.qcow2 import ImageError, backing_path, read_header


def stands_on(image: str) -> list[str]:
    """The files that the header of `image` names; none when it is no image or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(image).st_mode):
            return []
        handle = os.open(image, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return []
    try:
        header = read_header(handle, os.fstat(handle).st_size)
    except (OSError, ImageError):
        return []
    finally:
        os.close(handle)
    found = []
    for name in (header.backing, header.data_file):
        # QEMU starts at the folder of the name it was given, which may be a link's or its target's.
        for start in dict.fromkeys((image, os.path.realpath(image))) if name else ():
            found += _meant(start, name or b"")
    return found


def _meant(image: str, name: bytes) -> list[str]:
    try:
        return [backing_path(image, name)]
    except ImageError:
        if not name.startswith(b"json:"):
            return []
    # QEMU itself writes such names, after a block job. Each text in it may be a file.
    try:
        plain = json.loads(name.removeprefix(b"json:"))
    except (ValueError, RecursionError):
        return []
    folder = os.path.dirname(os.path.abspath(image))
    found = [os.path.normpath(os.path.join(folder, text)) for text in _texts(plain)]
    return sorted(found, key=os.path.isfile, reverse=True)


def _texts(plain: object) -> Iterator[str]:
    if isinstance(plain, str):
        if plain.isprintable():
            yield plain.removeprefix("file:")
    elif isinstance(plain, Mapping):
        for each in plain.values():
            yield from _texts(each)
    elif isinstance(plain, list):
        for each in plain:
            yield from _texts(each)
