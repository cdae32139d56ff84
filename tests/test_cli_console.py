"""The serial console: a terminal joined to a guest, and given back as it was."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from qlaunch.cli.main import main
from qlaunch.control import words
from tests.cli_peer import PATIENCE, Peer, qlaunch, supervisor, write_state


class Guest:
    """The other end of the console: answers as the supervisor does, then speaks as a guest."""

    def __init__(self, peer: Peer, *, backlog: bytes = b"boot\r\n") -> None:
        self.heard = b""
        self.gone = threading.Event()
        self._connected = threading.Event()
        self._backlog = backlog
        self._socket: socket.socket | None = None
        peer.on("console", self._serve)

    def say(self, text: bytes) -> None:
        assert self._connected.wait(PATIENCE)
        assert self._socket
        self._socket.sendall(text)

    def end(self) -> None:
        assert self._connected.wait(PATIENCE)
        assert self._socket
        self._socket.shutdown(socket.SHUT_RDWR)

    def _serve(self, sock: socket.socket, _: dict[str, Any]) -> None:
        reply = {"serial": "serial0", "backlog": len(self._backlog)}
        self._socket = sock
        # In one piece: the first bytes of the guest come with the reply.
        sock.sendall(words.encode({"result": reply}) + self._backlog)
        self._connected.set()
        try:
            while data := sock.recv(4096):
                self.heard += data
                sock.sendall(b"<" + data + b">")
        except (BrokenPipeError, ConnectionResetError):
            pass  # left before it had read everything
        self.gone.set()


class Terminal:
    """A pseudo-terminal with qlaunch on it."""

    def __init__(self, *arguments: str) -> None:
        self.master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.process = qlaunch(
            *arguments, stdin=self._slave, stdout=self._slave, stderr=self._slave
        )
        self.shown = b""

    def read_until(self, text: bytes) -> None:
        while text not in self.shown:
            self.shown += os.read(self.master, 4096)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


def is_raw(attributes: list[Any]) -> bool:
    return not attributes[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


def test_keys_go_to_the_guest_until_ctrl_bracket(peer: Peer) -> None:
    guest = Guest(peer)
    with terminal("console", "xp") as tty:
        tty.read_until(b"boot")
        assert b"connected to serial0 of xp; leave with Ctrl-]" in tty.shown
        assert is_raw(tty.attributes())
        tty.type(b"\x03ls\r")  # Ctrl-C is the guest's
        tty.read_until(b"ls\r>")
        tty.type(b"x\x1dnever sent")
        tty.read_until(b"left serial0 of xp")
        assert tty.process.wait(PATIENCE) == 0
        assert tty.attributes() == tty.before
    assert guest.gone.wait(PATIENCE)
    assert guest.heard == b"\x03ls\rx"


def test_the_end_of_the_machine_ends_the_console(peer: Peer) -> None:
    guest = Guest(peer)
    with terminal("console", "xp") as tty:
        tty.read_until(b"boot")
        guest.say(b"bye")
        guest.end()
        tty.read_until(b"serial0 of xp has ended")
        assert b"bye" in tty.shown
        assert tty.process.wait(PATIENCE) == 0
        assert tty.attributes() == tty.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_after_a_signal(number: signal.Signals, peer: Peer) -> None:
    Guest(peer)
    with terminal("console", "xp") as tty:
        tty.read_until(b"boot")
        assert is_raw(tty.attributes())
        tty.process.send_signal(number)
        assert tty.process.wait(PATIENCE) == 128 + number
        assert tty.attributes() == tty.before


def test_a_refusal_leaves_the_terminal_alone() -> None:
    with terminal("console", "nobody") as tty:
        tty.read_until(b"no profile or machine")
        assert tty.process.wait(PATIENCE) == 4
        assert tty.attributes() == tty.before


def test_once_leaves_when_the_piped_input_has_been_answered(peer: Peer) -> None:
    guest = Guest(peer)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with qlaunch("console", "xp", "--once", "-q", **pipes) as process:
        out, err = process.communicate(b"reboot\x1d\n", timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")
    # On a pipe Ctrl-] is a byte like any other.
    assert out == b"boot\r\n<reboot\x1d\n>"
    assert guest.heard == b"reboot\x1d\n"


def test_without_input_it_prints_until_the_machine_ends(peer: Peer) -> None:
    guest = Guest(peer)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with qlaunch("console", "xp", stdin=subprocess.DEVNULL, **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == b"boot\r\n"
        guest.say(b"later\n")
        assert process.stdout.readline() == b"later\n"
        guest.end()
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"serial0 of xp has ended\n")


def test_a_long_paste_is_sent_whole(peer: Peer) -> None:
    guest = Guest(peer)
    paste = bytes(range(32, 127)) * 4_000
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with qlaunch("console", "xp", "--once", "-q", **pipes) as process:
        process.communicate(paste, timeout=PATIENCE)
    assert guest.heard == paste


def test_the_saved_console_is_printed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_state("xp", "console-serial0.log", "booted\x1b[1m\n")
    assert main(["console", "xp", "--log"]) == 0
    assert capfdbinary.readouterr().out == b"booted\x1b[1m\n"
    assert main(["console", "xp", "--log", "--serial", "com9"]) == 4
