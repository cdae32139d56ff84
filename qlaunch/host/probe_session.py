"""The short conversation with a QEMU that only tells what it can do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from typing import Any

from qlaunch.aio import finish
from qlaunch.errors import HostError, TimedOutError
from qlaunch.facts import MachineType, QemuFacts
from qlaunch.host.process import Process
from qlaunch.host.procfs import printable
from qlaunch.host.tool import kill, run_tool

PROBE_TIMEOUT = 20.0
_LONGEST_LINE = 1 << 24

_DEVICE = re.compile(r'^name "([^"]+)"(?:.*?, alias "([^"]+)")?', re.MULTILINE)
_AUDIO = re.compile(r"^[a-z0-9-]+$", re.MULTILINE)


async def ask_qemu(path: str) -> QemuFacts:
    """Run the QEMU at `path` without a machine and ask it what it can do.

    Raises: HostError with its last words when it is not a QEMU or does not start.
    """
    audio, facts = await _both(path)
    return _facts(path, facts, audio)


async def _both(path: str) -> tuple[frozenset[str], dict[str, Any]]:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            answers = await _converse(path)
            # QMP shows audio backends from 8.0 on only, and even then not the missing modules.
            audio = await run_tool((path, "-audiodev", "help"), timeout=PROBE_TIMEOUT)
    except (TimeoutError, TimedOutError) as error:
        raise HostError(
            f"{path} is not a QEMU: it did not answer in {PROBE_TIMEOUT:g} s"
        ) from error
    return frozenset(_AUDIO.findall(audio.stdout)), answers


async def _converse(path: str) -> dict[str, Any]:
    ours, theirs = socket.socketpair()
    words = os.memfd_create("qemu-words", os.MFD_CLOEXEC)
    try:
        with ours:
            with theirs:
                argv = _argv(path, theirs.fileno())
                process = Process.spawn(argv, stderr_fd=words, pass_fds=(theirs.fileno(),))
            try:
                return await _questions(ours)
            except (EOFError, ConnectionError, ValueError, KeyError, TypeError) as error:
                raise await _not_a_qemu(path, process, words) from error
            finally:
                await finish(_end(process))
    finally:
        os.close(words)


def _argv(path: str, fd: int) -> tuple[str, ...]:
    nothing = ("-machine", "none,accel=tcg:kvm", "-S", "-nodefaults", "-no-user-config")
    monitor = ("-chardev", f"socket,id=probe,fd={fd}", "-mon", "chardev=probe,mode=control")
    return (path, *nothing, "-display", "none", *monitor)


async def _questions(connection: socket.socket) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(sock=connection, limit=_LONGEST_LINE)
    try:
        greeting = json.loads(await _line(reader))
        answers: dict[str, Any] = {"version": greeting["QMP"]["version"]}
        for name, command, arguments in (
            ("", "qmp_capabilities", {}),
            ("machines", "query-machines", {}),
            ("cpus", "query-cpu-definitions", {}),
            ("types", "qom-list-types", {"abstract": False}),
            ("devices", "qom-list-types", {"abstract": False, "implements": "device"}),
            ("objects", "qom-list-types", {"abstract": False, "implements": "user-creatable"}),
            # QMP does not say which devices `-device` takes; this help does, aliases included.
            ("help", "human-monitor-command", {"command-line": "device_add help"}),
            ("options", "query-command-line-options", {}),
            ("commands", "query-commands", {}),
        ):
            writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            answers[name] = await _answer(reader)
        return answers
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> Any:
    while True:
        message = json.loads(await _line(reader))
        if "return" in message:
            return message["return"]
        if "error" in message:  # this architecture or version does not know the command
            return []


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line:
        raise EOFError
    return line


async def _end(process: Process) -> None:
    if not process.ended:
        await kill(process)
    process.close()


async def _not_a_qemu(path: str, process: Process, words: int) -> HostError:
    status = await process.wait()
    said = os.pread(words, 1 << 16, 0).decode(errors="replace").strip().splitlines()
    last = printable(said[-1]) if said else f"it ended with status {status} and said nothing"
    return HostError(f"{path} does not work as a QEMU: {last}")


def _facts(path: str, answers: dict[str, Any], audio: frozenset[str]) -> QemuFacts:
    number = answers["version"]["qemu"]
    types = [str(entry["name"]) for entry in answers["types"]]
    usable = {name for pair in _DEVICE.findall(str(answers["help"])) for name in pair if name}
    usable = usable or {str(entry["name"]) for entry in answers["devices"]}
    usable.update(str(entry["name"]) for entry in answers["objects"])
    usable.update(name for name in types if name.startswith("chardev-"))
    usable.update(f"audio-{name}" for name in audio)
    return QemuFacts(
        path=path,
        version=(int(number["major"]), int(number["minor"]), int(number["micro"])),
        package=str(answers["version"].get("package", "")),
        machines=tuple(_machine(entry) for entry in answers["machines"]),
        cpu_models=frozenset(str(entry["name"]) for entry in answers["cpus"]),
        devices=frozenset(usable),
        options=frozenset(str(entry["option"]) for entry in answers["options"]),
        commands=frozenset(str(entry["name"]) for entry in answers["commands"]),
    )


def _machine(entry: dict[str, Any]) -> MachineType:
    return MachineType(
        name=str(entry["name"]),
        alias=entry.get("alias"),
        default=bool(entry.get("is-default", False)),
        deprecated=bool(entry.get("deprecated", False)),
        cpu_max=int(entry.get("cpu-max", 1)),
    )
