"""Where a history takes place: folders of its own, and a file system whose power can fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests import leftovers
from tests.chaos.victims import Power

LASTING = {"XDG_CONFIG_HOME": "config", "XDG_DATA_HOME": "data", "XDG_STATE_HOME": "state"}
_OTHERS = {"HOME": "home", "XDG_RUNTIME_DIR": "run"}
_FOREIGN = ("DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET", "INVOCATION_ID")


@contextlib.contextmanager
def own_place() -> Iterator[tuple[Path, str]]:
    """A folder that HOME and the XDG folders lie in, and the word that its processes carry. At the
    end both are gone; the cache stays, so that QEMU is asked once what it can do."""
    folder, ident = Path(tempfile.mkdtemp(prefix="ql-", dir="/tmp")), uuid.uuid4().hex
    for name in list(os.environ):
        if name in _FOREIGN or name.startswith("QLAUNCH_"):
            del os.environ[name]
    for variable, entry in {**LASTING, **_OTHERS}.items():
        (folder / entry).mkdir(mode=0o700)
        os.environ[variable] = str(folder / entry)
    os.environ["QLAUNCH_TEST_ID"] = ident
    os.environ["LC_ALL"] = "C.UTF-8"
    try:
        yield folder, ident
    finally:
        del os.environ["QLAUNCH_TEST_ID"]
        for left in leftovers.reap(ident):
            print(f"left running, and ended now: {left}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def power(folder: Path) -> Iterator[Power]:
    """Put all that must last on a file system whose power can fail. Only root can."""
    here = Power(folder / "disk.img", folder / "fs")
    before = {variable: os.environ[variable] for variable in LASTING}
    try:
        here.make()
        for variable, entry in LASTING.items():
            (here.folder / entry).mkdir(mode=0o700)
            os.environ[variable] = str(here.folder / entry)
        yield here
    finally:
        os.environ.update(before)
        for left in leftovers.reap(os.environ["QLAUNCH_TEST_ID"]):
            print(f"left running, and ended now: {left}", file=sys.stderr)
        here.unmount()
