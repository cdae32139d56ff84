"""The guest's clipboard, reached as a viewer reaches it: by SPICE, or by VNC where QEMU itself
talks to the agent in the guest.

The agent forgets what was copied, and what can be pasted, when a client leaves. So one stays: a
process in the background, which the next command asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket

from qlaunch.cli import viewers
from qlaunch.cli.keeper import Keeper
from qlaunch.errors import PhaseError, SessionLostError, from_dict
from qlaunch.spice.viewer import Viewer
from qlaunch.spice.vnc import VncClipboard
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANSWER_TIME = 5.0


def ask(name: str, status: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """What the process in the background answers; it is begun if there is none.

    Raises: PhaseError, BusyError, NotFoundError, TimedOutError, SessionLostError.
    """
    path = os.path.join(paths.machine_runtime(name), "clipboard.sock")
    _check_agent(name, status)
    with _connect(path) or _begin(path, name, status) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise SessionLostError(
            f"{name}: the clipboard went away: a viewer came, or the machine ended"
        )
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer


def _connect(path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def _begin(path: str, name: str, status: dict[str, Any]) -> socket.socket:
    """Begin the process in the background; a connection to it."""
    link = _open(name, status)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of one that has ended
        listener.bind(path)
        listener.listen(8)
        ours = socket.socket(socket.AF_UNIX)
        ours.connect(path)
        if os.fork() == 0:
            _keep(Keeper(name, link, listener), path)
    finally:
        listener.close()
        link.forget()
    return ours


def _keep(keeper: Keeper, path: str) -> None:
    """Be the process in the background, to its end."""
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.chdir("/")
        keeper.run()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os._exit(0)


def _check_agent(name: str, status: dict[str, Any]) -> None:
    """Raises: PhaseError when there is no agent."""
    if status.get("state") in ("stopped", "saved"):
        raise PhaseError(f"{name} is not running", hint=f"`qlaunch up {name}` starts it")
    agents: list[dict[str, Any]] = status.get("agents") or []
    agent = next((each for each in agents if each["agent"] == "spice"), {})
    if not agent.get("connected"):
        raise PhaseError(
            f"{name}: the SPICE agent, which has the guest's clipboard, is not connected",
            hint=f"it lacks {agent.get('missing') or 'a channel for it'}",
        )


def _open(name: str, status: dict[str, Any]) -> Viewer | VncClipboard:
    """Raises: PhaseError when there is no way; BusyError while a viewer is there."""
    if viewers.path_of(status, "spice") is not None:
        viewers.refuse_company(name, "it shares the clipboard of its desk with the guest")
        viewer = viewers.spice(name, status)
        try:
            viewer.meet_agent()
        except BaseException:
            viewer.close()
            raise
        return viewer
    path = viewers.path_of(status, "vnc")
    if path is None:
        raise PhaseError(f"{name} shows no screen to a viewer, and so no clipboard")
    return VncClipboard(path)
