"""`qlaunch logs`."""

from __future__ import annotations

import os
import sys
import time

from qlaunch.cli import output, talk
from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

POLL = 0.2
LINES = 100
_BLOCK = 1 << 16


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what QEMU said and what the supervisor did with a machine, in order of time; also\n"
        "when it is not running any more."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch logs xp            the last lines\n"
        "  qlaunch logs xp -f         and what follows, until Ctrl-C\n"
        "  qlaunch logs xp -n 1000"
    )
    parser.add_argument("name", metavar="NAME", help="the machine")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what follows")
    parser.add_argument(
        "-n", "--lines", type=int, default=LINES, metavar="N", help=f"how many lines; {LINES}"
    )


def run(args: argparse.Namespace) -> int:
    paths.check_name(args.name)
    path = os.path.join(paths.machine_state(args.name), "log")
    if not os.path.exists(path) and not args.follow:
        missing = talk.not_running(args.name)
        if isinstance(missing, NotFoundError):
            raise missing
        raise QlaunchError(f"{args.name} has no log yet: it never started")
    file = _Follower(path)
    for line in file.last(max(0, args.lines)):
        _print(line, as_json=args.json)
    while args.follow:
        sys.stdout.flush()
        if not file.grown():
            time.sleep(POLL)
        for line in file.lines():
            _print(line, as_json=args.json)
    return 0


def _print(line: bytes, *, as_json: bool) -> None:
    text = line.decode(errors="replace").rstrip("\r\n")
    if as_json:
        output.print_json({"line": text})
    else:
        print(output.clean(text, keep="\t"))


class _Follower:
    """A file that grows, and may be renamed to make place for a new one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def last(self, count: int) -> list[bytes]:
        """The last `count` lines; from the file before this one, too, where it takes them."""
        found = self._read_all()
        if len(found) < count:
            try:
                with open(f"{self._path}.1", "rb") as older:
                    found = older.read().splitlines() + found
            except OSError:
                pass
        return found[len(found) - count :] if count < len(found) else found

    def _read_all(self) -> list[bytes]:
        return list(self.lines()) if self.grown() else []

    def grown(self) -> bool:
        """Whether there may be something new to read."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        facts = os.fstat(self._fd)
        at = os.lseek(self._fd, 0, os.SEEK_CUR)
        if facts.st_size < at:  # cut short in place
            os.lseek(self._fd, 0, os.SEEK_SET)
            return facts.st_size > 0
        return facts.st_size > at or self._renamed(facts)

    def lines(self) -> Iterator[bytes]:
        """The whole lines that are there by now; of a file that was renamed, all to its end."""
        if self._fd < 0:
            return
        renamed = self._renamed(os.fstat(self._fd))
        while chunk := os.read(self._fd, _BLOCK):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole
        if renamed:
            if self._rest:
                yield self._rest
            os.close(self._fd)
            self._fd, self._rest = -1, b""

    def _renamed(self, facts: os.stat_result) -> bool:
        try:
            now = os.stat(self._path)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) != (facts.st_dev, facts.st_ino)
