"""A supervisor of canned answers, on the real control socket and with the real control words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qlaunch.control import words
from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.store import paths

TOP = Path(__file__).parent.parent
# A program that hangs is the bug; a slow computer is not.
PATIENCE = 20.0

Answer = Callable[[socket.socket, dict[str, Any]], None]


class Peer:
    """Answers each verb as `answers` says and remembers what it was asked."""

    def __init__(self, path: str) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[str, Answer] = {}
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def result(self, verb: str, result: Any, progress: Sequence[dict[str, Any]] = ()) -> None:
        """Answer `verb` with `result`, after the lines of `progress`."""

        def answer(sock: socket.socket, _: dict[str, Any]) -> None:
            for line in progress:
                sock.sendall(words.encode({"progress": line}))
            sock.sendall(words.encode({"result": result}))

        self._answers[verb] = answer

    def error(self, verb: str, error: QlaunchError) -> None:
        """Answer `verb` with `error`."""
        reply = words.encode({"error": error.to_dict()})
        self._answers[verb] = lambda sock, _: sock.sendall(reply)

    def on(self, verb: str, answer: Answer) -> None:
        """Answer `verb` by calling `answer` with the connection and the arguments."""
        self._answers[verb] = answer

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb", buffering=0) as file:
            line = file.readline()
            if not line:
                return
            verb, args = words.decode_request(line)
            self.asked.append((verb, args))
            try:
                answer = self._answers.get(verb)
                if answer is None:
                    error = NotFoundError(f"there is no machine {args.get('name')!r}")
                    sock.sendall(words.encode({"error": error.to_dict()}))
                else:
                    answer(sock, args)
            except BrokenPipeError:
                pass  # the client hung up


@contextmanager
def supervisor(path: str | None = None) -> Iterator[Peer]:
    """A supervisor that listens where qlaunch looks for one."""
    peer = Peer(path or paths.control_socket())
    try:
        yield peer
    finally:
        peer.close()


def qlaunch(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The program in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "qlaunch", *arguments], cwd=TOP, **options)


def machine(name: str, **more: Any) -> dict[str, Any]:
    """A machine as `ps` answers it."""
    return {
        "name": name,
        "state": "running",
        "since": 0.0,
        "pid": 4711,
        "memory": 64 << 20,
        "cpu": 3.2,
        "accel": "kvm",
        "title": None,
        "display": [f"spice+unix:///run/{name}.sock"],
        "profile": f"/profiles/{name}.toml",
        "warnings": [],
        **more,
    }


def write_profile(name: str) -> str:
    """A profile that can be named; returns its path."""
    folder = os.path.join(paths.config_dir(), "profiles")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.toml")
    Path(path).write_text("schema = 1\n", encoding="utf-8")
    return path


def write_state(name: str, file: str, text: str) -> None:
    """A file in the machine's state folder."""
    folder = Path(paths.machine_state(name))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text, encoding="utf-8")
