"""Compare every XML file in folders: `python -m tests.compare [--qemu PROGRAM] FOLDER...`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from qlaunch.errors import ProfileError
from tests.compare.libvirt import Libvirt, RefusedByLibvirt
from tests.compare.twins import compare


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compare", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of XML, or files")
    parser.add_argument("--qemu", default=shutil.which("qemu-system-x86_64"), help="which QEMU")
    parser.add_argument("--all", action="store_true", help="the differences with a reason, too")
    args = parser.parse_args()
    files = [
        file
        for folder in args.folders
        for file in (sorted(folder.glob("**/*.xml")) if folder.is_dir() else [folder])
    ]
    counts = {"same": 0, "different": 0, "failed": 0}
    with tempfile.TemporaryDirectory(prefix="ql-twins-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "libvirt").mkdir()
        libvirt = Libvirt(folder / "libvirt")
        for number, file in enumerate(files):
            counts[_one(file, args.qemu, libvirt, folder / str(number), every=args.all)] += 1
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["different"] or counts["failed"] else 0


def _one(file: Path, emulator: str, libvirt: Libvirt, folder: Path, *, every: bool) -> str:
    try:
        found = compare(file, emulator, libvirt, folder)
    except (RefusedByLibvirt, ProfileError, RuntimeError, OSError) as error:
        print(f"{file}: {error}")
        return "failed"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for each in found.differences if every else found.bad:
        side = f"libvirt has {each.libvirt}" if each.libvirt else ""
        other = f"qlaunch has {each.qlaunch}" if each.qlaunch else ""
        words = "; ".join(word for word in (side, other, each.reason) if word)
        print(f"{file}: {each.what}: {words}")
    return "different" if found.bad else "same"


if __name__ == "__main__":
    sys.exit(main())
