"""What qemu-img may touch: the images that it is told to work on, and nothing else."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator

from attrs import evolve

from qlaunch.facts.confinement import Confinement, beside, program
from qlaunch.host.image_facts import chain_facts


def rights(
    qemu_img: str,
    *,
    read: Iterable[str] = (),
    write: Iterable[str] = (),
    below: Iterable[str] = (),
    make_in: str | None = None,
) -> Confinement:
    """Rights to read and to write these images, to read what those of `below` stand on (as our own
    code reads it in their headers), and to make files in a folder."""
    folders = () if make_in is None else (make_in,)
    reading = [*read, *(path for top in below for path in chain_facts(top, want_write=False))]
    plain = program(read=(*beside(qemu_img), *reading), write=(*write, *folders))
    # What a disk of its own can do is asked of it, which is a right apart.
    return evolve(plain, devices=(*plain.devices, *_devices((*reading, *write))))


def _devices(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        with contextlib.suppress(OSError):
            if stat.S_ISBLK(os.stat(path).st_mode):
                yield path
