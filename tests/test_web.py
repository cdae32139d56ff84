"""`qlaunch web` as a browser, and as somebody who is no browser of ours, has it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets import Origin, Subprotocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.definitions import PROGRAM
from tests.rig import Rig, until, write_profile
from tests.web.browser import PAINTED, Browser

pytestmark = [pytest.mark.qemu, pytest.mark.web, pytest.mark.timeout(180)]

LIMIT = 30.0
PASSWORD = "correct horse battery"


class Web:
    """One `qlaunch web` and what it printed."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "web", "--json", "--listen", "127.0.0.1:0", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        said = self.process.stdout.readline()
        answer = json.loads(said)
        if "error" in answer:
            self.process.communicate(timeout=LIMIT)
            raise AssertionError(answer["error"]["message"])
        self.link = str(answer["url"])
        parts = urlsplit(self.link)
        self.host, self.secure = parts.netloc, parts.scheme == "https"
        self.url = f"{parts.scheme}://{parts.netloc}/"

    def end(self, number: int = signal.SIGINT) -> str:
        """End it as Ctrl-C does; what it said on its standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LIMIT)
        return said

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """The answer to one GET, with `headers` and the right Host unless they say another."""
        if self.secure:
            trusting = ssl._create_unverified_context()
            line: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.host, timeout=LIMIT, context=trusting
            )
        else:
            line = http.client.HTTPConnection(self.host, timeout=LIMIT)
        line.request("GET", path, headers=headers)
        answer = line.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        line.close()
        return answer

    def cookie(self) -> str:
        """A session, as the printed link gives it."""
        answer = self.get(self.link.removeprefix(self.url[:-1]))
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        return answer.headers["Set-Cookie"].partition(";")[0]

    def socket(self, path: str, cookie: str | None = None, **headers: str) -> ClientConnection:
        """A WebSocket as our own page opens it."""
        said = {"Cookie": cookie} if cookie else {}
        origin = headers.pop("origin", self.url[:-1])
        return connect(
            f"ws://{self.host}{path}",
            origin=Origin(origin),
            additional_headers={**said, **headers},
            subprotocols=[Subprotocol("binary")] if path.startswith("/screen/") else None,
            open_timeout=LIMIT,
        )


@contextlib.contextmanager
def web(*words: str) -> Iterator[Web]:
    server = Web(*words)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()
        assert server.process.returncode == 0


def ask(live: ClientConnection, verb: str, name: str, **args: Any) -> Any:
    """What the page's line answers."""
    live.send(json.dumps({"id": 1, "verb": verb, "name": name, "args": args}))
    while True:
        said = json.loads(live.recv(LIMIT))
        if said.get("id") == 1 and "progress" not in said:
            return said


# ---- who is let in ------------------------------------------------------------------------------


def test_only_who_has_the_link_gets_the_page(rig: Rig) -> None:
    with web() as server:
        for path in ("/page.js", "/novnc/core/rfb.js", "/shot/demo.png", "/index.html"):
            assert server.get(path).status == 401, path
        form = server.get("/")
        assert (form.status, b"Log in" in form.body) == (200, True)  # type: ignore[attr-defined]
        assert server.get("/?token=guess").headers["Set-Cookie"] is None
        cookie = server.cookie()
        page = server.get("/", Cookie=cookie)
        assert b'id="machines"' in page.body  # type: ignore[attr-defined]
        assert server.get("/novnc/core/rfb.js", Cookie=cookie).status == 200
        assert server.get("/../guard.py", Cookie=cookie).status == 404
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        # A name that leads here, but is not ours: a page elsewhere that wants to use this browser.
        assert server.get("/", Cookie=cookie, Host="evil.example").status == 403


def test_a_page_from_elsewhere_opens_no_connection(rig: Rig) -> None:
    with web() as server:
        cookie = server.cookie()
        for path in ("/live", "/screen/demo", "/login"):
            with pytest.raises(InvalidStatus) as caught:
                server.socket(path, cookie, origin="http://evil.example")
            assert caught.value.response.status_code == 403
        for path in ("/live", "/screen/demo"):
            with pytest.raises(InvalidStatus) as caught:
                server.socket(path)
            assert caught.value.response.status_code == 401
        with server.socket("/live", cookie) as live:
            assert json.loads(live.recv(LIMIT))["machines"] == []


def test_a_password_is_asked_for_and_a_link_holds_none(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    file.chmod(0o600)
    with web("--password-file", str(file)) as server:
        assert "token" not in server.link
        with server.socket("/login") as login:
            login.send("wrong")
            assert json.loads(login.recv(LIMIT)) == {"ticket": None}
        with server.socket("/login") as login:
            login.send(PASSWORD)
            ticket = json.loads(login.recv(LIMIT))["ticket"]
        assert server.get(f"/?ticket={ticket}").headers["Set-Cookie"]
        assert server.get(f"/?ticket={ticket}").headers["Set-Cookie"] is None
        assert "does not know the password" in server.end()


@pytest.mark.parametrize(
    "mode, text, told",
    [
        (0o644, PASSWORD, "others may read"),
        (0o600, "short", "shorter than"),
        (0o600, "\udcff" * 20, "cannot be read"),
    ],
)
def test_a_password_file_that_will_not_do(
    rig: Rig, tmp_path: Path, mode: int, text: str, told: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(text.encode(errors="surrogateescape"))
    file.chmod(mode)
    with pytest.raises(AssertionError, match=told):
        Web("--password-file", str(file))


def test_a_taken_port_is_told_with_its_holder(rig: Rig) -> None:
    with web() as server:
        port = server.host.rpartition(":")[2]
        with pytest.raises(AssertionError, match=rf"{port} .*pid {server.process.pid}"):
            Web("--listen", f"127.0.0.1:{port}")


def test_tls_by_a_certificate_of_ours(rig: Rig) -> None:
    with web("--tls") as server:
        assert server.url.startswith("https://")
        cookie = server.cookie()
        assert server.get("/", Cookie=cookie).status == 200


# ---- what it does -------------------------------------------------------------------------------


def test_what_is_asked_for_without_sense_is_an_error_and_not_the_end(rig: Rig) -> None:
    with web() as server, server.socket("/live", server.cookie()) as live:
        for text in ("", "{", "[]", "null", '{"id": 1}', '{"id":1,"verb":2,"name":3}', "[" * 90000):
            live.send(text)
            while "error" not in (said := json.loads(live.recv(LIMIT))):
                pass
            assert "makes sense" in said["error"]["message"], text[:20]
        assert ask(live, "supervisor", "demo")["error"]["kind"] == "usage"
        assert ask(live, "kill", "../demo")["error"]["message"]
        assert ask(live, "kill", "demo")["error"]["message"]
        assert ask(live, "media", "demo", file="relative.iso")["error"]["kind"] == "usage"


def test_a_machine_is_started_shown_and_stopped(rig: Rig) -> None:
    write_profile("demo")
    with web() as server, server.socket("/live", cookie := server.cookie()) as live:
        assert ask(live, "up", "demo")["result"]["state"] == "running"
        rig.ready()
        assert server.get("/shot/demo.png", Cookie=cookie).body.startswith(b"\x89PNG")  # type: ignore[attr-defined]
        with server.socket("/screen/demo", cookie) as screen:
            assert screen.recv(LIMIT) == b"RFB 003.008\n"
            screen.send(b"RFB 003.008\n")
            # One kind of login, and that is none: who comes this way is known.
            assert screen.recv(LIMIT) == b"\x01\x01"
        made = ask(live, "snapshot-create", "demo", snapshot="one")["result"]
        assert made["snapshot"]["label"] == "one"
        found = ask(live, "snapshots", "demo")["result"]["snapshots"]
        assert [each.get("label") for each in found] == ["one", None]
        assert ask(live, "revert", "demo", snapshot="one")["result"]["state"] == "running"
        assert ask(live, "kill", "demo")["result"]
        until(lambda: not rig.row(), "its end")


def test_a_screen_that_is_not_there_says_so(rig: Rig) -> None:
    with web() as server, server.socket("/screen/demo", server.cookie()) as screen:
        with pytest.raises(ConnectionClosed) as caught:
            screen.recv(LIMIT)
        assert caught.value.rcvd
        assert caught.value.rcvd.code == 4004
        assert "demo" in caught.value.rcvd.reason


def test_view_where_no_viewer_is_installed_shows_it_in_the_browser(
    rig: Rig, tmp_path: Path
) -> None:
    rig.up()
    opened = tmp_path / "opened"
    opener = tmp_path / "xdg-open"
    # What a desktop has instead of a browser: the page's file is handed to it by its name.
    opener.write_text(f'#!/bin/sh\necho "$1" >{opened}.new && /bin/mv {opened}.new {opened}\n')
    opener.chmod(0o755)
    environment = {**os.environ, "DISPLAY": ":9", "BROWSER": str(opener), "PATH": str(tmp_path)}
    view = subprocess.Popen(
        [*PROGRAM, "view", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    try:
        until(opened.exists, "the browser")
        page = Path(opened.read_text(encoding="utf-8").strip().removeprefix("file://"))
        assert page.stat().st_mode & 0o777 == 0o600
        assert view.stdout
        assert view.stdout.readline().strip() in page.read_text(encoding="utf-8")
        assert b"token" not in Path(f"/proc/{view.pid}/cmdline").read_bytes()
    finally:
        view.send_signal(signal.SIGINT)
        _, said = view.communicate(timeout=LIMIT)
    assert view.returncode == 0
    assert "no viewer is installed" in said


# ---- in a browser -------------------------------------------------------------------------------

CONNECTED = "document.querySelector('#screen').dataset.connected"


def test_a_console_in_the_browser_shows_the_guest_and_takes_keys(rig: Rig, tmp_path: Path) -> None:
    rig.up()
    rig.ready()
    with web() as server, Browser(tmp_path / "browser") as page:
        page.go(server.link)
        page.until("document.querySelector('.card img[src]')")
        assert page.ask("location.search") == ""
        page.ask("location.hash = 'demo'")
        page.until(CONNECTED)
        page.until(PAINTED)
        with rig.console() as console:
            console.received = b""
            console.socket.settimeout(0.5)
            page.key("k", "KeyK", 75)
            page.key("Enter", "Enter", 13)
            until(lambda: console.says(r"note=\S*k"), "the note")
        # On a phone nothing is wider than the phone, and the whole screen is seen.
        page.size(390, 800)
        page.until("document.documentElement.scrollWidth <= 390")
        page.until("document.querySelector('#screen canvas').getBoundingClientRect().width <= 390")
        assert page.screenshot(tmp_path / "phone.png").startswith(b"\x89PNG")
        assert page.console == []


def test_power_and_snapshots_from_the_page(rig: Rig, tmp_path: Path) -> None:
    rig.up()
    rig.ready()
    with web() as server, Browser(tmp_path / "browser") as page:
        page.go(server.link)
        page.ask("location.hash = 'demo'")
        page.until(CONNECTED)
        page.click("Snapshots", "#tools")
        page.click("Take a snapshot", "#panel")
        page.until("document.querySelector('.snapshot b')?.textContent === 'snap1'")
        page.ask("window.confirm = () => true")
        page.click("Kill", "#tools")
        page.until("document.querySelector('#tools .state').textContent === 'stopped'")
        page.until(f"!{CONNECTED}")
        page.click("Start", "#tools")
        page.until(CONNECTED)
        page.click("Revert", "#panel")
        page.until("document.querySelector('#told .done')?.textContent.includes('revert')")
        page.until(CONNECTED)
        # What goes wrong is told on the page.
        page.click("CD", "#tools")
        page.until("document.querySelector('#panel p')?.textContent.includes('no drive')")


def test_a_wrong_password_is_told_and_the_right_one_lets_in(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD, encoding="utf-8")
    file.chmod(0o600)
    give = (
        "document.getElementById('secret').value = {!r}; document.querySelector('button').click()"
    )
    with web("--password-file", str(file)) as server, Browser(tmp_path / "browser") as page:
        page.go(server.link)
        page.until("document.getElementById('secret')")
        page.ask(give.format("guess"))
        page.until("document.getElementById('told').textContent.includes('not it')")
        page.ask(give.format(PASSWORD))
        page.until("document.getElementById('machines')")
