"""A throw-away computer with a real systemd: PID 1, logind, and the manager of an ordinary user.

It lives in mount, pid, ipc, uts, cgroup and network namespaces, on an overlay of `/` whose upper
layer is a tmpfs, so nothing of this computer can change. It needs root, and boots in a second or
two. This checkout is there as /srv/qlaunch and runs from source.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

BOOT = Path(__file__).parent / "boot.sh"
TOP = Path(__file__).parent.parent.parent
USER = "qlaunch-lab"
UID = 47110
HOME = f"/home/{USER}"
ROOT_HOME = "/srv/root"
RUNTIME = f"/run/user/{UID}"
PYTHON = f"/srv/venv/bin/{os.path.basename(sys.executable)}"

BOOT_TIMEOUT = 30.0
RUN_TIMEOUT = 30.0
END_TIMEOUT = 10.0

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_CREDENTIALS = struct.Struct("3i")


class LabError(Exception):
    """This computer lets no lab be made."""


class Lab:
    """A running lab; `pid` is its PID 1, as this computer counts. Use as a context manager."""

    def __init__(self) -> None:
        self.pid = 0
        self._init: int | None = None
        self._stack = contextlib.ExitStack()
        self._work = ""

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._work = tempfile.mkdtemp(prefix="qlab-", dir="/tmp")
            stack.callback(shutil.rmtree, self._work)
            os.mkdir(f"{self._work}/lab")
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            # Closed as soon as it is ready: nobody reads what comes later, and systemd would wait.
            with socket.socket(socket.AF_UNIX, kind) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                listener.bind(f"{self._work}/notify")
                self._outer = stack.enter_context(self._start())
                stack.callback(self._end)
                self._wait_ready(listener)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- what a test does in it -----------------------------------------------------------------

    def path(self, path: str) -> Path:
        """A file of the lab as this computer sees it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def is_gone(self, pid: int) -> bool:
        """Whether a process, as the lab counts, has ended and been reaped."""
        try:
            return not self.path(f"/proc/{pid}/cmdline").exists()
        except ProcessLookupError:
            return True

    def run(
        self,
        *argv: str,
        root: bool = False,
        check: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the lab to its end, as the ordinary user or as root."""
        done = subprocess.run(
            self.command(argv, root=root, environ=environ),
            check=False,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def command(
        self, argv: Sequence[str], *, root: bool = False, environ: Mapping[str, str] | None = None
    ) -> list[str]:
        """What runs `argv` in the lab, in a control group beside those that systemd makes. An empty
        variable of `environ` is not set."""
        login = {**environment(root), **(environ or {})}
        variables = [f"{name}={value}" for name, value in login.items() if value]
        return [
            *("sh", "-c", 'echo $$ >"$1" && shift && exec "$@"', "sh", self._join()),
            *("nsenter", "-t", str(self.pid), "-r", "-m", "-p", "-i", "-u", "-n", "-C", "--"),
            *(() if root else ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")),
            *("env", "-i", "-C", "/"),
            *variables,
            *argv,
        ]

    def wait_end(self) -> None:
        """Wait until the lab has powered off."""
        assert self._init is not None
        assert select.select([self._init], [], [], RUN_TIMEOUT)[0], "the lab does not power off"

    # ---- its beginning and its end --------------------------------------------------------------

    def _start(self) -> subprocess.Popen[bytes]:
        work, uid, top, venv = self._work, str(UID), str(TOP), sys.prefix
        private = ["unshare", "--mount", "--propagation", "private", "--"]
        # The lab ends with this process, whatever ends it.
        return subprocess.Popen(
            [*("setpriv", "--pdeathsig", "TERM"), *private, "sh", str(BOOT), "outer",
             work, uid, top, venv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": _PATH},
            cwd="/",
            start_new_session=True,
        )  # fmt: skip

    def _wait_ready(self, listener: socket.socket) -> None:
        """Wait until systemd says that it has booted. Raises: LabError, TimeoutError."""
        until = time.monotonic() + BOOT_TIMEOUT
        outer = os.pidfd_open(self._outer.pid)
        self._stack.callback(os.close, outer)
        while not self.pid:
            left = max(0.0, until - time.monotonic())
            ready, _, _ = select.select([listener.fileno(), outer], [], [], left)
            if outer in ready:
                assert self._outer.stderr
                words = self._outer.stderr.read().decode(errors="replace").split("\n")
                raise LabError(next(filter(None, words), "it ended at once"))
            if not ready:
                raise TimeoutError(f"systemd was not up after {BOOT_TIMEOUT:.0f} s")
            data, ancillary, _, _ = listener.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            if b"READY=1" in data.split(b"\n"):
                self.pid = int(_CREDENTIALS.unpack(ancillary[0][2])[0])
        self._init = os.pidfd_open(self.pid)

    def _end(self) -> None:
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                # With its PID 1 all that runs in there ends.
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            os.close(self._init)
        elif self._outer.poll() is None:
            self._outer.terminate()
        self._outer.wait(END_TIMEOUT)

    def _join(self) -> str:
        return f"/proc/{self._outer.pid}/root{self._work}/lab/session/cgroup.procs"


def environment(root: bool) -> dict[str, str]:
    """What a login gives."""
    common = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "PYTHONPATH": "/srv/qlaunch"}
    if root:
        return {**common, "HOME": ROOT_HOME, "USER": "root"}
    return {**common, "HOME": HOME, "USER": USER, "XDG_RUNTIME_DIR": RUNTIME}
