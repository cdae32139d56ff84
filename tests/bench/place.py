"""Where a benchmark takes place: folders, a Python and a supervisor of its own, gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import venv
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from qlaunch.control import client, words
from qlaunch.store import paths
from tests import leftovers

MOST_MACHINES = 60
ANSWER_TIMEOUT = 120.0
_FOREIGN = ("DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET", "INVOCATION_ID")
_FOLDERS = {
    "HOME": "home",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "XDG_CACHE_HOME": "cache",
}
_PROFILE = """\
# The demo guest's machine with a qcow2 disk, emulated: what a start costs does not hang on KVM.
schema = 1
guest = "other"

[machine]
type = "pc"
accel = "tcg"
smm = false

[cpu]
model = "qemu64"

[memory]
size = "32MiB"
balloon = false

[video]
model = "std"

[usb]
controller = "none"

[[disk]]
id = "disk0"
bus = "ide"
size = "64MiB"

[[serial]]
id = "serial0"
"""
_START = "from qlaunch.control import client; client.start_supervisor()"
_SCRIPT = """\
#!{python}
import sys
from qlaunch.cli.main import script
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit(script())
"""


class Place:
    """A temporary folder that HOME and the XDG folders lie in, for this process and its children.

    Leaving it ends every process that was started here, in whatever way it is left.
    """

    def __init__(self, machines: int = MOST_MACHINES) -> None:
        self.names = [f"bench{at:02}" for at in range(machines)]
        self.ident = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="ql-bench-"))
        self.sockets = Path(tempfile.mkdtemp(prefix="ql-bench-", dir=_memory_folder()))
        self.python = str(self.folder / "env/bin/python3")
        self.qlaunch = str(self.folder / "env/bin/qlaunch")
        self._anchor: client.Connection | None = None
        self._supervisor = -1

    def __enter__(self) -> Self:
        try:
            for name in list(os.environ):
                if name in _FOREIGN or name.startswith(("PYTHON", "QLAUNCH_")):
                    del os.environ[name]
            for variable, folder in _FOLDERS.items():
                (self.folder / folder).mkdir(mode=0o700)
                os.environ[variable] = str(self.folder / folder)
            os.environ["XDG_RUNTIME_DIR"] = str(self.sockets)
            os.environ["QLAUNCH_TEST_ID"] = self.ident
            profiles = Path(paths.config_dir()) / "profiles"
            profiles.mkdir(parents=True)
            for name in self.names:
                (profiles / f"{name}.toml").write_text(_PROFILE, encoding="utf-8")
            _make_environment(self.folder / "env", self.qlaunch)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs here and remove the folder; an impatient Ctrl-C does not stop this."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.let_go()
        for pid in leftovers.find(self.ident):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = leftovers.reap(self.ident)
        for folder in (self.folder, self.sockets):
            shutil.rmtree(folder, ignore_errors=True)
        if left:
            print("these were left running and have been killed:", *left, sep="\n", file=sys.stderr)

    # ---- the supervisor -------------------------------------------------------------------------

    def start_supervisor(self) -> float:
        """Start a supervisor with the clean Python. Returns: the seconds until it listens."""
        begun = time.monotonic()
        subprocess.run([self.python, "-P", "-c", _START], check=True)
        seconds = time.monotonic() - begun
        self._supervisor = int(self.ask("supervisor")["pid"])
        return seconds

    def keep_supervisor(self) -> None:
        """Keep the supervisor while no machine runs: it has a client that waits for ever."""
        self._anchor = client.open_connection(start=False)
        self._anchor.socket.sendall(words.request("wait", {"name": "nobody", "for": "running"}))

    def let_go(self) -> None:
        """Let the supervisor end as it likes."""
        if self._anchor is not None:
            self._anchor.socket.close()
            self._anchor = None

    @property
    def supervisor(self) -> int:
        """The supervisor's pid."""
        return self._supervisor

    def kill_supervisor(self) -> None:
        """End the supervisor as a crash would."""
        self.let_go()
        with contextlib.ExitStack() as stack:
            handle = os.pidfd_open(self._supervisor)
            stack.callback(os.close, handle)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            with selectors.DefaultSelector() as selector:
                selector.register(handle, selectors.EVENT_READ)
                selector.select(ANSWER_TIMEOUT)

    # ---- requests -------------------------------------------------------------------------------

    def ask(self, verb: str, **args: Any) -> Any:
        return client.ask(verb, args, start=False)

    def up_request(self, name: str) -> bytes:
        """What `qlaunch up NAME --paused` sends."""
        return words.request(
            "up", {"profile": paths.find_profile(name), "set": [], "paused": True, "env": {}}
        )

    def up(self, count: int) -> float:
        """Start the first `count` machines at once. Returns: seconds until the last answer."""
        return at_once([self.up_request(name) for name in self.names[:count]])

    def down(self, count: int) -> float:
        """Stop the first `count` machines at once. Returns: seconds until the last answer."""
        return at_once([words.request("down", {"name": name}) for name in self.names[:count]])


def at_once(requests: list[bytes]) -> float:
    """Send every request on a connection of its own.

    Returns: the seconds until the last one is answered. Raises: RuntimeError for an error.
    """
    begun = time.monotonic()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        answers: dict[client.Connection, bytes] = {}
        for request in requests:
            connection = stack.enter_context(client.open_connection(start=False))
            connection.socket.sendall(request)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            answers[connection] = b""
        while selector.get_map():
            ready = selector.select(ANSWER_TIMEOUT)
            if not ready:
                raise RuntimeError("the supervisor does not answer")
            for key, _ in ready:
                chunk = key.data.socket.recv(1 << 16)
                answers[key.data] += chunk
                if not chunk or b'{"result"' in chunk or b'{"error"' in chunk:
                    selector.unregister(key.fileobj)
        seconds = time.monotonic() - begun
    for answer in answers.values():
        last = json.loads(answer.splitlines()[-1]) if answer else {"error": "hung up"}
        if "result" not in last:
            raise RuntimeError(f"the supervisor answered {last}")
    return seconds


def _memory_folder() -> str:
    """Where sockets lie on a real system: in memory. On a disk they would cost more than QEMU."""
    folders = (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}", "/dev/shm")
    return next((each for each in folders if os.access(each, os.W_OK)), tempfile.gettempdir())


def _make_environment(folder: Path, script: str) -> None:
    """An environment with qlaunch and what it imports, as an installation has it: compiled, and
    with no .pth file and no setuptools, which would make a start of Python, and so the limits,
    larger. What is measured stays as it is while somebody works on the checkout."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    for requirement in metadata.requires("qlaunch") or ():
        if "extra ==" not in requirement:
            word = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert word
            _link_package(metadata.distribution(word[0]), site)
    package = Path(words.__file__).resolve().parents[1]
    shutil.copytree(package, site / "qlaunch", ignore=shutil.ignore_patterns("__pycache__"))
    shipped = site / "qlaunch" / "shipped"
    if not shipped.exists():
        shipped.mkdir()
        shutil.copytree(paths.shipped_profiles(), shipped / "profiles")
    subprocess.run([folder / "bin/python3", "-m", "compileall", "-q", site / "qlaunch"], check=True)
    Path(script).write_text(_SCRIPT.format(python=folder / "bin/python3"), encoding="utf-8")
    Path(script).chmod(0o755)


def _link_package(package: metadata.Distribution, site: Path) -> None:
    tops = {file.parts[0] for file in package.files or () if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(package.locate_file(top))))
