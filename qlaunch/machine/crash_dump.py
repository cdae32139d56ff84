"""The memory of a guest that panicked, for a debugger such as `crash`."""

from __future__ import annotations

import os
import time

from qlaunch.errors import HostError, QlaunchError
from qlaunch.host.access import free_space
from qlaunch.machine.machine import Machine, ensure_folder
from qlaunch.machine.memory import new_file
from qlaunch.units import short_size

# For a large memory on a slow disk.
DUMP_TIMEOUT = 1800.0
FD_NAME = "crash-dump"
_SQUEEZED = "kdump-zlib"


async def dump(machine: Machine) -> str:
    """Write the guest's memory into a new file of the machine's folder, whole or not at all.

    Returns: its path. Raises: HostError when there is no space, CommandError, TimedOutError.
    """
    folder = machine.plan.places.data
    ensure_folder(folder)
    size, space = machine.plan.board.memory, free_space(folder)
    if space is not None and space < size:
        raise HostError(f"{folder} has {short_size(space)} free, not the {short_size(size)} for it")
    session = machine.talk()
    answer = await session.execute("query-dump-guest-memory-capability")
    formats = answer["formats"]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = os.path.join(folder, f"crash-{stamp}.dump")
    arguments = {"paging": False, "protocol": f"fd:{FD_NAME}"}
    if _SQUEEZED in formats:
        arguments["format"] = _SQUEEZED
    with new_file(path) as fd:
        await session.send_fd(fd, FD_NAME)
        await session.execute("dump-guest-memory", arguments, timeout=DUMP_TIMEOUT)
    return path


async def dump_if_possible(machine: Machine) -> str | None:
    """The same; what keeps it from being written goes to the log."""
    try:
        path = await dump(machine)
    except QlaunchError as error:
        machine.log.say(f"the guest's memory was not dumped: {error.message}")
        return None
    machine.log.say(f"the guest's memory is in {path}")
    return path
