"""A SPICE client for a test: SpiceClientGLib in a process of its own (`client_main`).

with SpiceClient(uri="spice+unix:///...") as client:
    client.expect(event="channel", channel="main", what="opened")
"""

from __future__ import annotations

import configparser
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

# Debian's bindings belong to Debian's Python.
PYTHON = "/usr/bin/python3"
MAIN = Path(__file__).with_name("client_main.py")
PATIENCE = 20.0

Line = dict[str, Any]


class SpiceClient:
    """One client, not connected yet. `expect` reads what it tells, in order."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [PYTHON, str(MAIN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._ca = Path(os.environ["HOME"], f"ca-{self._process.pid}.pem")
        self._heard = b""
        self._lines: list[Line] = []
        self.expect(event="ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        # What it still tells has to be taken, or it never comes to hear that it is to end.
        deadline = time.monotonic() + PATIENCE
        fd = self._process.stdout.fileno()
        while select.select([fd], [], [], max(deadline - time.monotonic(), 0))[0]:
            if not os.read(fd, 1 << 20):
                break
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()

    def ask(self, verb: str, **words: Any) -> Line:
        """Have it do something, and wait until it has."""
        self.tell(verb, **words)
        done = self.expect(did=verb)
        assert "failed" not in done, done
        return done

    def tell(self, verb: str, **words: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": verb, **words}).encode() + b"\n")
        self._process.stdin.flush()

    def connect(self, uri: str, **properties: Any) -> None:
        """Begin to connect; sound and USB only when asked for."""
        known = {"enable-audio": False, "enable-usbredir": False, "enable-smartcard": False}
        named = {name.replace("_", "-"): value for name, value in properties.items()}
        if "ca" in named:
            # The property `ca` is a byte array, which Python's bindings (3.42) cannot set.
            self._ca.write_text(str(named.pop("ca")), encoding="ascii")
            named["ca-file"] = str(self._ca)
        self.ask("connect", properties={"uri": uri, **known, **named})

    def open(self, uri: str, **properties: Any) -> None:
        """Connect, and wait until keys can be pressed and a picture is there."""
        self.connect(uri, **properties)
        wanted = {"main", "display", "inputs"}
        while wanted:
            event = self.expect(event="channel")
            assert event["what"] == "opened", event
            wanted.discard(event["channel"])

    def failure(self, uri: str, **properties: Any) -> Line:
        """Connect in vain; the event of the main channel that says why."""
        self.connect(uri, **properties)
        event = self.expect(event="channel", channel="main")
        assert event["what"] != "opened", event
        return event

    def expect(self, *, within: float = PATIENCE, **words: Any) -> Line:
        """The next line in which all these words stand; earlier ones of other kinds are kept."""
        deadline = time.monotonic() + within
        while True:
            for at, line in enumerate(self._lines):
                if all(line.get(key) == value for key, value in words.items()):
                    return self._lines.pop(at)
            left = deadline - time.monotonic()
            assert left > 0, f"waited {within:g} s for {words}, but: {self._lines[-20:]}"
            self._hear(left)

    def _hear(self, seconds: float) -> None:
        assert self._process.stdout
        fd = self._process.stdout.fileno()
        if not select.select([fd], [], [], seconds)[0]:
            return
        data = os.read(fd, 1 << 20)
        assert data, f"the client ended: {self._process.wait(PATIENCE)}; {self._lines[-20:]}"
        *lines, self._heard = (self._heard + data).split(b"\n")
        self._lines += map(json.loads, lines)


def of_vv(text: str) -> Mapping[str, str]:
    """What a file for remote-viewer says, as properties of a SPICE session."""
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    found = dict(parser["virt-viewer"])
    if "ca" in found:
        found["ca"] = found["ca"].replace("\\n", "\n")
    return found
