"""Chromium without a window, driven over a pipe by its DevTools protocol.

with Browser(folder) as browser:
    browser.go("http://127.0.0.1:8116/")
    browser.until("document.querySelector('.card')")
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.prerequisites import ORIGINAL_ENVIRON, find_program

# Seconds. A browser on a busy computer takes its time.
LIMIT = 60.0
_POLL = 0.05
# The console's canvas has many colours: the guest's screen is there.
PAINTED = """(() => {
    const canvas = document.querySelector('#screen canvas');
    if (!canvas || !canvas.width) return false;
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const seen = new Set();
    for (let at = 0; at < data.length; at += 404) seen.add(`${data[at]},${data[at + 1]}`);
    return seen.size > 8;
})()"""


class Browser:
    """One page of a browser of our own, with its own empty profile in `folder`."""

    def __init__(self, folder: Path, *, width: int = 1100, height: int = 800) -> None:
        program = find_program("chromium") or find_program("chromium-browser")
        assert program
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()
        options = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--metrics-recording-only", "--no-proxy-server",
            "--ignore-certificate-errors", "--remote-debugging-pipe", f"--user-data-dir={folder}",
            f"--window-size={width},{height}", "about:blank",
        )  # fmt: skip
        # It talks on descriptors 3 and 4, which have to be these two by then.
        script = f'exec 3<&{from_us} 4>&{to_us}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, program, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(from_us, to_us),
            start_new_session=True,
            env={**ORIGINAL_ENVIRON, "HOME": str(folder), "QLAUNCH_TEST_BROWSER": "1"},
        )
        os.close(from_us)
        os.close(to_us)
        self._out, self._in = to_browser, from_browser
        self._heard = b""
        self._number = 0
        self._session = ""
        self.console: list[str] = []

    def __enter__(self) -> Self:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        # Else keys may go nowhere: no window is the one in front.
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None and self.console:
            error.add_note("the browser's console:\n" + "\n".join(self.console))
        os.close(self._out)
        os.close(self._in)
        # Its own group: all processes of this browser and no other.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(LIMIT)

    def go(self, url: str) -> None:
        """Open `url`."""
        self._call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression: str, limit: float = LIMIT) -> None:
        """Wait until the expression is true; the page may change meanwhile."""
        deadline = time.monotonic() + limit
        while True:
            try:
                found = self.ask(f"!!({expression})")
            except AssertionError:  # the page was just being replaced
                found = False
            if found:
                return
            assert time.monotonic() < deadline, f"not within {limit:g} s: {expression}"
            select.select([], [], [], _POLL)

    def click(self, text: str, within: str = "body") -> None:
        """Press the button with this text, as soon as there is one that can be pressed."""
        button = (
            f"[...document.querySelectorAll({json.dumps(within + ' button')})]"
            f".find(each => each.textContent.trim() === {json.dumps(text)} && !each.disabled)"
        )
        self.until(f"{button} && ({button}.click(), true)")

    def key(self, key: str, code: str, number: int) -> None:
        """Press and release a key, as a keyboard does."""
        for kind in ("keyDown", "keyUp"):
            self._call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=code,
                windowsVirtualKeyCode=number,
            )  # fmt: skip

    def size(self, width: int, height: int) -> None:
        """Make the page as large as a phone, or larger."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def screenshot(self, path: Path) -> bytes:
        """A PNG of what a person would see, also kept at `path`."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(data)
        return data

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + LIMIT
        while True:
            said = self._hear(deadline)
            if said.get("id") == self._number:
                assert "error" not in said, said["error"]
                return said["result"]
            self._note(said)

    def _hear(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._heard:
            left = deadline - time.monotonic()
            ready = select.select([self._in], [], [], max(left, 0.0))[0]
            assert ready, "the browser is silent"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._heard += data
        line, self._heard = self._heard.split(b"\0", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    def _note(self, said: dict[str, Any]) -> None:
        params = said.get("params", {})
        if said.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"]))
        elif said.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(f"{params['entry'].get('text')} {params['entry'].get('url', '')}")
