"""The floor: QEMU spawned and greeted over QMP by as little asyncio as that takes.

A program of its own (`python floor.py`), so that it is as warm as a supervisor and as small as it
can be; it imports nothing of qlaunch. It reads one JSON line for each job and answers with one:

    {"start": [machine, ...]}  ->  {"seconds": 0.04}    all at once, until the last one is greeted
    {"stop": true}             ->  {"seconds": 0.01}    `quit`, until the last one has ended

A machine is `{"argv", "files", "qmp", "log"}`. `files` maps a number that stands on the command
line for a descriptor to `["open", path, flags]` or `["listen", path]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from typing import Any

STOP_TIMEOUT = 30.0

Running = tuple["subprocess.Popen[bytes]", asyncio.StreamWriter]


def main() -> None:
    asyncio.run(_serve())


async def _serve() -> None:
    running: list[Running] = []
    try:
        # Between two jobs there is nothing to do, so a blocking read is good enough.
        for line in sys.stdin:
            job = json.loads(line)
            begun = time.monotonic()
            if "start" in job:
                running += await asyncio.gather(*(_start(machine) for machine in job["start"]))
            else:
                _stop(running)
                running = []
            print(json.dumps({"seconds": time.monotonic() - begun}), flush=True)
    finally:
        for process, _ in running:
            process.kill()


async def _start(machine: dict[str, Any]) -> Running:
    sockets: list[socket.socket] = []
    numbers: dict[str, int] = {}
    for stands_for, (kind, path, *flags) in machine["files"].items():
        if kind == "listen":
            sockets.append(_listen(path))
            numbers[stands_for] = sockets[-1].fileno()
        else:
            numbers[stands_for] = os.open(path, flags[0] | os.O_CLOEXEC)
    argv = [
        re.sub(r"\b99\d{4}\b", lambda found: str(numbers[found[0]]), word)
        for word in machine["argv"]
    ]
    with open(machine["log"], "ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=tuple(numbers.values()), start_new_session=True,
        )  # fmt: skip
    for number in set(numbers.values()) - {each.fileno() for each in sockets}:
        os.close(number)
    for each in sockets:
        each.close()
    reader, writer = await asyncio.open_unix_connection(machine["qmp"])
    await reader.readline()
    writer.write(b'{"execute":"qmp_capabilities"}\n')
    if not (await reader.readline()).startswith(b'{"return"'):
        raise RuntimeError("this is no QEMU")
    return process, writer


def _listen(path: str) -> socket.socket:
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(path)
    listener.listen(16)
    return listener


def _stop(running: list[Running]) -> None:
    for _, writer in running:
        writer.write(b'{"execute":"quit"}\n')  # asyncio sends so little at once
    for process, writer in running:
        process.wait(STOP_TIMEOUT)
        writer.transport.abort()


if __name__ == "__main__":
    main()
