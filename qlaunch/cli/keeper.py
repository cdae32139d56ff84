"""The process that stays connected to a guest's clipboard, and answers the commands about it."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time

from qlaunch.errors import NotFoundError, QlaunchError, SessionLostError, TimedOutError
from qlaunch.spice.viewer import Viewer
from qlaunch.spice.vnc import VncClipboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qlaunch.spice.viewer import Happening

# For the guest's programs, which hand out what they have copied.
ANSWER_TIME = 5.0
# A command has written its line before it is connected, or hardly later.
LINE_TIME = 5.0
# Nobody has asked for so long: the guest's clipboard is its own again.
LONGEST_REST = 3600.0
_LARGEST = 64 << 20


class Keeper:
    """One connection to the guest, and whoever asks."""

    def __init__(self, name: str, link: Viewer | VncClipboard, listener: socket.socket) -> None:
        self._name = name
        self._link = link
        self._listener = listener
        self._offered: str | None = None
        self._copied = not isinstance(link, VncClipboard)
        self._once: socket.socket | None = None
        self._reader: socket.socket | None = None
        self._until = 0.0

    def run(self) -> None:
        """Answer until the connection to the guest is lost, or nobody has asked for long."""
        rest = time.monotonic() + LONGEST_REST
        with contextlib.suppress(SessionLostError):
            while time.monotonic() < rest:
                waited = self._reader is not None
                end = self._until if waited else rest
                left = max(end - time.monotonic(), 0)
                ready, _, _ = select.select(
                    [self._listener, self._link, *self._held()], [], [], left
                )
                if self._link in ready:
                    for happening in self._link.pump():
                        self._heard(happening)
                if self._listener in ready:
                    rest = time.monotonic() + LONGEST_REST
                    self._serve(self._listener.accept()[0])
                if self._once is not None and self._once in ready:
                    self._take_back()
                if self._reader is not None and time.monotonic() >= self._until:
                    self._answer_reader(_nothing(waited=not self._copied))

    def _held(self) -> list[socket.socket]:
        return [self._once] if self._once is not None else []

    # ---- the commands ---------------------------------------------------------------------------

    def _serve(self, client: socket.socket) -> None:
        """Take one request; what comes later answers it, or it is answered now."""
        client.settimeout(LINE_TIME)
        try:
            request = json.loads(_line(client))
        except (OSError, ValueError):
            client.close()
            return
        if "set" in request:
            self._offer(client, str(request["set"]), once=bool(request.get("once")))
            return
        if self._offered is not None:
            _answer(client, {"text": self._offered})
            return
        if self._reader is not None:
            _answer(client, {"error": TimedOutError("somebody else asks just now").to_dict()})
            return
        self._reader = client
        wait = request.get("wait")
        self._until = time.monotonic() + (ANSWER_TIME if wait is None else float(wait))
        if self._copied:
            self._link.request()

    def _offer(self, client: socket.socket, text: str, *, once: bool) -> None:
        if self._once is not None:
            self._answer_once(pasted=False)
        self._offered = text
        self._link.offer()
        if once:
            client.settimeout(None)
            self._once = client
        else:
            _answer(client, {"pasted": False})

    def _take_back(self) -> None:
        """Who gave a text once has gone away: it cannot be pasted any more."""
        if self._once is not None:
            self._once.close()
        self._once = self._offered = None
        self._link.release()

    # ---- the guest ------------------------------------------------------------------------------

    def _heard(self, happening: Happening) -> None:
        if happening.kind == "wants":
            self._link.give(self._offered or "")
            if self._once is not None:
                self._answer_once(pasted=True)
                self._offered = None
                self._link.release()
        elif happening.kind == "copied":
            self._offered, self._copied = None, True
            if self._once is not None:
                self._answer_once(pasted=False)
            if self._reader is not None:
                self._link.request()
        elif happening.kind == "text":
            self._answer_reader({"text": happening.text})
        elif happening.kind == "nothing":
            self._answer_reader(_nothing(waited=False))

    def _answer_once(self, *, pasted: bool) -> None:
        if self._once is not None:
            _answer(self._once, {"pasted": pasted})
            self._once = None

    def _answer_reader(self, answer: dict[str, Any]) -> None:
        if self._reader is not None:
            _answer(self._reader, answer)
            self._reader = None


def _nothing(*, waited: bool) -> dict[str, Any]:
    error: QlaunchError = NotFoundError("the guest has copied no text, as far as its agent tells")
    if waited:
        hint = "copy it while this waits (--wait): by VNC nobody can tell what was copied before"
        error = NotFoundError("the guest has copied no text meanwhile", hint=hint)
    return {"error": error.to_dict()}


def _line(client: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        chunk = client.recv(1 << 16)
        if not chunk or len(data) > _LARGEST:
            raise ValueError("no whole line")
        data += chunk
    return data


def _answer(client: socket.socket, answer: dict[str, Any]) -> None:
    with client, contextlib.suppress(OSError):
        client.settimeout(LINE_TIME)
        client.sendall(json.dumps(answer).encode() + b"\n")
