"""`qlaunch doctor --report`: one file for a bug report, without secrets and without who you are."""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from qlaunch import __version__
from qlaunch.cli.check_lines import Check
from qlaunch.store import files, machines, paths

TAIL = 64 << 10
_HIDDEN = "(left out)"
_NAME = "(user)"
_HOST = "(host)"
_SECRET_WORDS = r"pass(?:word|phrase|wd)?|secrets?|tokens?|tickets?|keys?|credentials?|cookies?"
# `password = "x"`, `"password": "x"`, `password=x`, `token x`: with what follows up to its end.
_SECRETS = (
    re.compile(
        rf"""(?ix) (["']?\b[\w.-]*(?:{_SECRET_WORDS})["']?\s*[=:]\s*)
        ("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\{{[^}}\n]*\}}|[^\s,}}\]]+)"""
    ),
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/@]+(?=@)"),
    re.compile(r"(?i)(\bbearer\s+)\S+"),
    re.compile(
        r"(?<![A-Za-z0-9+/_-])()(?=[^\s/]*[0-9])[A-Za-z0-9+_-]{40,}={0,2}(?![A-Za-z0-9+/_-])"
    ),
)
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?(-----END \1-----|\Z)", re.DOTALL)


def clean(text: str) -> str:
    """`text` without what is secret, and without the names of user and computer."""
    text = _BLOCK.sub(_HIDDEN, text)
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: f"{found[1]}{_HIDDEN}", text)
    for word, instead in _names():
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", instead, text)
    # Other control characters have no business in a text that somebody opens.
    return "".join(each for each in text if each in "\n\t" or each.isprintable())


def _names() -> Iterator[tuple[str, str]]:
    home = os.path.expanduser("~")
    if len(home) > 1:
        yield home, "~"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    if user not in ("", "root"):
        yield user, _NAME
    host = socket.gethostname()
    if host not in ("", "localhost"):
        yield host, _HOST


def write(path: str, checks: list[Check]) -> None:
    """Put the report at `path`, for its owner alone. Raises: HostError."""
    files.write_bytes(path, text(checks).encode())


def default_path() -> str:
    return os.path.abspath(time.strftime("qlaunch-report-%Y%m%d-%H%M%S.txt"))


def text(checks: list[Check]) -> str:
    """The whole report."""
    parts = [_head(), _section("doctor", _lines(checks))]
    parts.append(_section("supervisor.log", _tail(Path(paths.state_dir()) / "supervisor.log")))
    for name in machines.names():
        parts += _machine(name)
    return clean("\n".join(parts))


def _head() -> str:
    return (
        f"qlaunch {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"written {time.strftime('%Y-%m-%d %H:%M:%S %z')}. Passwords, keys and your name are left\n"
        "out as far as they can be known: read it once before you send it.\n"
    )


def _lines(checks: list[Check]) -> str:
    found = []
    for check in checks:
        found.append(f"{check.level:<4}  {check.message}")
        if check.hint:
            found.append(f"        {check.hint}")
    return "\n".join(found)


def _machine(name: str) -> Iterator[str]:
    """What is kept of one machine: its plan, how it ended, its snapshots, its log; no console, for
    what a guest says there is its user's."""
    state, data = Path(paths.machine_state(name)), Path(paths.machine_data(name))
    for path in (
        *(state / each for each in ("plan.json", "run.json", "last.json", "plugs.json")),
        data / "snapshots" / "timeline.json",
        Path(machines.log_path(name)),
    ):
        if path.exists():
            yield _section(f"{name}: {path.name}", _tail(path))
    if data.is_dir():
        sizes = (f"{each.stat().st_size:>16}  {each.name}" for each in sorted(data.iterdir()))
        yield _section(f"{name}: files", "\n".join(sizes))


def _tail(path: Path) -> str:
    """The end of a file, whole lines of it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL))
            kept = file.read(TAIL)
    except OSError as error:
        return f"({error.strerror})"
    if size > TAIL:
        kept = kept.partition(b"\n")[2]
    return kept.decode(errors="replace")


def _section(title: str, text: str) -> str:
    return f"\n==== {title}\n{text.rstrip()}\n"
