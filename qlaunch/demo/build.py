"""Build the demo guest's image from its source, with GNU binutils alone.

``python -m qlaunch.demo.build`` writes ``demo.img``; with ``--check`` it only compares.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qlaunch.demo import IMAGE

SOURCE = Path(__file__).with_name("demo.S")
COMMAND = "python -m qlaunch.demo.build"
TOOLS = ("as", "ld", "objcopy")

SECTOR = 512
IMAGE_SIZE = 512 * 1024
"""SeaBIOS 1.16 boots no virtio or SCSI disk below one cylinder of 16 x 63 sectors, 504 KiB."""

STATE_LBA = 64
"""The sector where the guest keeps its state, as in ``demo.S``."""

LOAD_ADDRESS = "0x7c00"
MEMORY_ADDRESS = "0x9000"


def assemble(source: Path = SOURCE) -> bytes:
    """Return the machine code of the guest, whole sectors of it.

    Raises:
        FileNotFoundError: binutils is not installed.
        subprocess.CalledProcessError: the source has an error; the tool has said which.
    """
    with tempfile.TemporaryDirectory(prefix="qlaunch-demo-") as directory:
        code, linked, flat = (f"{directory}/demo.{suffix}" for suffix in ("o", "elf", "bin"))
        layout = ("-Ttext", LOAD_ADDRESS, "-Tbss", MEMORY_ADDRESS, "-e", "_start")
        steps = (
            ("as", "--32", "--fatal-warnings", "-o", code, str(source)),
            ("ld", "-m", "elf_i386", *layout, "-o", linked, code),
            # Only .text: some distributions' assembler adds notes, far away in memory.
            ("objcopy", "-O", "binary", "-j", ".text", linked, flat),
        )
        for step in steps:
            subprocess.run(step, check=True)
        return Path(flat).read_bytes()


def build(source: Path = SOURCE) -> bytes:
    """Return the disk image: the code, then zeros.

    Raises:
        ValueError: the code reaches into its own memory or the state's sector.
    """
    code = assemble(source)
    room = min(STATE_LBA * SECTOR, int(MEMORY_ADDRESS, 0) - int(LOAD_ADDRESS, 0))
    if len(code) > room:
        raise ValueError(f"{source.name}: {len(code)} bytes of code, but room for {room}")
    return code.ljust(IMAGE_SIZE, b"\0")


def write_sparse(image: Path, built: bytes) -> None:
    """Write the image without storing the zeros at its end."""
    with image.open("wb") as file:
        file.write(built.rstrip(b"\0"))
        file.truncate(len(built))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the image, or compare it with ``--check``; return the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Build the demo guest's image.")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check: bool = parser.parse_args(arguments).check
    image = Path(IMAGE)
    try:
        built = build()
    except FileNotFoundError as error:
        print(f"{error.filename}: not found; install binutils", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 1
    if not check:
        write_sparse(image, built)
        return 0
    if image.exists() and image.read_bytes() == built:
        return 0
    print(f"{image.name} is not what {SOURCE.name} makes; run {COMMAND}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
