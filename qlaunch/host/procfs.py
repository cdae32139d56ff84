"""What /proc tells about other processes: their name, their start, who holds a file or a socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

from attrs import frozen

_COMM_LENGTH = 15


@frozen
class Holder:
    """A process that holds something, as a message names it. `machine` is a QEMU's guest name."""

    name: str
    pid: int
    machine: str | None = None

    def __str__(self) -> str:
        machine = f", machine {self.machine}" if self.machine else ""
        return f"{self.name}, pid {self.pid}{machine}"

    @property
    def in_brackets(self) -> str:
        """`Xvnc (pid 812)`, for the middle of a sentence."""
        machine = f", machine {self.machine}" if self.machine else ""
        return f"{self.name} (pid {self.pid}{machine})"


@cache
def boot_id() -> str:
    """The identity of this boot of the computer.

    Raises: OSError when /proc is not mounted.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int:
    """When `pid` started, in clock ticks (usually 10 ms) since the boot.

    Raises: ProcessLookupError when there is no such process.
    """
    return int(_fields(pid)[19])


def parent(pid: int) -> int:
    """Whose child `pid` is; 0 when there is no such process."""
    try:
        return int(_fields(pid)[1])
    except ProcessLookupError:
        return 0


def _fields(pid: int) -> list[bytes]:
    """What /proc/PID/stat says from its third field on: proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    # The name in brackets may itself hold ") ": what follows its last one is field 3.
    return stat[stat.rindex(b")") + 2 :].split()


def describe(pid: int) -> Holder:
    """The process `pid` as a message names it; a process that is gone keeps its number."""
    comm = _read(f"/proc/{pid}/comm").decode(errors="replace").strip()
    argv = _read(f"/proc/{pid}/cmdline").split(b"\0")
    program = os.path.basename(argv[0]).decode(errors="replace")
    # The kernel cuts names at 15 bytes; a script's own name is in comm, its interpreter in argv[0].
    name = program if program.startswith(comm[:_COMM_LENGTH]) else comm
    return Holder(printable(name) or "a process", pid, machine_name(argv))


def machine_name(argv: list[bytes]) -> str | None:
    """The guest's name on a QEMU command line (`-name guest=xp,debug-threads=on`), None if none."""
    for option, value in pairwise(argv):
        if option in (b"-name", b"--name"):
            text = value.decode(errors="replace").replace(",,", "\0")
            words = text.split(",")
            named = [word.removeprefix("guest=") for word in words if word.startswith("guest=")]
            if "=" not in words[0]:
                named.append(words[0])
            return printable(named[0].replace("\0", ",")) if named else None
    return None


def find_machine(name: str, output: str) -> int | None:
    """The QEMU of this user that says `-name guest=NAME` and writes to the file `output`, by pid.

    The name alone is no proof: another QEMU of the user, of another state folder, may have it too.
    """
    try:
        wanted = [os.stat(path) for path in (output, f"{output}.1") if os.path.exists(path)]
    except OSError:
        return None
    files = {(facts.st_dev, facts.st_ino) for facts in wanted}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and describe(int(entry)).machine == name:
            try:
                own = os.stat(f"/proc/{entry}").st_uid == os.geteuid()
                written = os.stat(f"/proc/{entry}/fd/1")
            except OSError:
                continue
            if own and (written.st_dev, written.st_ino) in files:
                return int(entry)
    return None


def holders(is_it: Callable[[int, str], bool]) -> Iterator[int]:
    """The pids that have a descriptor for which `is_it(pid, descriptor)` is true.

    Processes of other users are seen by root only; what may not be looked at is passed over.
    """
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        pid = int(name)
        for descriptor in descriptors(pid) or ():
            try:
                found = is_it(pid, descriptor)
            except OSError:  # closed, or gone, since it was listed
                continue
            if found:
                yield pid
                break


def descriptors(pid: int) -> list[str] | None:
    """The open descriptors of `pid`; none when it is gone, None when they may not be seen."""
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None
    except OSError:
        return []


def socket_holder(inode: int) -> Holder | None:
    """Who has the socket `inode` open, None when that cannot be seen."""
    wanted = f"socket:[{inode}]"
    found = holders(lambda pid, fd: os.readlink(f"/proc/{pid}/fd/{fd}") == wanted)
    pid = next(found, None)
    return None if pid is None else describe(pid)


def printable(text: str) -> str:
    """`text` without anything that a terminal might obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
