"""Keeps the supervisor's memory small: it is one process that people keep for weeks."""

from __future__ import annotations

import contextlib
import gc
import importlib
import linecache
import sys
from types import ModuleType

# Objects, then collections of the younger generation. Python's own 700, 10, 10 lets the rubbish of
# sixty starts (20,000 objects in cycles, 3 MiB) lie until memory has been taken for it; with what
# was imported out of the way, a whole collection has little to look at.
THRESHOLDS = (700, 5, 2)


def leave_out_openssl() -> None:
    """Import asyncio, hashlib and qemu.qmp so that none of them loads OpenSSL, 5 MiB of PSS.

    The supervisor speaks over unix sockets and never TLS (SPICE's is QEMU's own affair). asyncio
    and hashlib do without where there is none, and qemu.qmp names one class of `ssl` in its
    annotations. Who imports `ssl` later gets the real one; only asyncio's TLS stays off.
    """
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        return
    stand_in = ModuleType("ssl")
    vars(stand_in)["SSLContext"] = object
    try:
        for name in ("_hashlib", "ssl"):
            sys.modules[name] = None  # type: ignore[assignment]  # importing it fails from now on
        for name in ("asyncio", "hashlib"):
            importlib.import_module(name)
        sys.modules["ssl"] = stand_in
        # A qemu.qmp that needs more is imported later, with the real one.
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module("qemu.qmp")
    finally:
        del sys.modules["_hashlib"], sys.modules["ssl"]


def settle() -> None:
    """Everything is imported: have it never looked at by the collector again, which then looks at
    the rest more often."""
    linecache.clearcache()  # the source of what attrs has generated, 0.5 MiB
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
