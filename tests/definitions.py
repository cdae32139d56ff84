"""What the tests of the definition verbs share: qlaunch called as a user does, real images."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import frozen

from qlaunch.cli.main import main
from qlaunch.store import paths

PROGRAM = (sys.executable, "-m", "qlaunch")
TOP = Path(__file__).parent.parent
PATIENCE = 30.0


@frozen
class Done:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def qlaunch(*words: str | Path) -> Done:
    """Run one command line in this process; nobody can be asked."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    return Done(status, out.getvalue(), err.getvalue())


def at_terminal(answers: str, *words: str) -> Done:
    """Run one command line at a terminal where `answers` are typed."""
    outer, inner = pty.openpty()
    try:
        with subprocess.Popen(
            [*PROGRAM, *words], stdin=inner, stdout=subprocess.PIPE, stderr=inner, text=True
        ) as process:
            os.close(inner)
            inner = -1
            os.write(outer, answers.encode())
            out = process.communicate(timeout=PATIENCE)[0]
        said = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(outer, 1 << 16):
                said += chunk
    finally:
        os.close(outer)
        if inner >= 0:
            os.close(inner)
    return Done(process.returncode, out, said.decode())


def start(*words: str) -> subprocess.Popen[str]:
    """Start one command as a process of its own."""
    return subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def children(pid: int) -> list[int]:
    """The child processes of `pid`."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def write_profile(name: str, text: str = "", *, head: str = "schema = 1\n") -> Path:
    """The user's own profile `name`, saying `text`."""
    path = Path(paths.config_dir(), "profiles", f"{name}.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + text, encoding="utf-8")
    return path


def data(name: str) -> Path:
    """The data folder of the machine `name`, made if need be."""
    folder = Path(paths.machine_data(name))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def state(name: str) -> Path:
    """The state folder of the machine `name`, made if need be."""
    folder = Path(paths.machine_state(name))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def image(
    path: Path, size: str = "16M", *, form: str = "qcow2", backing: Path | str | None = None
) -> Path:
    """A real image at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    below = ["-b", str(backing), "-F", "qcow2"] if backing else []
    words = ["qemu-img", "create", "-q", "-f", form, *below, str(path)]
    subprocess.run([*words, *([] if backing else [size])], check=True)
    return path


def qemu_io(path: Path, command: str) -> str:
    """Read or write in a qcow2 image."""
    done = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", command, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def holds(path: Path, pattern: str = "0x5a") -> bool:
    """Whether the first 64 KiB of the image hold `pattern`."""
    return "failed" not in qemu_io(path, f"read -P {pattern} 0 64k")


def info(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", str(path)], check=True, capture_output=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tree(folder: Path) -> list[str]:
    """Every file below `folder`, links included."""
    return sorted(
        str((Path(top) / name).relative_to(folder))
        for top, folders, names in os.walk(folder)
        for name in [*names, *(each for each in folders if (Path(top) / each).is_symlink())]
    )
